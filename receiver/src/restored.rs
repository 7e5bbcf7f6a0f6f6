//! Notices an app database that was put back to before an import that was signed for.
//!
//! The ledger of imports lies in the app database, so that it and the tables are always of one time; the receipts lie here. The
//! newest import of each agent and job is noted beside them, and the ledger must never stand before that.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_transfer::{AgentName, Code, Failure, JobName, Sequence, TransferId};
use towpath_transport::files::{FileKind, FileStore, file_failure, write_whole};

use crate::{
    import::{ImportScope, ImportTarget},
    kept,
    layout::Layout,
    parts::Parts,
    uplink::{scan::folders, verify::blocking},
};

/// How often the app database is compared with what was signed for; also when the receiver starts.
pub const COMPARE_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// The most agents, and jobs of each, that are compared.
const MOST: usize = 1_000;
/// The largest note, in bytes.
const MAX_NOTE_BYTES: usize = 4_096;
const SUFFIX: &str = ".json";

/// The newest import of an agent's job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Newest {
    /// Version of this form: 1.
    pub version: u32,
    /// The transfer.
    pub transfer: TransferId,
    /// Its sequence number.
    pub sequence: Sequence,
    /// Since when the app database is known to lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacking: Option<Timestamp>,
}

/// A job whose app database stands before what was signed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lacking {
    /// Whose.
    pub agent: AgentName,
    /// Which.
    pub job: JobName,
    /// The newest transfer that was imported and signed for.
    pub transfer: TransferId,
    /// Since when that is known.
    pub since: Timestamp,
}

/// Notes, after the commit and before the receipt, what the app database has from now on.
///
/// # Errors
/// As the disk reports.
pub fn note(parts: &Parts, scope: &ImportScope, transfer: TransferId, sequence: Sequence) -> Result<(), Failure> {
    keep(&*parts.files, &parts.layout, scope, &Newest { version: 1, transfer, sequence, lacking: None })
}

/// Compares every app database with what was signed for, and returns how many stand before it. Each is told of once.
///
/// # Errors
/// As the disk reports. A database that does not answer is left for the next time.
pub async fn compare(parts: &Arc<Parts>) -> Result<usize, Failure> {
    let reader = Arc::clone(parts);
    let mut lacking = 0;
    for (scope, newest) in blocking(move || notes(&*reader.files, &reader.layout)).await? {
        let has = match is_there(&*parts.target, &scope, &newest).await {
            Ok(has) => has,
            Err(failure) => {
                let (agent, job) = (&scope.agent, &scope.job);
                tracing::debug!(%agent, %job, code = %failure.code(), error = %failure.report(), "the app database cannot be compared now");
                continue;
            }
        };
        lacking += usize::from(!has);
        if has != newest.lacking.is_some() {
            continue;
        }
        tell(&scope, &newest, has);
        let since = (!has).then(|| parts.clock.now());
        let writer = Arc::clone(parts);
        blocking(move || {
            // An import may have come to its end meanwhile; what it has noted counts.
            match read(&*writer.files, &writer.layout, &scope)? {
                Some(now) if now == newest => keep(&*writer.files, &writer.layout, &scope, &Newest { lacking: since, ..newest }),
                _ => Ok(()),
            }
        })
        .await?;
    }
    Ok(lacking)
}

/// The jobs whose app database is known to stand before what was signed for. Blocking.
///
/// # Errors
/// As the disk reports.
pub fn known(files: &dyn FileStore, layout: &Layout) -> Result<Vec<Lacking>, Failure> {
    let lacking = |(scope, newest): (ImportScope, Newest)| {
        Some(Lacking { agent: scope.agent, job: scope.job, transfer: newest.transfer, since: newest.lacking? })
    };
    Ok(notes(files, layout)?.into_iter().filter_map(lacking).collect())
}

/// Sequence numbers of a job only grow, also where imports between two were rejected.
async fn is_there(target: &dyn ImportTarget, scope: &ImportScope, newest: &Newest) -> Result<bool, Failure> {
    let (_, ledger) = target.begin(scope, newest.transfer).await?;
    Ok(ledger.last_sequence.is_some_and(|last| last >= newest.sequence))
}

