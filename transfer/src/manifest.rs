//! `manifest.json`, version 1: what the origin says it sends. Signed by the origin; SHA-256 in here decides.

mod table;

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::{FileDigests, Md5Digest, Sha256Digest},
    id::{AgentName, JobName, ReturnKind, Sequence, TenantName, TransferId},
    name::FileName,
    state::Direction,
};

/// The name of the manifest in a transfer's folder.
pub const MANIFEST_NAME: &str = "manifest.json";
/// The name of the manifest's SSHSIG in a transfer's folder.
pub const SIGNATURE_NAME: &str = "manifest.json.sig";
/// The largest accepted manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 16 * 1024 * 1024;
/// The most files one transfer may hold.
pub const MAX_FILES: usize = 10_000;
/// The most files one downlink may hold.
pub const MAX_RETURN_FILES: usize = 1_000;
/// The most columns one table may have.
pub const MAX_COLUMNS: usize = 4_096;

pub use self::table::{Column, ControlTotal, Dialect, Drift, Mode, Table, Watermark};
pub use crate::column::{InvalidLabel, InvalidType, Label, MAX_DECIMAL_DIGITS, MAX_LABEL_CHARS, SqlType};

/// Why a manifest was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InvalidManifest {
    /// Over [`MAX_MANIFEST_BYTES`].
    #[error("the manifest is larger than {MAX_MANIFEST_BYTES} bytes")]
    TooLarge,
    /// Not JSON of this form.
    #[error("the manifest is not of the form of version 1")]
    Json(#[from] serde_json::Error),
    /// A version that this program does not know.
    #[error("the manifest is of version {0}, and this program reads version 1")]
    Version(u32),
    /// Fields that contradict each other, or a limit exceeded.
    #[error("the manifest contradicts itself: {0}")]
    Inconsistent(String),
}

/// What one transfer carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always 1.
    pub version: u32,
    /// The transfer.
    pub transfer: TransferId,
    /// Which way it travels.
    pub direction: Direction,
    /// The tenant it belongs to.
    pub tenant: TenantName,
    /// The agent at its ERP end.
    pub agent: AgentName,
    /// The ERP company it was extracted from, or is meant for.
    pub job: JobName,
    /// What return files these are; present on a downlink and nowhere else.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub kind: Option<ReturnKind>,
    /// When the origin made it, by the origin's clock.
    pub created: Timestamp,
    /// Its position among the agent's transfers of this direction.
    pub sequence: Sequence,
    /// How the extract was read; absent where the files were not extracted from a database.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub snapshot: Option<Snapshot>,
    /// The files, in the order of the extract.
    pub files: Vec<FileEntry>,
}

/// The database snapshot that all tables of an extract come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// What the database calls it, or what identifies it best.
    pub id: String,
    /// The isolation that was reached, in the database's own word.
    pub isolation: String,
    /// Whether all tables come from one consistent state of the database.
    pub consistent: bool,
}

/// One file of a transfer. Digests and size are of the plain bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// The plain file's name; it travels as `<name>.bz2`.
    pub name: FileName,
    /// RFC 6838 media type.
    pub media_type: String,
    /// Length of the plain bytes.
    pub size: u64,
    /// MD5 of the plain bytes; never decides.
    pub md5: Md5Digest,
    /// SHA-256 of the plain bytes; decides.
    pub sha256: Sha256Digest,
    /// Whether no bytes were sent because they equal those of `base`.
    #[serde(skip_serializing_if = "is_false", default)]
    pub unchanged: bool,
    /// The transfer this file builds on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base: Option<TransferId>,
    /// What the file is.
    pub content: Content,
}

impl FileEntry {
    /// The plain bytes' digests and size as one value.
    #[must_use]
    pub fn digests(&self) -> FileDigests {
        FileDigests { sha256: self.sha256, md5: self.md5, size: self.size }
    }

    /// The table, where the file is one.
    #[must_use]
    pub fn table(&self) -> Option<&Table> {
        match &self.content {
            Content::Table(table) => Some(table),
            Content::Keys(_) | Content::File => None,
        }
    }

