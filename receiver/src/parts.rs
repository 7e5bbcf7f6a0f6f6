//! What the receiver is made of. A test or a simulation puts other parts in; the stages do not notice.

use std::{path::PathBuf, sync::Arc, time::Duration};

use towpath_journal::{FailPoints, Journal};
use towpath_keys::{AllowedSigners, Identity, Namespace, PublicKey};
use towpath_transfer::{AgentName, Clock, Entropy, Failure, TenantName, codec::DEFAULT_UNPACK_LIMIT};
use towpath_transport::{files::FileStore, relay_api::RelayApi};

use crate::{agents::TrustPolicy, downlink::watch::ExportFolder, import::ImportTarget, layout::Layout};

/// What an agent's key is approved for: its manifests of what comes, and its receipts for what is sent back.
pub const AGENT_NAMESPACES: [Namespace; 2] = [Namespace::Manifest, Namespace::Receipt];

/// Who may sign what, read anew for each transfer so that an approval counts at once.
pub trait Trust: std::fmt::Debug + Send + Sync {
    /// The keys approved now.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn signers(&self) -> Result<AllowedSigners, Failure>;

    /// Approves `key` for `agent` where no key of that agent was ever approved; `false` where one was.
    ///
    /// # Errors
    /// Where the keys cannot be read or written.
    fn pin_first(&self, agent: &AgentName, key: &PublicKey) -> Result<bool, Failure>;

    /// Approves `key` for `agent`, which follows `approved`; `false` where that is not approved any more, and for a key that was taken
    /// back.
    ///
    /// # Errors
    /// As [`Trust::pin_first`].
    fn follow(&self, agent: &AgentName, key: &PublicKey, approved: &PublicKey) -> Result<bool, Failure>;
}

/// Trust kept in an `allowed_signers` file.
#[derive(Debug, Clone)]
pub struct FileTrust(pub PathBuf);

impl Trust for FileTrust {
    fn signers(&self) -> Result<AllowedSigners, Failure> {
        AllowedSigners::load(&self.0)
    }

    fn pin_first(&self, agent: &AgentName, key: &PublicKey) -> Result<bool, Failure> {
        let mut signers = self.signers()?;
        if signers.knows(agent.as_str()) {
            return Ok(false);
        }
        signers.add(agent.as_str(), &AGENT_NAMESPACES, key)
    }

    fn follow(&self, agent: &AgentName, key: &PublicKey, approved: &PublicKey) -> Result<bool, Failure> {
        self.signers()?.add_beside(agent.as_str(), &AGENT_NAMESPACES, key, approved)
    }
}

/// The limits of the receiver, with their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes one file may unpack to, whatever its manifest says. Default 20 GiB.
    pub unpacked_file_bytes: u64,
    /// The most transfers of one agent kept in quarantine; the oldest go first. Default 100.
    pub quarantined_transfers: usize,
    /// The most bytes of one agent kept in quarantine; the oldest transfers go first, and of the newest everything but its documents where
    /// it alone has more. Default 20 GiB.
    pub quarantined_bytes: u64,
    /// The most transfers that wait on the landing for one agent; the scan leaves the others for later. Default 1,000.
    pub landed_transfers: usize,
    /// The most bytes one return file may have. Default 20 GiB, which is what an agent unpacks unless it is told otherwise.
    pub export_file_bytes: u64,
    /// The most transfers on their way to one agent; beyond them nothing more is taken for it. Default 1,000.
    pub open_exports: usize,
    /// The longest pause between two questions to the relay about a transfer whose receipt is awaited. Default 5 s.
    pub receipt_poll: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unpacked_file_bytes: DEFAULT_UNPACK_LIMIT,
            quarantined_transfers: 100,
            quarantined_bytes: 20 << 30,
            landed_transfers: 1_000,
            export_file_bytes: DEFAULT_UNPACK_LIMIT,
            open_exports: 1_000,
            receipt_poll: Duration::from_secs(5),
        }
    }
}

/// Everything the stages of a receiver touch.
pub struct Parts {
    /// Where things lie in `files`.
    pub layout: Layout,
    /// The disk.
    pub files: Arc<dyn FileStore>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The relay's web service.
    pub relay: Arc<dyn RelayApi>,
    /// Where tables go.
    pub target: Arc<dyn ImportTarget>,
    /// Who is approved.
    pub trust: Arc<dyn Trust>,
    /// How an agent comes to be approved.
    pub policy: TrustPolicy,
    /// Signs receipts and the manifests of return files.
    pub identity: Identity,
    /// The name it signs under.
    pub name: AgentName,
    /// The one tenant this receiver serves.
    pub tenant: TenantName,
    /// Which tables may be imported.
    pub tables: TableFilter,
    /// The folders that are watched for return files.
    pub exports: Vec<ExportFolder>,
    /// The limits.
    pub limits: Limits,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where a test stops the program; `NoFailPoints` in service.
    pub fail_points: Arc<dyn FailPoints>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("tenant", &self.tenant).field("layout", &self.layout).finish_non_exhaustive()
    }
}

/// Which tables a receiver imports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TableFilter {
    /// Every table, into the agent's own schema.
    #[default]
    All,
    /// Only tables of these names.
    Named(Vec<String>),
}

impl TableFilter {
    /// Whether a table of this name may be imported.
    #[must_use]
    pub fn allows(&self, table: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name == table),
        }
    }
}
