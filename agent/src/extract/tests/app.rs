//! An app that imports as the protocol says, in memory, and an ERP that sends to it again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use towpath_transfer::{
    TransferId,
    manifest::{Content, Label, Mode},
};

use super::*;

type Row = Vec<Option<String>>;

/// What the app has of one table.
#[derive(Debug, Clone)]
struct AppTable {
    transfer: TransferId,
    columns: Vec<Label>,
    key: Vec<Label>,
    rows: BTreeMap<Row, Row>,
}

/// The receiver's half of the contract: what is replaced, merged and deleted, and what is missing.
#[derive(Debug, Clone, Default)]
pub(super) struct App {
    tables: BTreeMap<Label, AppTable>,
}

impl App {
    /// Imports a transfer whose files lie plain in `folder`; nothing of it where the app lacks what it builds on.
    pub(super) fn import(&mut self, manifest: &Manifest, folder: &Path) -> Result<(), String> {
        let before = self.clone();
        let done = manifest.files.iter().try_for_each(|entry| self.file(manifest.transfer, entry, folder));
        if done.is_err() {
            *self = before;
        }
        done
    }

    fn file(&mut self, transfer: TransferId, entry: &FileEntry, folder: &Path) -> Result<(), String> {
        let table = entry.csv().unwrap();
        let columns: Vec<Label> = table.columns.iter().map(|column| column.name.clone()).collect();
        let has_base = |app: &AppTable| {
            let of_base = entry.base.is_none_or(|base| app.transfer == base);
            of_base && app.columns == columns && app.key == table.key
        };
        if entry.unchanged {
            self.tables.get(&table.table).filter(|app| has_base(app)).ok_or("base-missing")?;
            return Ok(());
        }
        let plain = std::fs::read(folder.join(entry.name.as_str())).unwrap();
        let rows = read_plain(&plain, entry);
        if let Content::Keys(_) = entry.content {
            let app = self.tables.get_mut(&table.table).ok_or("base-missing")?;
            let keys: BTreeSet<Row> = rows.into_iter().collect();
            app.rows.retain(|key, _| keys.contains(key));
            return if app.rows.len() == keys.len() { Ok(()) } else { Err("base-missing: keys".into()) };
        }
        let mut app = AppTable { transfer, columns: columns.clone(), key: table.key.clone(), rows: BTreeMap::new() };
        if table.mode == Mode::Merge && entry.base.is_some() {
            app.rows = self.tables.get(&table.table).filter(|app| has_base(app)).ok_or("base-missing")?.rows.clone();
        }
        for row in rows {
            let key: Row = if table.key.is_empty() {
                vec![Some(app.rows.len().to_string())]
            } else {
                table.key.iter().map(|name| row[columns.iter().position(|column| column == name).unwrap()].clone()).collect()
            };
            assert!(table.key.is_empty() || key.iter().all(Option::is_some), "a key is never NULL");
            let twice = app.rows.insert(key, row).is_some();
            assert!(!(twice && table.mode == Mode::Replace), "two rows of one key");
        }
        self.tables.insert(table.table.clone(), app);
        Ok(())
    }

    /// The rows of a table, in the order of its keys.
    pub(super) fn rows(&self, table: &str) -> Rows {
        let label: Label = table.parse().unwrap();
        self.tables.get(&label).map(|app| app.rows.values().cloned().collect()).unwrap_or_default()
    }
}

/// An ERP that sends to an app.
pub(super) struct Chain {
    pub(super) place: Place,
    pub(super) tables: Vec<TableConfig>,
    pub(super) app: App,
    pub(super) clock: ManualClock,
    pub(super) pseudonyms: towpath_keys::PseudonymKey,
    /// The last manifest that was imported.
    pub(super) previous: Option<Manifest>,
    transfers: u32,
}

impl Chain {
    pub(super) async fn new(sql: &str, tables: Vec<TableConfig>) -> Self {
        Self {
            place: Place::new(sql).await,
            tables,
            app: App::default(),
            clock: ManualClock::new("2026-03-01T12:00:00Z".parse().unwrap()),
            pseudonyms: towpath_keys::PseudonymKey::from_bytes(&[7; 32]),
            previous: None,
            transfers: 0,
        }
    }

    /// Reads a transfer; nobody imports it yet.
    pub(super) async fn read(&mut self, full: bool) -> Result<Manifest, Failure> {
        let request = ExtractRequest {
            previous: self.previous.clone(),
            full,
            form: Form::Plain,
            ..self.place.request(self.tables.clone())
        };
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let parts = ExtractParts { clock, pseudonyms: Arc::new(self.pseudonyms.clone()), ..parts() };
        let (events, _) = mpsc::channel(1);
        let extracted = extract(&parts, request, events, CancellationToken::new()).await?;
        self.transfers += 1;
        let transfer = format!("01922c1e-8a4f-7d3a-9b5e-{:012x}", self.transfers).parse().unwrap();
        let manifest = Manifest { transfer, ..manifest(&extracted) };
        // Whatever an extract says of itself must be a manifest.
        assert_eq!(Manifest::parse(&manifest.to_bytes().unwrap()).unwrap(), manifest);
        Ok(manifest)
    }

    /// Reads a transfer that is imported.
    pub(super) async fn send(&mut self) -> Manifest {
        let manifest = self.read(false).await.unwrap();
        self.import(&manifest);
        manifest
    }

    pub(super) fn import(&mut self, manifest: &Manifest) {
        self.app.import(manifest, &self.place.folder).unwrap();
        self.previous = Some(manifest.clone());
    }

    pub(super) fn later(&self, by: Duration) {
        self.clock.advance(by);
    }
}

/// A table of which only changed rows are sent.
pub(super) fn incremental(name: &str, key: &[&str], watermark: &[&str], overlap: crate::config::Overlap) -> TableConfig {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
    TableConfig {
        key: names(key),
        incremental: Some(crate::config::IncrementalConfig {
            watermark: names(watermark),
            overlap,
            compare_keys: Duration::from_secs(7 * 24 * 3_600),
        }),
        ..whole(name)
    }
}
