//! Where things lie in the agent's state folder. Every path is built here and nowhere else.

use std::path::{Path, PathBuf};

use towpath_transfer::{
    Direction, TransferId,
    manifest::{MANIFEST_NAME, SIGNATURE_NAME},
    name::FileName,
    packed::{MD5SUMS_NAME, PACKED_NAME},
    receipt::ReceiptStage,
    release::ReleaseVersion,
};
use towpath_transport::files::TEMP_SUFFIX;

/// The state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    state: PathBuf,
    direction: Direction,
}

impl Layout {
    /// Everything lies below `state`; a transfer is an uplink.
    #[must_use]
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self { state: state.into(), direction: Direction::Uplink }
    }

    /// The same folder, where a transfer is one of this direction.
    #[must_use]
    pub fn of(&self, direction: Direction) -> Self {
        Self { state: self.state.clone(), direction }
    }

    /// The state folder itself.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The agent's private key; the public half lies beside it as `key.pub`.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.state.join("key")
    }

    /// The key that is to follow, while it is not in use yet.
    #[must_use]
    pub fn next_key(&self) -> PathBuf {
        self.state.join("key.next")
    }

    /// What was asked for when that key was made.
    #[must_use]
    pub fn next_key_note(&self) -> PathBuf {
        self.state.join("key.next.json")
    }

    /// That note while it is being written.
    #[must_use]
    pub fn next_key_note_begun(&self) -> PathBuf {
        self.state.join(format!(".key.next.json{TEMP_SUFFIX}"))
    }

    /// The key of pseudonyms; made when a table first needs it.
    #[must_use]
    pub fn pseudonym_key(&self) -> PathBuf {
        self.state.join("pseudonym_key")
    }

    /// What enrolment has told.
    #[must_use]
    pub fn enrolment(&self) -> PathBuf {
        self.state.join("enrolment.json")
    }

    /// The pinned keys: the agent's own, the relay's receipt key, the receiver's.
    #[must_use]
    pub fn allowed_signers(&self) -> PathBuf {
        self.state.join("allowed_signers")
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.state.join("journal.sqlite")
    }

    /// What is known of the ways to the relay.
    #[must_use]
    pub fn ways(&self) -> PathBuf {
        self.state.join("ways.json")
    }

    /// What the schedule must not forget.
    #[must_use]
    pub fn schedule(&self) -> PathBuf {
        self.state.join("schedule.json")
    }

    /// There while the agent is paused.
    #[must_use]
    pub fn pause(&self) -> PathBuf {
        self.state.join("pause.json")
    }

    /// What was raised, and who was told of it.
    #[must_use]
    pub fn alerts(&self) -> PathBuf {
        self.state.join("alerts.json")
    }

    /// Held by the one process that does the work of this state folder.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// The socket on which the running agent hears commands, where there are such sockets.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.state.join("control.sock")
    }

    /// The folder of releases that were fetched.
    #[must_use]
    pub fn updates(&self) -> PathBuf {
        self.state.join("update")
    }

    /// One of them: its document, its signature, its package.
    #[must_use]
    pub fn update(&self, version: ReleaseVersion) -> PathBuf {
        self.updates().join(version.to_string())
    }

    /// There when all of it is here and verified.
    #[must_use]
    pub fn update_whole(&self, version: ReleaseVersion) -> PathBuf {
        self.update(version).join(".whole")
    }

    /// What asks root to apply one.
    #[must_use]
    pub fn update_request(&self) -> PathBuf {
        self.updates().join("request.json")
    }

    /// The folder of all transfers of the direction.
    #[must_use]
    pub fn transfers(&self) -> PathBuf {
        self.state.join(match self.direction {
            Direction::Uplink => "transfers",
            Direction::Downlink => "downlink",
        })
    }

    /// What travels in one transfer, under the names it travels by.
    #[must_use]
    pub fn transfer(&self, id: TransferId) -> PathBuf {
        self.transfers().join(id.to_string())
    }

    /// One file that travels.
    #[must_use]
    pub fn sent(&self, id: TransferId, name: &FileName) -> PathBuf {
        self.transfer(id).join(name.as_str())
    }

    /// A transfer's manifest.
    #[must_use]
    pub fn manifest(&self, id: TransferId) -> PathBuf {
        self.transfer(id).join(MANIFEST_NAME)
    }

    /// The signature of a transfer's manifest.
    #[must_use]
    pub fn signature(&self, id: TransferId) -> PathBuf {
        self.transfer(id).join(SIGNATURE_NAME)
    }

    /// A transfer's packed list.
    #[must_use]
    pub fn packed(&self, id: TransferId) -> PathBuf {
        self.transfer(id).join(PACKED_NAME)
    }

    /// A transfer's MD5 list.
    #[must_use]
    pub fn md5sums(&self, id: TransferId) -> PathBuf {
        self.transfer(id).join(MD5SUMS_NAME)
    }

    /// Where the rows of a transfer's incremental tables come from; missing where there are none.
    #[must_use]
    pub fn origins(&self, id: TransferId) -> PathBuf {
        self.transfer(id).join("origins.json")
    }

    /// What an administrator should know of the source of a transfer; missing where there is nothing.
    #[must_use]
    pub fn warnings(&self, id: TransferId) -> PathBuf {
        self.transfer(id).join("warnings.json")
    }

    /// The receipts of one transfer.
    #[must_use]
    pub fn receipts(&self, id: TransferId) -> PathBuf {
        self.transfer(id).join("receipts")
    }

    /// One receipt; its signature has `.sig` appended to this name.
    #[must_use]
    pub fn receipt(&self, id: TransferId, stage: ReceiptStage) -> PathBuf {
        self.receipts(id).join(format!("{}.json", stage.as_str()))
    }

    /// The signature of one receipt.
    #[must_use]
    pub fn receipt_signature(&self, id: TransferId, stage: ReceiptStage) -> PathBuf {
        self.receipts(id).join(format!("{}.json.sig", stage.as_str()))
    }

    /// The unpacked return files of one transfer.
    #[must_use]
    pub fn plain(&self, id: TransferId) -> PathBuf {
        self.transfer(id).join("plain")
    }

    /// What the program has printed that followed a delivery.
    #[must_use]
    pub fn action_log(&self, id: TransferId) -> PathBuf {
        self.transfer(id).join("action.log")
    }

    /// The names of delivered files that got another one than was chosen at first.
    #[must_use]
    pub fn placed_names(&self, id: TransferId) -> PathBuf {
        self.transfer(id).join("names.json")
    }

    /// The delivered files that a program is done with.
    #[must_use]
    pub fn acted(&self, id: TransferId) -> PathBuf {
        self.work_of(id).join("acted.json")
    }

    /// The folder of what the agent notes while it works on transfers, and what never travels.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.state.join("work")
    }

    /// Where a dry run writes; gone when it is over.
    #[must_use]
    pub fn dry_run(&self) -> PathBuf {
        self.work().join("dry-run")
    }

    /// What the agent notes while it works on one transfer.
    #[must_use]
    pub fn work_of(&self, id: TransferId) -> PathBuf {
        self.work().join(id.to_string())
    }

    /// Says that a transfer is to be sent in full.
    #[must_use]
    pub fn full_marker(&self, id: TransferId) -> PathBuf {
        self.work_of(id).join("full")
    }

    /// The files that an extract has taken from the ERP's folder.
    #[must_use]
    pub fn taken(&self, id: TransferId) -> PathBuf {
        self.work_of(id).join("taken.json")
    }

    /// The packed files' digests, as extract computed them.
    #[must_use]
    pub fn extracted(&self, id: TransferId) -> PathBuf {
        self.work_of(id).join("extracted.json")
    }
}
