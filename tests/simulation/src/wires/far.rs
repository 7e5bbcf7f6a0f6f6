//! The ways to far files: of an agent to the relay, and of the relay to the app servers.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use towpath_relay::{
    scope::TenantScope,
    uplink::forward::{AppServer, AppServers},
};
use towpath_transfer::{Clock as _, Code, Failure, RemotePath, failure::Result};
use towpath_transport::store::{
    Connect, FaultStore, Progress, Put, RemoteEntry, RemoteRead, RemoteStat, RemoteStore, Source, StoreError, StoreErrorKind,
    StoreFault, StoreOp, StoreResult,
};

use super::Wire;
use crate::faults::{Site, Trouble, slowness};

/// A connection is cut at most so far into a file, in bytes; the files of a simulation are small.
const CUT_WITHIN: u64 = 4_096;

/// An agent's way.
#[derive(Debug)]
pub(super) struct Link {
    wire: Wire,
    inner: Arc<dyn Connect>,
}

impl Link {
    pub(super) fn new(wire: Wire, inner: Arc<dyn Connect>) -> Self {
        Self { wire, inner }
    }
}

#[async_trait]
impl Connect for Link {
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        self.wire.reach("the relay").await.map_err(|kind| StoreError::new(kind, "the relay, by plan"))?;
        Ok(self.wire.far(self.inner.connect().await?))
    }
}

/// The relay's ways.
#[derive(Debug)]
pub(super) struct Links {
    wire: Wire,
    inner: Arc<dyn AppServers>,
}

impl Links {
    pub(super) fn new(wire: Wire, inner: Arc<dyn AppServers>) -> Self {
        Self { wire, inner }
    }
}

#[async_trait]
impl AppServers for Links {
    async fn connect(&self, scope: &TenantScope) -> Result<AppServer> {
        let unreachable = |_| Failure::retry(Code::AppServerUnreachable, "the app server, by plan");
        self.wire.reach(&format!("the app server of {scope}")).await.map_err(unreachable)?;
        let server = self.inner.connect(scope).await?;
        Ok(AppServer { store: self.wire.far(server.store.clone()), ..server })
    }
}

impl Wire {
    /// Gets as far as a far machine, or not.
    async fn reach(&self, what: &str) -> std::result::Result<(), StoreErrorKind> {
        let struck = self.strike(Site::Connect, format!("reaching {what}"));
        match struck {
            Some((Trouble::Slow, mut dice)) => self.wires.clock.sleep(slowness(&mut dice)).await,
            // As if the key were not known there.
            Some((Trouble::Stuck, _)) => return Err(StoreErrorKind::AuthenticationRefused),
            Some(_) => return Err(StoreErrorKind::Unreachable),
            None => {}
        }
        if self.is_dead() { Err(StoreErrorKind::Unreachable) } else { Ok(()) }
    }

    /// Far files with what goes wrong on the way.
    fn far(&self, store: Arc<dyn RemoteStore>) -> Arc<dyn RemoteStore> {
        let wire = self.clone();
        let plan = move |operation: StoreOp, path: &RemotePath| {
            if wire.is_dead() {
                return Some(StoreFault::Before(StoreErrorKind::ConnectionLost));
            }
            let (trouble, mut dice) = wire.strike(Site::Far, format_args!("{operation:?} {path}"))?;
            match trouble {
                Trouble::Unanswered => Some(StoreFault::After(StoreErrorKind::ConnectionLost)),
                Trouble::Cut => Some(StoreFault::CutAt(dice.below(CUT_WITHIN))),
                _ => Some(StoreFault::Before(StoreErrorKind::ConnectionLost)),
            }
        };
        let inner = FaultStore::new(store, Box::new(plan));
        Arc::new(Slow { wire: self.clone(), inner, operations: AtomicU64::new(0) })
    }
}

/// Far files that take a while.
struct Slow {
    wire: Wire,
    inner: FaultStore,
    operations: AtomicU64,
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slow({:?})", self.inner)
    }
}

impl Slow {
    async fn after_a_while(&self, path: &RemotePath) -> &FaultStore {
        let nth = self.operations.fetch_add(1, Ordering::SeqCst);
        self.wire.wires.jitter(&format!("{} far {path}", self.wire.host), nth).await;
        &self.inner
    }
}

#[async_trait]
impl RemoteStore for Slow {
    async fn put_new(&self, part: &RemotePath, source: Arc<dyn Source>, progress: &dyn Progress) -> StoreResult<Put> {
        self.after_a_while(part).await.put_new(part, source, progress).await
    }

    async fn publish(&self, part: &RemotePath, name: &RemotePath) -> StoreResult<()> {
        self.after_a_while(name).await.publish(part, name).await
    }

    async fn stat(&self, path: &RemotePath) -> StoreResult<RemoteStat> {
        self.after_a_while(path).await.stat(path).await
    }

    async fn open(&self, path: &RemotePath, offset: u64) -> StoreResult<Box<dyn RemoteRead>> {
        self.after_a_while(path).await.open(path, offset).await
    }

    async fn list(&self, dir: &RemotePath, limit: usize) -> StoreResult<Vec<RemoteEntry>> {
        self.after_a_while(dir).await.list(dir, limit).await
    }

    async fn make_dir_all(&self, dir: &RemotePath) -> StoreResult<()> {
        self.after_a_while(dir).await.make_dir_all(dir).await
    }

    async fn remove(&self, path: &RemotePath) -> StoreResult<()> {
        self.after_a_while(path).await.remove(path).await
    }

    async fn remove_dir(&self, dir: &RemotePath) -> StoreResult<()> {
        self.after_a_while(dir).await.remove_dir(dir).await
    }
}