fn tell(scope: &ImportScope, newest: &Newest, has: bool) {
    let (agent, job, transfer) = (&scope.agent, &scope.job, &newest.transfer);
    if has {
        tracing::info!(%agent, %job, %transfer, "the app database has again what was imported");
        return;
    }
    tracing::error!(
        %agent, %job, %transfer, code = %Code::AppRestored,
        "the app database lacks what was imported and signed for: an older backup was put back, or it was made anew. The next transfer \
         of the job brings everything; to have it at once, run on the ERP host: towpath-agent send {job}"
    );
}

fn notes(files: &dyn FileStore, layout: &Layout) -> Result<Vec<(ImportScope, Newest)>, Failure> {
    let root = layout.newest_imports();
    let mut found = Vec::new();
    for agent in folders::<AgentName>(files, &root, MOST)? {
        let folder = root.join(agent.as_str());
        let entries = files.list(&folder, None, MOST).map_err(|e| file_failure("listing", &folder, e))?;
        for entry in entries.into_iter().filter(|entry| entry.stat.kind == FileKind::File) {
            let Some(Ok(job)) = entry.name.strip_suffix(SUFFIX).map(str::parse) else { continue };
            let scope = ImportScope { agent: agent.clone(), job };
            if let Some(newest) = read(files, layout, &scope)? {
                found.push((scope, newest));
            }
        }
    }
    Ok(found)
}

/// A note that cannot be understood is none: the next import writes it anew.
fn read(files: &dyn FileStore, layout: &Layout, scope: &ImportScope) -> Result<Option<Newest>, Failure> {
    let path = layout.newest_import(&scope.agent, &scope.job);
    let bytes = kept::read(files, &path, MAX_NOTE_BYTES)?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).filter(|newest: &Newest| newest.version == 1))
}

fn keep(files: &dyn FileStore, layout: &Layout, scope: &ImportScope, newest: &Newest) -> Result<(), Failure> {
    let path = layout.newest_import(&scope.agent, &scope.job);
    if let Some(folder) = path.parent() {
        files.create_dir_all(folder).map_err(|e| file_failure("creating", folder, e))?;
    }
    let bytes = serde_json::to_vec(newest).map_err(|e| Failure::park(Code::Internal, "writing a note failed").caused_by(e))?;
    write_whole(files, &path, &bytes).map_err(|e| file_failure("writing", &path, e))
}

#[cfg(test)]
mod tests {
    use towpath_transfer::Clock as _;
    use towpath_transport::files::write_whole;

    use super::*;
    use crate::testing::Bench;

    fn scope(agent: &str) -> ImportScope {
        ImportScope { agent: agent.parse().unwrap(), job: "main".parse().unwrap() }
    }

    #[tokio::test]
    async fn a_database_that_lacks_what_was_noted_is_told_of_until_it_has_it() {
        let bench = Bench::new().await;
        let parts = &bench.parts;
        let id = crate::testing::id;
        assert_eq!(compare(parts).await.unwrap(), 0, "nothing was imported yet");
        note(parts, &scope("erp"), id(1), Sequence(1)).unwrap();
        assert_eq!(compare(parts).await.unwrap(), 1);
        let known = || super::known(&*parts.files, &parts.layout).unwrap();
        let since = bench.clock.now();
        let lacking = Lacking { agent: "erp".parse().unwrap(), job: "main".parse().unwrap(), transfer: id(1), since };
        assert_eq!(known(), std::slice::from_ref(&lacking));
        bench.clock.advance(COMPARE_INTERVAL);
        assert_eq!((compare(parts).await.unwrap(), known()), (1, vec![lacking]), "the time of the first notice stays");
        note(parts, &scope("erp"), id(2), Sequence(2)).unwrap();
        assert_eq!(known(), [], "an import has come since");
    }

    #[tokio::test]
    async fn a_damaged_note_is_none() {
        let bench = Bench::new().await;
        note(&bench.parts, &scope("erp"), crate::testing::id(1), Sequence(1)).unwrap();
        let path = bench.parts.layout.newest_import(&scope("erp").agent, &scope("erp").job);
        write_whole(&*bench.files, &path, b"{}").unwrap();
        assert_eq!(compare(&bench.parts).await.unwrap(), 0);
    }
}
