//! What the agent is made of. A test or a simulation puts other parts in; the stages do not notice.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use towpath_journal::{FailPoints, Journal};
use towpath_transfer::{
    AgentName, Clock, Entropy, Failure, TenantName, TransferId, TransferKey, manifest::Label, name::FileName,
};
use towpath_transport::{files::FileStore, relay_api::RelayApi, store::Connect};

use crate::{
    config::SharedConfig,
    downlink::{action::Actions, delivering::Delivering},
    extract::{ExtractEvent, ExtractParts, ExtractRequest, Extracted},
    layout::Layout,
    own_key::OwnKey,
    trust::TrustStore,
};

/// How many transfers are kept with manifest and receipts after they have ended.
pub const KEPT_TRANSFERS: u64 = 1_000;

/// Everything the stages of an agent touch.
#[derive(Clone)]
pub struct Parts {
    /// Where things lie in `files`.
    pub layout: Layout,
    /// The disk.
    pub files: Arc<dyn FileStore>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The relay's web service.
    pub relay: Arc<dyn RelayApi>,
    /// The way to the relay's SFTP: each call makes a connection.
    pub stores: Arc<dyn Connect>,
    /// Reads the ERP.
    pub extractor: Arc<dyn Extractor>,
    /// Does what is to follow a delivery.
    pub actions: Arc<dyn Actions>,
    /// What is being put into delivery folders.
    pub delivering: Delivering,
    /// The pinned keys.
    pub trust: Arc<dyn TrustStore>,
    /// Signs manifests and receipts.
    pub identity: OwnKey,
    /// The tenant this agent belongs to.
    pub tenant: TenantName,
    /// This agent.
    pub agent: AgentName,
    /// The configuration.
    pub config: SharedConfig,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where a test stops the program.
    pub fail_points: Arc<dyn FailPoints>,
    /// Who watches the work.
    pub watcher: Arc<dyn Watcher>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parts({}/{} in {})", self.tenant, self.agent, self.layout.state().display())
    }
}

impl Parts {
    /// The full name of one of this agent's transfers.
    #[must_use]
    pub fn key(&self, id: TransferId) -> TransferKey {
        TransferKey { tenant: self.tenant.clone(), agent: self.agent.clone(), id }
    }
}

/// Reads a job's tables into the files of a transfer.
#[async_trait]
pub trait Extractor: Send + Sync {
    /// As [`crate::extract::extract`].
    ///
    /// # Errors
    /// As [`crate::extract::extract`].
    async fn extract(
        &self,
        request: ExtractRequest,
        events: mpsc::Sender<ExtractEvent>,
        cancel: CancellationToken,
    ) -> Result<Extracted, Failure>;
}

/// Reads from the job's own source, with as many threads as the configuration in force says.
#[derive(Debug)]
pub struct SourceExtractor {
    /// What an extract touches.
    pub parts: ExtractParts,
    /// The configuration.
    pub config: SharedConfig,
}

#[async_trait]
impl Extractor for SourceExtractor {
    async fn extract(
        &self,
        request: ExtractRequest,
        events: mpsc::Sender<ExtractEvent>,
        cancel: CancellationToken,
    ) -> Result<Extracted, Failure> {
        let parts = ExtractParts { workers: self.config.now().extract.workers, ..self.parts.clone() };
        crate::extract::extract(&parts, request, events, cancel).await
    }
}

/// Something a watcher may want to show.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// A table is being read.
    TableStarted {
        /// The table.
        table: Label,
    },
    /// So many rows of it are read.
    Rows {
        /// The table.
        table: Label,
        /// Rows so far.
        rows: u64,
    },
    /// A table is read.
    TableFinished {
        /// The table.
        table: Label,
        /// Its rows.
        rows: u64,
        /// Whether it equals what the app has, so that nothing of it is sent.
        unchanged: bool,
    },
    /// A file is being sent.
    Sent {
        /// The file.
        name: FileName,
        /// Bytes at the relay.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A file is being fetched.
    Received {
        /// The file.
        name: FileName,
        /// Bytes here.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
}

/// Watches what the stages do. Must return quickly; it cannot change anything.
pub trait Watcher: Send + Sync {
    /// Something happened to a transfer.
    fn progress(&self, transfer: TransferId, progress: &Progress);
}

/// Watches nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoWatcher;

impl Watcher for NoWatcher {
    fn progress(&self, _: TransferId, _: &Progress) {}
}
