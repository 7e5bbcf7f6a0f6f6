//! Where the key of pseudonyms comes from.

use std::{fmt::Debug, path::PathBuf, sync::Arc};

use towpath_keys::PseudonymKey;
use towpath_transfer::{Entropy, Failure, manifest::Manifest};

use super::folder::blocking;
use crate::config::JobConfig;

/// Gives the key of this host's pseudonyms; asked only where a table has any.
pub trait Pseudonyms: Debug + Send + Sync {
    /// The key. It may block.
    ///
    /// # Errors
    /// As [`PseudonymKey::load_or_create`].
    fn key(&self) -> Result<PseudonymKey, Failure>;
}

/// A key of the caller's own.
impl Pseudonyms for PseudonymKey {
    fn key(&self) -> Result<PseudonymKey, Failure> {
        Ok(self.clone())
    }
}

/// The key in a file that is made on first use.
#[derive(Debug, Clone)]
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// Makes the key.
    pub entropy: Arc<dyn Entropy>,
}

impl Pseudonyms for KeyFile {
    fn key(&self) -> Result<PseudonymKey, Failure> {
        PseudonymKey::load_or_create(&self.path, &*self.entropy)
    }
}

/// The key, where the job needs it.
pub(super) async fn of_job(pseudonyms: &Arc<dyn Pseudonyms>, job: &JobConfig) -> Result<Option<PseudonymKey>, Failure> {
    if job.tables.iter().all(|table| table.pseudonymise.is_empty()) {
        return Ok(None);
    }
    let pseudonyms = Arc::clone(pseudonyms);
    blocking(move || pseudonyms.key()).await.map(Some)
}

/// Says so where the app's pseudonyms are by another key: what it has kept elsewhere cannot be joined any more.
pub(super) fn warn_of_another_key(key: Option<&PseudonymKey>, previous: Option<&Manifest>) {
    let (Some(key), Some(previous)) = (key, previous) else { return };
    let before = previous.files.iter().filter_map(|file| file.table()?.pseudonym_key);
    if before.into_iter().any(|before| before != key.fingerprint()) {
        tracing::warn!(
            "the key of pseudonyms is not that of the last import: tables that have pseudonyms are sent in full, with other ones"
        );
    }
}
