//! Keeps what only grows within bounds: the journal, old receipts, and transfers of either direction that never became whole.

use std::{path::Path, sync::Arc, time::Duration};

use jiff::Timestamp;
use towpath_journal::{MAX_PRUNE, Prune};
use towpath_transfer::{AgentName, Failure, TransferId, TransferKey, manifest::MANIFEST_NAME};
use towpath_transport::files::{file_failure, ignore_missing};

use crate::{
    parts::Parts,
    quarantine,
    uplink::{scan::folders, verify::blocking},
};

/// Transfers that are over and older than this may leave the journal.
pub const JOURNAL_AGE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// The newest of them stay all the same.
pub const JOURNAL_KEEPS: u64 = 10_000;
/// The receipts that are kept of one agent; the oldest go first.
pub const RECEIPTS_KEPT: usize = 10_000;
/// A folder on the landing that has no manifest and was not touched for this long belongs to a transfer that was given up.
/// A relay sends it again whenever it may; what it makes up must not hold the landing's places for long.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// What was begun to be sent back and was not touched for this long was given up.
pub const BEGUN_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Folders of one agent that one round looks at.
const PER_ROUND: usize = 1_000;
/// Agents that one round looks at.
const MAX_AGENTS: usize = 10_000;

/// One round.
///
/// # Errors
/// Of the disk or the journal; what went before stays gone.
pub async fn tidy(parts: &Arc<Parts>) -> Result<(), Failure> {
    let now = parts.clock.now();
    let older_than = now.saturating_sub(JOURNAL_AGE).unwrap_or(Timestamp::MIN);
    while parts.journal.prune(&Prune::over(older_than, JOURNAL_KEEPS)).await? >= MAX_PRUNE as u64 {}
    let sweeper = Arc::clone(parts);
    blocking(move || {
        sweep_landing(&sweeper, now)?;
        sweep_begun(&sweeper, now)?;
        bound_quarantine(&sweeper)
    })
    .await?;
    while clear_receipts(parts).await? {}
    Ok(())
}

/// Removes old receipts, a round for each agent. Returns whether there may be more.
async fn clear_receipts(parts: &Arc<Parts>) -> Result<bool, Failure> {
    let finder = Arc::clone(parts);
    let mut removed = false;
    for key in blocking(move || old_receipts(&finder)).await? {
        if parts.journal.get(&key).await?.is_some_and(|record| !record.is_over()) {
            continue;
        }
        let path = parts.layout.receipts(&key);
        let files = Arc::clone(&parts.files);
        blocking(move || ignore_missing(files.remove_dir_all(&path)).map_err(|e| file_failure("removing", &path, e))).await?;
        removed = true;
    }
    Ok(removed)
}

fn sweep_landing(parts: &Parts, now: Timestamp) -> Result<(), Failure> {
    let before = now.saturating_sub(ABANDONED_AFTER).unwrap_or(Timestamp::MIN);
    let root = parts.layout.landing().join("uplink");
    for agent in folders::<AgentName>(&*parts.files, &root, MAX_AGENTS)? {
        let folder = parts.layout.landing_agent(&agent);
        for id in folders::<TransferId>(&*parts.files, &folder, PER_ROUND)? {
            let path = folder.join(id.to_string());
            if parts.files.stat(&path.join(MANIFEST_NAME)).is_ok() || touched_since(parts, &path, before)? {
                continue;
            }
            tracing::warn!(%agent, transfer = %id, "removing what has landed of a transfer that was given up long ago");
            ignore_missing(parts.files.remove_dir_all(&path)).map_err(|e| file_failure("removing", &path, e))?;
        }
        if parts.files.list(&folder, None, 1).is_ok_and(|left| left.is_empty()) && !touched_since(parts, &folder, before)? {
            // The relay may make it again just now; then it is not empty any more, and stays.
            let _ = parts.files.remove_dir(&folder);
        }
    }
    Ok(())
}

/// What is in quarantine from before its limits were set as they are.
fn bound_quarantine(parts: &Parts) -> Result<(), Failure> {
    for agent in folders::<AgentName>(&*parts.files, &parts.layout.quarantine(), MAX_AGENTS)? {
        quarantine::bound(&*parts.files, &parts.layout, &agent, &parts.limits)?;
    }
    Ok(())
}

/// Removes what was begun to be taken or laid out and never became whole.
fn sweep_begun(parts: &Parts, now: Timestamp) -> Result<(), Failure> {
    let before = now.saturating_sub(BEGUN_FOR).unwrap_or(Timestamp::MIN);
    for root in [parts.layout.exports(), parts.layout.landing_downlink()] {
        for agent in folders::<AgentName>(&*parts.files, &root, MAX_AGENTS)? {
            let folder = root.join(agent.as_str());
            for Begun(id) in folders::<Begun>(&*parts.files, &folder, PER_ROUND)? {
                let path = folder.join(format!(".{id}"));
                if touched_since(parts, &path, before)? || touched_since(parts, &path.join("files"), before).unwrap_or(false) {
                    continue;
                }
                tracing::warn!(%agent, transfer = %id, "removing what was begun to be sent back and given up");
                ignore_missing(parts.files.remove_dir_all(&path)).map_err(|e| file_failure("removing", &path, e))?;
            }
        }
    }
    Ok(())
}

