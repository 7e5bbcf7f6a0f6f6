//! What is to follow a delivery: a program, or a load into a table of the ERP.

pub mod load;
pub mod run;

use std::{fmt::Debug, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use towpath_transfer::{Clock, ReturnKind, TransferId, failure::Result, name::FileName};
use towpath_transport::files::FileStore;

use self::run::Succeeded;
use crate::config::ActionConfig;

/// One delivered file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionFile {
    /// Its name in the manifest.
    pub name: FileName,
    /// Where it was delivered; the ERP may have taken it away since.
    pub delivered: PathBuf,
    /// The agent's own copy.
    pub plain: PathBuf,
}

/// The transfer that an action follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionOf {
    /// The transfer.
    pub transfer: TransferId,
    /// What its files are.
    pub kind: ReturnKind,
    /// The delivery folder.
    pub folder: PathBuf,
    /// Its files, in the manifest's order.
    pub files: Vec<ActionFile>,
    /// Where a program's output is kept.
    pub log: PathBuf,
    /// Where it is noted for which files a program has succeeded.
    pub done: PathBuf,
}

/// Does what is to follow a delivery. A test or a simulation puts another one in.
#[async_trait]
pub trait Actions: Debug + Send + Sync {
    /// Does it. May be called again after it has succeeded, and then does nothing more; only where the agent was stopped before it had
    /// noted that, a program runs once more.
    ///
    /// # Errors
    /// `action-failed` (retry).
    async fn act(&self, action: &ActionConfig, of: &ActionOf) -> Result<()>;
}

/// Real programs and real databases.
#[derive(Debug, Clone)]
pub struct SystemActions {
    /// The disk.
    pub files: Arc<dyn FileStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What programs have succeeded with.
    pub succeeded: Arc<Succeeded>,
}

#[async_trait]
impl Actions for SystemActions {
    async fn act(&self, action: &ActionConfig, of: &ActionOf) -> Result<()> {
        match action {
            ActionConfig::Run(config) => run::run(&self.files, &*self.clock, &self.succeeded, config, of).await,
            ActionConfig::Load(config) => load::load(&self.files, &*self.clock, &*load::target(config), of).await,
        }
    }
}