    /// What the wire CSV holds, where the file is such: a table, or the keys of one.
    #[must_use]
    pub fn csv(&self) -> Option<&Table> {
        match &self.content {
            Content::Table(table) | Content::Keys(table) => Some(table),
            Content::File => None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// What a file is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Content {
    /// A table as wire CSV.
    Table(Table),
    /// The keys of all rows that a table of this manifest has at the ERP, as wire CSV. The columns are the key. It stands after
    /// the table, which is merged: rows of the app whose key is not among these are deleted, and a key that the app has not
    /// means that it lacks what the table builds on.
    Keys(Table),
    /// Any other file.
    File,
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`InvalidManifest`]; nothing of a refused manifest is used.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidManifest> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(InvalidManifest::TooLarge);
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The bytes that are signed and sent.
    ///
    /// # Errors
    /// [`InvalidManifest`] where the manifest is not one that [`Manifest::parse`] would accept.
    pub fn to_bytes(&self) -> Result<Vec<u8>, InvalidManifest> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(InvalidManifest::TooLarge);
        }
        Ok(bytes)
    }

    /// The files whose bytes travel, in the manifest's order.
    pub fn sent_files(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().filter(|file| !file.unchanged)
    }

    fn check(&self) -> Result<(), InvalidManifest> {
        if self.version != 1 {
            return Err(InvalidManifest::Version(self.version));
        }
        if self.files.len() > MAX_FILES {
            return Err(InvalidManifest::Inconsistent(format!("more than {MAX_FILES} files")));
        }
        self.check_direction()?;
        let mut names = HashSet::new();
        let mut tables = HashSet::new();
        let mut keyed = HashSet::new();
        for (at, file) in self.files.iter().enumerate() {
            let told = |problem: &str| InvalidManifest::Inconsistent(format!("file {}: {problem}", file.name));
            if !names.insert(file.name.case_folded()) {
                return Err(told("another file has the same name"));
            }
            if crate::packed::is_reserved(&file.name) || crate::packed::packed_name(&file.name).is_err() {
                return Err(told("this name is reserved or too long"));
            }
            if file.unchanged && file.base.is_none() {
                return Err(told("unchanged, but without a base"));
            }
            match &file.content {
                Content::Table(table) => {
                    if !tables.insert(table.table.as_str().to_lowercase()) {
                        return Err(told("another file holds the same table"));
                    }
                    table.check().map_err(|problem| told(&problem))?;
                }
                Content::Keys(keys) => {
                    if !keyed.insert(keys.table.as_str().to_lowercase()) {
                        return Err(told("another file holds the keys of the same table"));
                    }
                    keys.check().map_err(|problem| told(&problem))?;
                    self.check_keys(at, file, keys).map_err(|problem| told(&problem))?;
                }
                Content::File => {}
            }
        }
        Ok(())
    }

    /// Keys belong to a table that stands before them and is merged.
    fn check_keys(&self, at: usize, file: &FileEntry, keys: &Table) -> Result<(), String> {
        let of = self.files.iter().take(at).find_map(|entry| entry.table().filter(|t| t.table == keys.table).map(|t| (entry, t)));
        let Some((entry, table)) = of else { return Err("the table of these keys does not stand before them".into()) };
        let columns = || keys.key.iter().filter_map(|name| table.columns.iter().find(|column| column.name == *name));
        if table.mode != Mode::Merge || entry.unchanged || file.unchanged || file.base.is_some() {
            return Err("keys belong to a table that is merged, and build on nothing".into());
        }
        if keys.key != table.key || !columns().eq(&keys.columns) || keys.mode != Mode::Replace || keys.watermark.is_some() {
            return Err("these are not the keys of its table".into());
        }
        Ok(())
    }
}