/// The hidden name of a folder that is not whole: `.<transfer>`.
struct Begun(TransferId);

impl std::str::FromStr for Begun {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.strip_prefix('.').and_then(|id| id.parse().ok()).map(Self).ok_or(())
    }
}

/// Whether the folder or anything in it was changed since `before`; also where that cannot be told.
fn touched_since(parts: &Parts, folder: &Path, before: Timestamp) -> Result<bool, Failure> {
    let entries = parts.files.list(folder, None, PER_ROUND).map_err(|e| file_failure("listing", folder, e))?;
    let own = parts.files.stat(folder).map_err(|e| file_failure("looking for", folder, e))?;
    let newest = entries.iter().map(|entry| entry.stat.modified).chain([own.modified]).flatten().max();
    Ok(newest.is_none_or(|at| at >= before))
}

fn old_receipts(parts: &Parts) -> Result<Vec<TransferKey>, Failure> {
    let root = parts.layout.all_receipts();
    let mut old = Vec::new();
    for agent in folders::<AgentName>(&*parts.files, &root, MAX_AGENTS)? {
        let ids = folders::<TransferId>(&*parts.files, &root.join(agent.as_str()), RECEIPTS_KEPT.saturating_add(PER_ROUND))?;
        let over = ids.len().saturating_sub(RECEIPTS_KEPT);
        // Ids are UUIDv7 and come sorted, so the first are the oldest.
        old.extend(ids.into_iter().take(over).map(|id| TransferKey { tenant: parts.tenant.clone(), agent: agent.clone(), id }));
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use towpath_transport::files::{FileStore as _, write_whole};

    use super::*;
    use crate::testing::Bench;

    #[tokio::test]
    async fn only_folders_without_manifest_that_nobody_touches_go() {
        let bench = Bench::new().await;
        let files = &bench.files;
        let folder = |n: u8| bench.parts.layout.landing_agent(&"erp".parse().unwrap()).join(crate::testing::id(n).to_string());
        for n in [1, 2] {
            files.create_dir_all(&folder(n)).unwrap();
        }
        write_whole(&**files, &folder(1).join("items.csv.bz2.part"), b"x").unwrap();
        write_whole(&**files, &folder(2).join(MANIFEST_NAME), b"x").unwrap();
        tidy(&bench.parts).await.unwrap();
        assert!(files.stat(&folder(1)).is_ok());
        bench.clock.advance(ABANDONED_AFTER + Duration::from_secs(60));
        tidy(&bench.parts).await.unwrap();
        assert!(files.stat(&folder(1)).is_err());
        assert!(files.stat(&folder(2)).is_ok());
    }

    #[tokio::test]
    async fn what_was_begun_to_be_sent_back_goes_after_a_day() {
        let bench = Bench::new().await;
        let (files, layout) = (&bench.files, &bench.parts.layout);
        let key = |n| Bench::key("erp", crate::testing::id(n));
        let begun = [layout.export_begun(&key(1)), layout.laying_out(&key(1))];
        for folder in begun.iter().chain([&layout.laid_out(&key(2))]) {
            files.create_dir_all(folder).unwrap();
            write_whole(&**files, &folder.join("orders.csv"), b"x").unwrap();
        }
        bench.clock.advance(BEGUN_FOR - Duration::from_secs(60));
        tidy(&bench.parts).await.unwrap();
        assert!(begun.iter().all(|folder| files.stat(folder).is_ok()));
        bench.clock.advance(Duration::from_secs(120));
        tidy(&bench.parts).await.unwrap();
        assert!(begun.iter().all(|folder| files.stat(folder).is_err()));
        assert!(files.stat(&layout.laid_out(&key(2))).is_ok());
    }

    #[tokio::test]
    async fn receipts_are_kept_to_a_number() {
        let bench = Bench::new().await;
        let root = bench.parts.layout.all_receipts().join("erp");
        let name = |n: usize| format!("01922c1e-8a4f-7d3a-9b5e-{n:012x}");
        let over = PER_ROUND + 2;
        for n in 0..RECEIPTS_KEPT + over {
            bench.files.create_dir_all(&root.join(name(n))).unwrap();
        }
        tidy(&bench.parts).await.unwrap();
        let left = bench.files.list(&root, None, RECEIPTS_KEPT + 10).unwrap();
        assert_eq!((left.len(), left[0].name.clone()), (RECEIPTS_KEPT, name(over)));
    }
}
