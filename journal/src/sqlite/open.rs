//! Opening the file.

use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use towpath_transfer::{Clock, Code, Entropy, Failure, state::Place};

use super::{SqliteJournal, failed, rows::get, schema};
use crate::{
    error::{JournalError, Result},
    machine::machine_digest,
};

/// How long a transaction waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an operation waits for its turn within this process.
const TURN_TIMEOUT: Duration = Duration::from_secs(30);
/// How many look-ups and listings run at once.
const READERS: u32 = 4;

impl SqliteJournal {
    /// Opens the journal of `place` at `path` and makes the file, readable by its owner alone, where there is none. The
    /// folder must exist.
    ///
    /// # Errors
    /// A storage failure: the file cannot be made or read (retry), is damaged, belongs to another place, or was written
    /// by a newer version (park).
    pub async fn open(path: &Path, place: Place, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self> {
        create_private(path).map_err(|error| {
            let what = format!("make or open the journal file {}", path.display());
            JournalError::Storage(Failure::retry(Code::JournalFailed, what).caused_by(error))
        })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            // Nothing in the file itself may call functions with side effects.
            .pragma("trusted_schema", "OFF");
        // Connections live as long as the journal: opening one again costs more than keeping it.
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(TURN_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                .before_acquire(|connection, _| Box::pin(is_usable(connection)))
        };
        let writer = pool(1).connect_with(options.clone()).await.map_err(failed("open the journal"))?;
        let mut connection = writer.acquire().await.map_err(failed("open the journal"))?;
        schema::migrate(&mut connection, place).await?;
        drop(connection);
        let readers = pool(READERS).connect_with(options.pragma("query_only", "ON")).await.map_err(failed("open the journal"))?;
        Ok(Self { place, clock, entropy, writer, readers })
    }

    /// Opens a journal that exists, to be looked at: nothing is made, migrated or written, and what would write fails.
    ///
    /// # Errors
    /// As [`SqliteJournal::open`].
    pub async fn look(path: &Path, place: Place, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("query_only", "ON")
            .pragma("trusted_schema", "OFF");
        let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(TURN_TIMEOUT);
        let readers = pool.connect_with(options).await.map_err(failed("open the journal"))?;
        let mut connection = readers.acquire().await.map_err(failed("open the journal"))?;
        schema::check(&mut connection, place).await?;
        drop(connection);
        Ok(Self { place, clock, entropy, writer: readers.clone(), readers })
    }

    /// Whether the journal belongs to this machine; one that is not bound yet will.
    ///
    /// # Errors
    /// [`JournalError::HostMoved`] where it is bound to another machine; storage.
    pub async fn check_machine(&self, machine_id: &str) -> Result<()> {
        let bound = sqlx::query("SELECT digest FROM machine").fetch_optional(&self.readers).await;
        let bound = bound.map_err(failed("read the journal"))?;
        match bound {
            Some(row) if get::<&str>(&row, "digest")? != machine_digest(machine_id).to_string() => Err(JournalError::HostMoved),
            _ => Ok(()),
        }
    }

    /// Ends every connection and folds the write-ahead log into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Whether a connection may be used again. SQLite ends a transaction by itself where the disk is full; the library then
/// fails to end it again and goes on counting it, and such a connection could never begin another. For the
/// `before_acquire` of every pool of SQLite connections that begin transactions.
///
/// # Errors
/// Where the connection does not answer.
pub async fn is_usable(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // Whatever was still on its way to the connection's thread is done when this answers.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// Makes the file before SQLite does, because SQLite would let others read it. Its companions (`-wal`, `-shm`) take
/// over its permissions.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(file) => {
            file.sync_all()?;
            sync_folder(path)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// The file's name must survive a power cut as well as its content.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::File::open(folder)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