impl Manifest {
    fn check_direction(&self) -> Result<(), InvalidManifest> {
        let inconsistent = |problem: String| Err(InvalidManifest::Inconsistent(problem));
        let downlink = self.direction == Direction::Downlink;
        if self.kind.is_some() != downlink {
            return inconsistent("a kind belongs to return files and to nothing else".into());
        }
        if downlink && !(1..=MAX_RETURN_FILES).contains(&self.files.len()) {
            return inconsistent(format!("a downlink has 1 to {MAX_RETURN_FILES} files"));
        }
        if downlink && self.files.iter().any(|file| file.unchanged || file.base.is_some()) {
            return inconsistent("return files build on nothing".into());
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Manifest {
        let digests = crate::digest::FileHasher::new().finish();
        Manifest {
            version: 1,
            transfer: "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b".parse().unwrap(),
            direction: Direction::Uplink,
            tenant: "acme".parse().unwrap(),
            agent: "erp".parse().unwrap(),
            job: "main".parse().unwrap(),
            kind: None,
            created: Timestamp::UNIX_EPOCH,
            sequence: Sequence(1),
            snapshot: Some(Snapshot { id: "1".into(), isolation: "serializable".into(), consistent: true }),
            files: vec![FileEntry {
                name: "items.csv".parse().unwrap(),
                media_type: "text/csv".into(),
                size: digests.size,
                md5: digests.md5,
                sha256: digests.sha256,
                unchanged: false,
                base: None,
                content: Content::Table(Table::whole(
                    "items".parse().unwrap(),
                    vec![
                        Column { name: "Artikel Nr.".parse().unwrap(), sql_type: SqlType::Text, nullable: false },
                        Column {
                            name: "Preis".parse().unwrap(),
                            sql_type: SqlType::Decimal { precision: 12, scale: 2 },
                            nullable: true,
                        },
                    ],
                    3,
                    vec![ControlTotal { column: "Preis".parse().unwrap(), count: 2, sum: "12.5".parse().unwrap() }],
                )),
            }],
        }
    }

    fn refused(change: impl FnOnce(&mut Manifest)) -> String {
        let mut manifest = sample();
        change(&mut manifest);
        Manifest::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap_err().to_string()
    }

    fn table(manifest: &mut Manifest) -> &mut Table {
        match &mut manifest.files[0].content {
            Content::Table(table) => table,
            Content::Keys(_) | Content::File => unreachable!(),
        }
    }

    #[test]
    fn a_manifest_survives_its_bytes() {
        let bytes = sample().to_bytes().unwrap();
        assert_eq!(Manifest::parse(&bytes).unwrap(), sample());
        assert!(bytes.ends_with(b"}\n"));
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(refused(|m| m.version = 2).contains("version 2"));
        assert!(refused(|m| m.files.push(m.files[0].clone())).contains("same name"));
        assert!(refused(|m| m.files[0].name = "manifest.json".parse().unwrap()).contains("reserved"));
        assert!(refused(|m| m.files[0].unchanged = true).contains("without a base"));
        assert!(refused(|m| table(m).totals.clear()).contains("control total"));
        assert!(refused(|m| table(m).rows = 1).contains("more values"));
        assert!(refused(|m| table(m).columns.clear()).contains("columns"));
        let name = || vec!["Artikel Nr.".parse().unwrap()];
        assert!(refused(|m| table(m).pseudonymised = name()).contains("named together"));
        assert!(refused(|m| table(m).pseudonym_key = Some(Sha256Digest::of(b"x"))).contains("named together"));
        let twice = refused(|m| {
            let second = table(m).columns[0].clone();
            table(m).columns.push(second);
        });
        assert!(twice.contains("stands twice"));
        let mut two = sample();
        let mut again = two.files[0].clone();
        again.name = "other.csv".parse().unwrap();
        two.files.push(again);
        assert!(two.to_bytes().unwrap_err().to_string().contains("same table"));
    }

    #[test]
    fn a_downlink_has_a_kind_and_files_that_build_on_nothing() {
        let kind: ReturnKind = "recommended-orders".parse().unwrap();
        let mut back = sample();
        (back.direction, back.kind) = (Direction::Downlink, Some(kind.clone()));
        assert_eq!(Manifest::parse(&back.to_bytes().unwrap()).unwrap(), back);
        assert!(refused(|m| m.kind = Some(kind.clone())).contains("kind"));
        assert!(refused(|m| m.direction = Direction::Downlink).contains("kind"));
        let refused_back = |change: &dyn Fn(&mut Manifest)| {
            refused(|m| {
                (m.direction, m.kind) = (Direction::Downlink, Some(kind.clone()));
                change(m);
            })
        };
        assert!(refused_back(&|m| m.files[0].base = Some(m.transfer)).contains("build on nothing"));
        assert!(refused_back(&|m| m.files.clear()).contains("1 to 1000 files"));
        let many = refused_back(&|m| {
            let file = FileEntry { content: Content::File, ..m.files[0].clone() };
            let named = |n: usize| FileEntry { name: format!("f{n}").parse().unwrap(), ..file.clone() };
            m.files = (0..=MAX_RETURN_FILES).map(named).collect();
        });
        assert!(many.contains("1 to 1000 files"), "{many}");
    }

    #[test]
    fn unknown_fields_and_hostile_names_are_refused() {
        let text = String::from_utf8(sample().to_bytes().unwrap()).unwrap();
        assert!(Manifest::parse(text.replacen("\"version\"", "\"extra\": 1, \"version\"", 1).as_bytes()).is_err());
        assert!(Manifest::parse(text.replace("items.csv", "../items.csv").as_bytes()).is_err());
        assert!(Manifest::parse(text.replace("\"items\"", "\"it\\u0000ems\"").as_bytes()).is_err());
        assert!(Manifest::parse(&vec![b' '; MAX_MANIFEST_BYTES + 1]).is_err());
    }
}
