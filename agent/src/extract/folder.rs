//! The names of the files, and what an earlier attempt has left.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::task::JoinError;
use towpath_transfer::{
    Code, Failure, FileName,
    digest::Sha256Digest,
    packed::{PACKED_SUFFIX, is_reserved, packed_name},
};
use towpath_transport::files::{FileKind, FileStore, TEMP_SUFFIX, file_failure, ignore_missing, is_begun};

use super::{ExtractParts, ExtractRequest, Form};
use crate::config::TableConfig;

/// Entries of a folder that are looked at in one go.
const PAGE: usize = 1_000;
/// The most bytes that a table's name gives to a file name; room for its suffixes is left.
const MAX_STEM_BYTES: usize = 150;
/// Hexadecimal digits that tell apart names that had to be changed.
const MARK_DIGITS: usize = 8;

/// Counts the files that a program writes: each gets a temporary name of its own, so that a writer of an attempt that was given up
/// and has not noticed yet cannot write into the file of the next one. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Attempts(Arc<AtomicU64>);

/// The CSV files of tables, in their order: as the configuration says, else by the table's name. A name that no file can
/// have has the characters in question replaced, and a mark after it that is the same every time.
///
/// # Errors
/// `config-invalid` where two tables have the same file, or a file has a name that a transfer uses otherwise.
pub fn file_names(tables: &[TableConfig]) -> Result<Vec<FileName>, Failure> {
    let mut taken = HashSet::new();
    tables
        .iter()
        .map(|table| {
            let name = match table.csv_name() {
                Ok(name) if packed_name(&name).is_ok() => name,
                other if table.file.is_none() => {
                    replaced(table.name.as_str()).or(other.map_err(|e| invalid(table, &e.to_string())))?
                }
                other => other.map_err(|e| invalid(table, &e.to_string()))?,
            };
            if is_reserved(&name) || packed_name(&name).is_err() {
                return Err(invalid(table, &format!("a file cannot be called {name}")));
            }
            let keys = if table.incremental.is_some() { Some(keys_name(&name, table)?) } else { None };
            for name in [Some(&name), keys.as_ref()].into_iter().flatten() {
                if !taken.insert(name.case_folded()) {
                    return Err(invalid(table, &format!("another table has the file {name} already")));
                }
            }
            Ok(name)
        })
        .collect()
}

/// The file of all keys of a table whose rows are in the file `name`: `<stem>.keys.csv`.
///
/// # Errors
/// `config-invalid` where that is no name for a file.
pub(super) fn keys_name(name: &FileName, table: &TableConfig) -> Result<FileName, Failure> {
    let stem = name.as_str().rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
    let keys = format!("{stem}.keys.csv");
    let parsed: Result<FileName, _> = keys.parse();
    match parsed {
        Ok(keys) if packed_name(&keys).is_ok() => Ok(keys),
        _ => Err(invalid(table, &format!("the file of its keys cannot be called {keys}"))),
    }
}

fn invalid(table: &TableConfig, why: &str) -> Failure {
    Failure::park(Code::ConfigInvalid, format!("table {} has no file: {why}; give it a `file`", table.name))
}

/// A name for a table whose own name no file can have.
fn replaced(table: &str) -> Result<FileName, Failure> {
    let plain: String = table.chars().map(|c| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect();
    let mut end = plain.len().min(MAX_STEM_BYTES);
    while !plain.is_char_boundary(end) {
        end -= 1;
    }
    let (stem, _) = plain.split_at_checked(end).unwrap_or_default();
    let mark = Sha256Digest::of(table.as_bytes()).to_string();
    let (mark, _) = mark.split_at_checked(MARK_DIGITS).unwrap_or_default();
    format!("{stem}-{mark}.csv")
        .parse()
        .map_err(|e| Failure::park(Code::ConfigInvalid, format!("table {table} has no file; give it a `file`")).caused_by(e))
}

/// The name under which a file lies in the folder, and the one under which it is written.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) name: FileName,
    pub(super) path: PathBuf,
    pub(super) temp: PathBuf,
}

impl Place {
    pub(super) fn new(folder: &Path, name: FileName, attempts: &Attempts) -> Self {
        let attempt = attempts.0.fetch_add(1, Ordering::Relaxed);
        let temp = folder.join(format!(".{name}.{attempt}{TEMP_SUFFIX}"));
        Self { path: folder.join(name.as_str()), name, temp }
    }

    /// Gives the written file its name.
    pub(super) fn publish(&self, files: &dyn FileStore) -> Result<(), Failure> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        files
            .rename(&self.temp, &self.path)
            .and_then(|()| files.sync_dir(folder))
            .map_err(|error| file_failure("giving its name to", &self.path, error))
    }

    /// Removes the file that is not wanted after all. Where that fails, the next attempt removes it.
    pub(super) fn discard(&self, files: &dyn FileStore) {
        if let Err(error) = ignore_missing(files.remove(&self.temp)) {
            tracing::warn!(path = %self.temp.display(), %error, "a temporary file could not be removed");
        }
    }
}

