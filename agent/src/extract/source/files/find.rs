//! Which files of the folder are which table, and whether they are whole.
//!
//! Nothing is concluded from the age of a file: the clock of the host that writes it, the one of the share on which it lies and
//! ours need not agree. What counts is that two looks, so far apart by our own clock, find the same lengths and times.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use glob::{MatchOptions, Pattern};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Code, Failure, manifest::Label};
use towpath_transport::files::{FileEntry, FileKind, FileStore};

use super::taken::own_name;
use crate::config::{Complete, EachFile, FolderConfig, TableConfig};

/// The most names in the folder that are looked at.
pub(super) const MAX_NAMES: usize = 100_000;
/// The most files that one table takes in one transfer. Of files that are merged the first ones are taken; of others there may not
/// be more.
pub(super) const MAX_FILES_PER_TABLE: usize = 1_000;
/// The most archived files that are read again for one table.
pub(super) const MAX_ARCHIVED: usize = 100_000;
/// Names read from a folder at a time.
const PAGE: usize = 1_000;
/// The most files that a message names.
const SHOWN_FILES: usize = 3;

/// Ends of names that belong to files under way.
const TEMPORARY: [&str; 2] = [".part", ".tmp"];

/// A file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) len: u64,
    pub(super) modified: Option<Timestamp>,
    /// Its marker, where markers are used.
    pub(super) marker: Option<Marker>,
}

/// Name, length and time of a marker.
pub(super) type Marker = (String, u64, Option<Timestamp>);

/// A file's marker, or the name of one that is missing.
type MarkerOrName = Result<Marker, String>;

/// The files of one table.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    /// Those that are whole and go now, in their order.
    pub(super) whole: Vec<Found>,
    /// What is wrong with the others, for people.
    pub(super) waiting: Vec<String>,
}

/// A table's files.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) table: Label,
    pattern: Pattern,
    merges: bool,
}

impl Wanted {
    /// The files of a table: what its configuration says, else `<table>.csv`.
    pub(super) fn of(table: &TableConfig) -> Result<Self, Failure> {
        let text = table.files.clone().unwrap_or_else(|| Pattern::escape(&format!("{}.csv", table.name)));
        let wrong =
            |error| Failure::park(Code::ConfigInvalid, format!("table {}: `files` is no pattern", table.name)).caused_by(error);
        let pattern = Pattern::new(&text).map_err(wrong)?;
        Ok(Self { table: table.name.clone(), pattern, merges: table.each_file == EachFile::Merges })
    }

    fn is(&self, name: &str) -> bool {
        // As the host's own file system compares names.
        let options = MatchOptions {
            case_sensitive: cfg!(not(windows)),
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        self.pattern.matches_with(name, options)
    }
}

/// The folder.
pub(super) struct Folder<'a> {
    pub(super) files: &'a dyn FileStore,
    pub(super) config: &'a FolderConfig,
    pub(super) wanted: &'a [Wanted],
    pub(super) cancel: &'a CancellationToken,
}

