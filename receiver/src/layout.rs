//! Where things lie in the receiver's state folder. Every path is built from parsed names, here and nowhere else.

use std::path::{Path, PathBuf};

use towpath_transfer::{AgentName, JobName, TransferId, TransferKey};

/// The state folder.
#[derive(Debug, Clone)]
pub struct Layout {
    state: PathBuf,
}

impl Layout {
    /// Everything lies below `state`.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self { state: state.into() }
    }

    /// The state folder itself.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The private key of this receiver.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.state.join("key")
    }

    /// What enrolment has told.
    #[must_use]
    pub fn enrolment(&self) -> PathBuf {
        self.state.join("enrolment.json")
    }

    /// The approved agents.
    #[must_use]
    pub fn allowed_signers(&self) -> PathBuf {
        self.state.join("allowed_signers")
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal.sqlite")
    }

    /// Held by the one `serve` of this state folder.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// The SSH host keys of the landing.
    #[must_use]
    pub fn host_keys(&self) -> PathBuf {
        self.state.join("host_keys")
    }

    /// Where imported tables go unless the configuration says otherwise.
    #[must_use]
    pub fn import(&self) -> PathBuf {
        self.state.join("import")
    }

    /// Where `serve` says which address it listens on.
    #[must_use]
    pub fn listening(&self) -> PathBuf {
        self.state.join("listening.json")
    }

    /// The root of the landing, as the relay sees it.
    #[must_use]
    pub fn landing(&self) -> PathBuf {
        self.state.join("landing")
    }

    /// The landing's folder of one agent.
    #[must_use]
    pub fn landing_agent(&self, agent: &AgentName) -> PathBuf {
        self.landing().join("uplink").join(agent.as_str())
    }

    /// Where a transfer lands.
    #[must_use]
    pub fn landed(&self, key: &TransferKey) -> PathBuf {
        self.landing_agent(&key.agent).join(key.id.to_string())
    }

    /// The folder of everything in quarantine.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.state.join("quarantine")
    }

    /// Where a rejected transfer is kept.
    #[must_use]
    pub fn quarantined(&self, agent: &AgentName, id: TransferId) -> PathBuf {
        self.quarantine().join(agent.as_str()).join(id.to_string())
    }

    /// The folder of every receipt.
    #[must_use]
    pub fn all_receipts(&self) -> PathBuf {
        self.state.join("receipts")
    }

    /// Notes of the newest import of each agent and job, which the app database must have.
    #[must_use]
    pub fn newest_imports(&self) -> PathBuf {
        self.state.join("newest")
    }

    /// The note of one of them.
    #[must_use]
    pub fn newest_import(&self, agent: &AgentName, job: &JobName) -> PathBuf {
        self.newest_imports().join(agent.as_str()).join(format!("{job}.json"))
    }

    /// What was taken to be sent back, until the agent's receipt is here.
    #[must_use]
    pub fn exports(&self) -> PathBuf {
        self.state.join("exports")
    }

    /// What was taken for one agent.
    #[must_use]
    pub fn exports_for(&self, agent: &AgentName) -> PathBuf {
        self.exports().join(agent.as_str())
    }

    /// What was taken for one transfer: `request.json`, and the plain files in `files`.
    #[must_use]
    pub fn export(&self, key: &TransferKey) -> PathBuf {
        self.exports_for(&key.agent).join(key.id.to_string())
    }

    /// The same while it is not whole.
    #[must_use]
    pub fn export_begun(&self, key: &TransferKey) -> PathBuf {
        self.exports_for(&key.agent).join(hidden(key.id))
    }

    /// The landing's folder of everything the relay may fetch.
    #[must_use]
    pub fn landing_downlink(&self) -> PathBuf {
        self.landing().join("downlink")
    }

    /// The landing's folder of what the relay may fetch for one agent.
    #[must_use]
    pub fn downlink_agent(&self, agent: &AgentName) -> PathBuf {
        self.landing_downlink().join(agent.as_str())
    }

    /// What the relay fetches of a transfer.
    #[must_use]
    pub fn laid_out(&self, key: &TransferKey) -> PathBuf {
        self.downlink_agent(&key.agent).join(key.id.to_string())
    }

    /// The same while it is not whole; the landing does not show it.
    #[must_use]
    pub fn laying_out(&self, key: &TransferKey) -> PathBuf {
        self.downlink_agent(&key.agent).join(hidden(key.id))
    }

    /// The receipts of a transfer, those of others too, and its manifest once it has ended.
    #[must_use]
    pub fn receipts(&self, key: &TransferKey) -> PathBuf {
        self.all_receipts().join(key.agent.as_str()).join(key.id.to_string())
    }
}

/// The name of a folder that is not whole yet.
fn hidden(id: TransferId) -> String {
    format!(".{id}")
}