/// Removes what an earlier attempt has left: in a transfer's own folder every packed and every temporary file, in a folder
/// of somebody else only the temporary files of these names.
pub(super) async fn clear(parts: &ExtractParts, request: &ExtractRequest, names: &[FileName]) -> Result<(), Failure> {
    let (files, folder, form) = (Arc::clone(&parts.files), request.folder.clone(), request.form);
    let names: HashSet<String> = names.iter().map(|name| name.as_str().to_owned()).collect();
    let is_left = move |name: &str| match form {
        Form::Packed => name.ends_with(PACKED_SUFFIX) || is_begun(name),
        Form::Plain => temp_of(name).is_some_and(|of| names.contains(of)),
    };
    blocking(move || {
        let failed = |error| file_failure("looking through", &folder, error);
        let mut after: Option<String> = None;
        let mut removed = false;
        loop {
            let page = files.list(&folder, after.as_deref(), PAGE).map_err(failed)?;
            for entry in page.iter().filter(|entry| entry.stat.kind != FileKind::Dir && is_left(&entry.name)) {
                let path = folder.join(&entry.name);
                ignore_missing(files.remove(&path)).map_err(|error| file_failure("removing", &path, error))?;
                removed = true;
            }
            match page.last() {
                Some(last) => after = Some(last.name.clone()),
                None => break,
            }
        }
        if removed { files.sync_dir(&folder).map_err(failed) } else { Ok(()) }
    })
    .await
}

/// The file of which `name` is the temporary one.
fn temp_of(name: &str) -> Option<&str> {
    let (of, attempt) = name.strip_prefix('.')?.strip_suffix(TEMP_SUFFIX)?.rsplit_once('.')?;
    (!attempt.is_empty() && attempt.bytes().all(|byte| byte.is_ascii_digit())).then_some(of)
}

/// Runs `work` where it may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    joined(towpath_transport::files::blocking(work)).await
}

/// Waits for work on another thread.
pub(super) async fn joined<T>(task: impl Future<Output = Result<Result<T, Failure>, JoinError>>) -> Result<T, Failure> {
    task.await.unwrap_or_else(|error| Err(Failure::retry(Code::Internal, "a thread of the extract has failed").caused_by(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, file: Option<&str>) -> TableConfig {
        let whole = TableConfig::whole(name.parse().unwrap());
        TableConfig { file: file.map(|file| file.parse().unwrap()), ..whole }
    }

    fn names(tables: &[TableConfig]) -> Vec<String> {
        file_names(tables).unwrap().into_iter().map(String::from).collect()
    }

    #[test]
    fn every_table_has_a_file_of_its_own() {
        let long = "ö".repeat(128);
        let tables = [
            table("Artikel Größe", None),
            table("a/b", None),
            table("a:b", None),
            table("con", None),
            table("dbo.items", Some("items.csv")),
            table(&long, None),
            table(".hidden ", Some("hidden.csv")),
        ];
        let found = names(&tables);
        assert_eq!(found[0], "Artikel Größe.csv");
        assert!(found[1].starts_with("a_b-") && found[2].starts_with("a_b-") && found[1] != found[2], "{found:?}");
        assert!(found[3].starts_with("con-"));
        assert_eq!(found[4], "items.csv");
        assert!(found[5].starts_with("ööö") && found[5].len() < 180);
        assert_eq!(found, names(&tables));
    }

    #[test]
    fn two_tables_cannot_share_a_file_nor_use_one_of_the_transfer() {
        let failed = |tables: &[TableConfig]| file_names(tables).unwrap_err();
        assert_eq!(failed(&[table("a", None), table("b", Some("A.CSV"))]).code(), Code::ConfigInvalid);
        assert!(failed(&[table("a", Some("manifest.json"))]).message().contains("manifest.json"));
        let incremental = crate::config::IncrementalConfig {
            watermark: vec!["x".into()],
            overlap: crate::config::Overlap::Equal,
            compare_keys: crate::config::DEFAULT_COMPARE_KEYS,
        };
        let keyed = |file| TableConfig { incremental: Some(incremental.clone()), ..table("a", file) };
        assert!(failed(&[keyed(None), table("a.keys", None)]).message().contains("a.keys.csv"));
        assert!(failed(&[keyed(Some(&format!("{}.csv", "x".repeat(187))))]).message().contains("file of its keys"));
    }

    #[test]
    fn temporary_names_are_told_from_the_names_of_others() {
        let attempts = Attempts::default();
        let place = || Place::new(Path::new("x"), "items.csv".parse().unwrap(), &attempts.clone());
        let (place, next) = (place(), place());
        let temp = place.temp.file_name().unwrap().to_str().unwrap();
        assert_eq!(temp_of(temp), Some("items.csv"));
        assert_ne!(next.temp, place.temp);
        for other in ["items.csv.1.tmp", ".items.csv.tmp", ".items.csv.x.tmp", ".items.csv.1"] {
            assert_ne!(temp_of(other), Some("items.csv"), "{other}");
        }
    }
}
