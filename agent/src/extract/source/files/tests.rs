//! Files in memory through the whole extract, against literals.

mod failures;
mod find;
mod merge;
mod suite;
mod torture;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use towpath_transfer::{
    Disposition,
    clock::ManualClock,
    manifest::{Column, FileEntry, Manifest},
};
use towpath_transport::files::{MemoryFiles, read_whole, write_whole};

use super::*;
use crate::{
    config::{Complete, Encoding, JobConfig, SourceConfig},
    extract::{ExtractParts, ExtractRequest, Extracted, Form, extract_from, tests as whole_extract},
};

const FOLDER: &str = "/erp/out";
const OUT: &str = "/state/transfer";
/// More than any test's file has.
const LIMIT: u64 = 1 << 30;

/// A drop folder and the folder of a transfer.
struct Bench {
    clock: ManualClock,
    files: MemoryFiles,
    config: FolderConfig,
    tables: Vec<TableConfig>,
}

fn table(name: &str) -> TableConfig {
    TableConfig::whole(name.parse().unwrap())
}

fn typed(name: &str, types: &[(&str, &str)]) -> TableConfig {
    whole_extract::typed(table(name), types)
}

impl Bench {
    fn new(tables: Vec<TableConfig>) -> Self {
        let clock = ManualClock::new("2026-03-01T12:00:00Z".parse().unwrap());
        let files = MemoryFiles::with_clock(Arc::new(clock.clone()));
        files.create_dir_all(Path::new(FOLDER)).unwrap();
        files.create_dir_all(Path::new(OUT)).unwrap();
        let complete = Complete::Stable { stable_for: Duration::ZERO };
        Self { clock, files, config: FolderConfig { folder: FOLDER.into(), complete, archive: None }, tables }
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(FOLDER).join(name)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        write_whole(&self.files, &self.path(name), bytes.as_ref()).unwrap();
    }

    fn names(&self, folder: &str) -> Vec<String> {
        self.files.list(Path::new(folder), None, 1_000).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    fn source_over(&self, files: Arc<dyn FileStore>) -> FilesSource {
        FilesSource::new(self.config.clone(), self.tables.clone(), files, Arc::new(self.clock.clone()))
    }

    fn source(&self) -> FilesSource {
        self.source_over(Arc::new(self.files.clone()))
    }

    async fn open(&self) -> Result<Box<dyn SourceSnapshot>, Failure> {
        self.source().open(&CancellationToken::new()).await
    }

    async fn extract(&self) -> Result<Extracted, Failure> {
        self.extract_after(None, Arc::new(self.files.clone())).await
    }

    async fn extract_after(&self, previous: Option<Manifest>, files: Arc<dyn FileStore>) -> Result<Extracted, Failure> {
        let job = JobConfig::new("main".parse().unwrap(), SourceConfig::Files(self.config.clone()), self.tables.clone());
        let parts =
            ExtractParts { files: Arc::new(self.files.clone()), clock: Arc::new(self.clock.clone()), ..whole_extract::parts() };
        let request = ExtractRequest {
            job,
            folder: OUT.into(),
            full: previous.is_none(),
            previous,
            anew: BTreeSet::new(),
            form: Form::Plain,
        };
        let (events, _) = mpsc::channel(1);
        extract_from(&self.source_over(files), &parts, request, events, CancellationToken::new()).await
    }

    fn rows(&self, entry: &FileEntry) -> whole_extract::Rows {
        let bytes = read_whole(&self.files, &Path::new(OUT).join(entry.name.as_str()), LIMIT).unwrap();
        whole_extract::read_plain(&bytes, entry)
    }

    /// The rows of the only table.
    async fn only(&self) -> whole_extract::Rows {
        let extracted = self.extract().await.unwrap();
        self.rows(&extracted.files[0])
    }

    async fn fails(&self) -> Failure {
        let failure = self.extract().await.unwrap_err();
        assert_eq!(self.names(OUT), Vec::<String>::new());
        failure
    }
}

fn row(values: &[Option<&str>]) -> Vec<Option<String>> {
    values.iter().map(|value| value.map(str::to_owned)).collect()
}

fn of(columns: &[SourceColumn]) -> Vec<Column> {
    let of = |column: &SourceColumn| Column {
        name: column.name.parse().unwrap(),
        sql_type: column.sql_type,
        nullable: column.nullable,
    };
    columns.iter().map(of).collect()
}
