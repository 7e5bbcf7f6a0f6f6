//! Looks for transfers that have landed whole and puts them into the journal. A rename on our own landing is only a hint
//! to look at once; a plain OpenSSH server in front of the same folder gives none.

use std::{str::FromStr, sync::Arc};

use towpath_journal::{Created, NewTransfer, SequenceChoice, WakeUp};
use towpath_transfer::{AgentName, Direction, Failure, TransferId, TransferKey, TransferState, manifest::MANIFEST_NAME};
use towpath_transport::files::{FileKind, FileStore, file_failure};

use super::{receipt, verify::blocking};
use crate::{
    agents::{self, TrustPolicy},
    kept,
    parts::Parts,
};

/// The most agents one scan looks at.
const MAX_AGENTS: usize = 10_000;

/// Looks once. Returns how many transfers are new.
///
/// # Errors
/// Of the disk or the journal; what was found before stays found.
pub async fn scan(parts: &Arc<Parts>, wake: &WakeUp) -> Result<usize, Failure> {
    let finder = Arc::clone(parts);
    let landed = blocking(move || find(&finder)).await?;
    let mut new = 0;
    for key in landed {
        let known = parts.journal.get(&key).await?.is_some();
        if !known && !may_enter(parts, &key).await? {
            continue;
        }
        if !known {
            // Whoever has put the manifest there may have failed before its name, or that of its folder, was durable.
            let (holder, of) = (Arc::clone(parts), key.clone());
            blocking(move || hold(&holder, &of)).await?;
        }
        let transfer = NewTransfer {
            key: key.clone(),
            direction: Direction::Uplink,
            job: None,
            state: TransferState::Landed,
            sequence: SequenceChoice::Given(None),
        };
        match parts.journal.create(transfer).await? {
            Created::New(_) => {
                tracing::info!(transfer = %key, "landed");
                new += 1;
            }
            // An agent chooses the ids of what it sends; one that it has from a return file is no uplink's.
            Created::Existing(record) if record.direction != Direction::Uplink => {
                tracing::warn!(transfer = %key, "landed under the id of a downlink; it is left where it is");
            }
            // It was settled, and the relay, which does not know that, has sent it again.
            Created::Existing(record) if record.is_over() => {
                tracing::info!(transfer = %key, state = record.state.word(), "landed again; the receipt is handed over again");
                if let Err(failure) = receipt::hand_over(parts, &key).await {
                    tracing::warn!(transfer = %key, code = %failure.code(), error = %failure.report(), "handing over again failed");
                }
            }
            Created::Existing(_) => {}
        }
    }
    if new > 0 {
        wake.hint();
    }
    Ok(new)
}

/// Makes every name durable that what has landed has: from here on the journal relies on them.
fn hold(parts: &Parts, key: &TransferKey) -> Result<(), Failure> {
    let landed = parts.layout.landed(key);
    kept::held(&*parts.files, &landed.join(MANIFEST_NAME))?;
    kept::held(&*parts.files, &landed)
}

/// Whether everything is ready for a transfer that is new to be looked at; where the relay cannot be asked about its agent, it waits.
async fn may_enter(parts: &Arc<Parts>, key: &TransferKey) -> Result<bool, Failure> {
    if parts.policy != TrustPolicy::FirstUse {
        return Ok(true);
    }
    match agents::believe_first_use(parts, &key.agent).await {
        Ok(()) => Ok(true),
        Err(failure) => {
            tracing::warn!(transfer = %key, code = %failure.code(), error = %failure.report(), "the agent's key cannot be asked for now");
            Ok(false)
        }
    }
}

fn find(parts: &Parts) -> Result<Vec<TransferKey>, Failure> {
    let root = parts.layout.landing().join("uplink");
    let mut found = Vec::new();
    for agent in folders::<AgentName>(&*parts.files, &root, MAX_AGENTS)? {
        let folder = parts.layout.landing_agent(&agent);
        for id in folders::<TransferId>(&*parts.files, &folder, parts.limits.landed_transfers)? {
            let key = TransferKey { tenant: parts.tenant.clone(), agent: agent.clone(), id };
            let manifest = parts.layout.landed(&key).join(MANIFEST_NAME);
            if parts.files.stat(&manifest).is_ok_and(|stat| stat.kind == FileKind::File) {
                found.push(key);
            }
        }
    }
    Ok(found)
}

/// The folders below `path` whose names are valid; what else lies there is not ours and is left alone.
pub(crate) fn folders<T: FromStr>(files: &dyn FileStore, path: &std::path::Path, most: usize) -> Result<Vec<T>, Failure> {
    let entries = match files.list(path, None, most) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(file_failure("listing", path, e)),
    };
    let dirs = entries.into_iter().filter(|entry| entry.stat.kind == FileKind::Dir);
    Ok(dirs.filter_map(|entry| entry.name.parse().ok()).collect())
}
