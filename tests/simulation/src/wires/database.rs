//! The databases: an extract of the ERP's tables, and an import into those of the app. Both go on in threads of the driver, and
//! nothing else happens meanwhile.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_agent::{
    extract::{ExtractEvent, ExtractRequest, Extracted},
    parts::Extractor,
};
use towpath_receiver::import::{Import, ImportRecord, ImportScope, ImportTarget, Ledger, OldRows, RowBatch, TableState};
use towpath_testkit::seams::Host;
use towpath_transfer::{
    Code, Failure, TransferId,
    beside::beside,
    digest::Sha256Digest,
    failure::Result,
    manifest::{Label, Table},
};

use super::Wire;
use crate::faults::{Site, Trouble};

/// The ERP as an agent reads it.
pub(super) struct Erp {
    wire: Wire,
    inner: Arc<dyn Extractor>,
}

impl Erp {
    pub(super) fn new(wire: Wire, inner: Arc<dyn Extractor>) -> Self {
        Self { wire, inner }
    }
}

#[async_trait]
impl Extractor for Erp {
    async fn extract(
        &self,
        request: ExtractRequest,
        events: mpsc::Sender<ExtractEvent>,
        cancel: CancellationToken,
    ) -> Result<Extracted> {
        let id = request.folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<TransferId>().ok());
        let name = id.map_or_else(String::new, |id| self.wire.wires.story.name(id));
        match self.wire.strike(Site::Erp, format_args!("extract of {name}")) {
            Some((Trouble::Stuck, _)) => return Err(Failure::park(Code::ErpRefused, "the ERP database, by plan")),
            Some(_) => return Err(Failure::retry(Code::ErpMissing, "the ERP database, by plan")),
            None => {}
        }
        let extracted = beside(self.inner.extract(request, events, cancel)).await?;
        if let Some(id) = id {
            self.wire.wires.was_read(&self.wire.host, id);
        }
        Ok(extracted)
    }
}

/// Which app databases somebody writes to: in one thread a second writer would wait for ever.
#[derive(Debug, Clone, Default)]
pub(super) struct Locks(Arc<Mutex<BTreeSet<String>>>);

#[derive(Debug)]
struct Lock {
    locks: Locks,
    name: String,
}

impl Locks {
    fn take(&self, host: &Host, scope: &ImportScope) -> Option<Lock> {
        let name = format!("{host} {} {}", scope.agent, scope.job);
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        taken.then(|| Lock { locks: self.clone(), name })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.locks.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

fn by_plan(what: &str) -> Failure {
    Failure::retry(Code::ImportFailed, format!("{what}, by plan"))
}

/// The app's databases as a receiver writes to them.
pub(super) struct App {
    wire: Wire,
    inner: Arc<dyn ImportTarget>,
    locks: Locks,
}

impl App {
    pub(super) fn new(wire: Wire, inner: Arc<dyn ImportTarget>, locks: Locks) -> Self {
        Self { wire, inner, locks }
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "App({:?})", self.inner)
    }
}

#[async_trait]
impl ImportTarget for App {
    async fn begin(&self, scope: &ImportScope, transfer: TransferId) -> Result<(Box<dyn Import>, Ledger)> {
        let lock = self.locks.take(&self.wire.host, scope).ok_or_else(|| by_plan("the database is locked"))?;
        self.wire.check(Site::App, "begin an import")?;
        let (import, ledger) = beside(self.inner.begin(scope, transfer)).await?;
        Ok((Box::new(Open { wire: self.wire.clone(), inner: import, _lock: lock }), ledger))
    }

    async fn adopt(&self, scope: &ImportScope) -> Result<bool> {
        beside(self.inner.adopt(scope)).await
    }
}

impl Wire {
    fn check(&self, site: Site, what: &str) -> Result<()> {
        match self.strike(site, what) {
            None if !self.is_dead() => Ok(()),
            _ => Err(by_plan(what)),
        }
    }
}

#[derive(Debug)]
struct Open {
    wire: Wire,
    inner: Box<dyn Import>,
    _lock: Lock,
}

#[async_trait]
impl Import for Open {
    async fn start_table(&mut self, table: &Table, old: Option<&TableState>, rows: OldRows) -> Result<()> {
        self.wire.check(Site::App, "start a table")?;
        beside(self.inner.start_table(table, old, rows)).await
    }

    async fn start_keys(&mut self, keys: &Table) -> Result<()> {
        self.wire.check(Site::App, "start keys")?;
        beside(self.inner.start_keys(keys)).await
    }

    async fn insert(&mut self, batch: RowBatch) -> Result<()> {
        self.wire.check(Site::App, "insert rows")?;
        beside(self.inner.insert(batch)).await
    }

    async fn count_table(&mut self, table: &Label) -> Result<Option<u64>> {
        self.wire.check(Site::App, "count a table")?;
        beside(self.inner.count_table(table)).await
    }

    async fn finish_table(&mut self, transfer: TransferId, sha256: Sha256Digest) -> Result<u64> {
        self.wire.check(Site::App, "finish a table")?;
        beside(self.inner.finish_table(transfer, sha256)).await
    }

    async fn finish_keys(&mut self) -> Result<u64> {
        self.wire.check(Site::App, "finish keys")?;
        beside(self.inner.finish_keys()).await
    }

    async fn commit(self: Box<Self>, record: &ImportRecord) -> Result<()> {
        let struck = self.wire.strike(Site::Commit, format_args!("commit of {}", self.wire.wires.story.name(record.transfer)));
        let struck = struck.map(|(trouble, _)| trouble);
        if self.wire.is_dead() || struck == Some(Trouble::Refused) {
            return Err(by_plan("commit"));
        }
        beside(self.inner.commit(record)).await?;
        if struck == Some(Trouble::Unanswered) { Err(by_plan("commit, after the effect")) } else { Ok(()) }
    }
}