impl Folder<'_> {
    /// What there is of each table now. With `before`, an earlier look, files are whole that have not changed since.
    ///
    /// # Errors
    /// `erp-missing` and `erp-refused` for the folder, `config-invalid` for a file of two tables, `limit-exceeded`.
    pub(super) fn look(&self, before: Option<&[Dropped]>) -> Result<Vec<Dropped>, Failure> {
        let mut files: Vec<Vec<FileEntry>> = self.wanted.iter().map(|_| Vec::new()).collect();
        let mut markers = HashMap::new();
        let suffix = match &self.config.complete {
            Complete::Marker { marker_suffix } => Some(marker_suffix.as_str()),
            Complete::Stable { .. } => None,
        };
        let mut names = 0;
        each_file(self.files, &self.config.folder, &mut |entry| {
            self.go_on()?;
            names += 1;
            if names > MAX_NAMES {
                return Err(self.too_many(&format!("holds more than {MAX_NAMES} names")));
            }
            if is_temporary(&entry.name) {
                return Ok(());
            }
            if suffix.is_some_and(|suffix| entry.name.len() > suffix.len() && entry.name.ends_with(suffix)) {
                markers.insert(entry.name, entry.stat);
                return Ok(());
            }
            match self.table_of(&entry.name)?.and_then(|at| files.get_mut(at)) {
                Some(of) => of.push(entry),
                None => return Ok(()),
            }
            Ok(())
        })?;
        let mut dropped = Vec::with_capacity(files.len());
        for (at, (wanted, entries)) in self.wanted.iter().zip(files).enumerate() {
            let mut of = Dropped::default();
            for entry in entries {
                let marker = suffix.map(|suffix| format!("{}{suffix}", entry.name));
                let marker =
                    marker.map(|name| markers.get(&name).map(|stat| (name.clone(), stat.len, stat.modified)).ok_or(name));
                self.judge(entry, marker, before.and_then(|before| before.get(at)), &mut of)?;
            }
            self.limit(wanted, &mut of)?;
            dropped.push(of);
        }
        Ok(dropped)
    }

    /// Adds a file to those that are whole, or to those that are not.
    fn judge(
        &self,
        entry: FileEntry,
        marker: Option<MarkerOrName>,
        before: Option<&Dropped>,
        of: &mut Dropped,
    ) -> Result<(), Failure> {
        self.go_on()?;
        let marker = match marker {
            Some(Err(missing)) => {
                of.waiting.push(format!("{} has no marker {missing}", entry.name));
                return Ok(());
            }
            Some(Ok(marker)) => Some(marker),
            None => None,
        };
        let path = self.config.folder.join(&entry.name);
        // Some systems tell the length of a file that is being written only to those who have opened it.
        let len = match self.files.open(&path).and_then(|file| file.len()) {
            Ok(len) => len,
            Err(error) => {
                of.waiting.push(format!("{} cannot be opened ({error})", entry.name));
                return Ok(());
            }
        };
        let found = Found { name: entry.name, path, len, modified: entry.stat.modified, marker };
        match before {
            Some(before) if !before.whole.contains(&found) => of.waiting.push(format!("{} is still being written", found.name)),
            // What comes after a file that is not whole must not go before it.
            _ if !of.waiting.is_empty() => {}
            _ => of.whole.push(found),
        }
        Ok(())
    }

    fn limit(&self, wanted: &Wanted, of: &mut Dropped) -> Result<(), Failure> {
        if of.whole.len() <= MAX_FILES_PER_TABLE {
            return Ok(());
        }
        if !wanted.merges {
            return Err(self.too_many(&format!("holds more than {MAX_FILES_PER_TABLE} files of table {}", wanted.table)));
        }
        of.whole.truncate(MAX_FILES_PER_TABLE);
        Ok(())
    }

    /// The table to which a name belongs.
    fn table_of(&self, name: &str) -> Result<Option<usize>, Failure> {
        let mut all = self.wanted.iter().enumerate().filter(|(_, wanted)| wanted.is(name));
        let first = all.next();
        if let (Some((_, one)), Some((_, other))) = (first, all.next()) {
            let said =
                format!("the file {name} belongs to table {} and to table {}: change their `files`", one.table, other.table);
            return Err(Failure::park(Code::ConfigInvalid, said));
        }
        Ok(first.map(|(at, _)| at))
    }

    /// The archived files of a table, from the first that went to the last; only the last one where that is enough.
    ///
    /// # Errors
    /// As [`Folder::look`]; an archive that is not there is empty.
    pub(super) fn archived(&self, archive: &Path, wanted: &Wanted, only_last: bool) -> Result<Vec<Found>, Failure> {
        let mut all = Vec::new();
        if is_missing(self.files, archive) {
            return Ok(all);
        }
        each_file(self.files, archive, &mut |entry| {
            self.go_on()?;
            let Some(name) = own_name(&entry.name).filter(|name| wanted.is(name) && !self.is_marker(name)) else { return Ok(()) };
            if only_last {
                all.clear();
            }
            if all.len() >= MAX_ARCHIVED {
                return Err(self.too_many(&format!("has more than {MAX_ARCHIVED} archived files of table {}", wanted.table)));
            }
            let (len, modified) = (entry.stat.len, entry.stat.modified);
            all.push(Found { name: name.to_owned(), path: archive.join(&entry.name), len, modified, marker: None });
            Ok(())
        })?;
        Ok(all)
    }

    fn is_marker(&self, name: &str) -> bool {
        matches!(&self.config.complete, Complete::Marker { marker_suffix } if name.ends_with(marker_suffix.as_str()))
    }

    fn go_on(&self) -> Result<(), Failure> {
        if self.cancel.is_cancelled() { Err(super::cancelled()) } else { Ok(()) }
    }

    fn too_many(&self, what: &str) -> Failure {
        Failure::park(Code::LimitExceeded, format!("the folder {} {what}", self.config.folder.display()))
    }
}

/// How long to wait between two looks.
pub(super) fn pause(complete: &Complete) -> Option<Duration> {
    match complete {
        Complete::Stable { stable_for } if !stable_for.is_zero() => Some(*stable_for),
        Complete::Stable { .. } | Complete::Marker { .. } => None,
    }
}

/// What a table waits for; `None` where it can go. Files that replace the table go together or not at all; of files that are merged
/// those go that come before the first that is not whole, and none is needed where there were some before.
pub(super) fn waits_for(wanted: &Wanted, of: &Dropped, has_archived: bool) -> Option<String> {
    let can_go = if wanted.merges { !of.whole.is_empty() || has_archived } else { !of.whole.is_empty() && of.waiting.is_empty() };
    if can_go {
        return None;
    }
    let table = &wanted.table;
    let waits = holds_up(of).unwrap_or_else(|| format!("there is no file {}", wanted.pattern));
    Some(format!("table {table}: {waits}"))
}

/// The files that are not whole, and why; `None` where all are.
pub(super) fn holds_up(of: &Dropped) -> Option<String> {
    if of.waiting.is_empty() {
        return None;
    }
    let shown: Vec<&str> = of.waiting.iter().take(SHOWN_FILES).map(String::as_str).collect();
    let more = of.waiting.len().saturating_sub(SHOWN_FILES);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    Some(format!("{}{more}", shown.join(", ")))
}

/// Every plain file of a folder, by name.
fn each_file(
    files: &dyn FileStore,
    folder: &Path,
    take: &mut dyn FnMut(FileEntry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after: Option<String> = None;
    loop {
        let page = files.list(folder, after.as_deref(), PAGE).map_err(|error| unlisted(folder, error))?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|entry| entry.name.clone());
        page.into_iter().filter(|entry| entry.stat.kind == FileKind::File).try_for_each(&mut *take)?;
        if is_last {
            return Ok(());
        }
    }
}

fn unlisted(folder: &Path, error: std::io::Error) -> Failure {
    let said = format!("the folder {} could not be looked through", folder.display());
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => Failure::park(Code::ErpRefused, said),
        _ => Failure::retry(Code::ErpMissing, said),
    }
    .caused_by(error)
}

fn is_missing(files: &dyn FileStore, folder: &Path) -> bool {
    files.stat(folder).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Names that programs give to files that they have not finished.
fn is_temporary(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name.starts_with('.') || TEMPORARY.iter().any(|end| lower.ends_with(end))
}
