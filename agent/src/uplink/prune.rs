//! Keeps the agent's disk bounded: the newest ended transfers stay with manifest and receipts, older ones go.

use towpath_journal::{Filter, MAX_PRUNE, Prune};
use towpath_transfer::{Direction, Failure, TransferId, TransferState};
use towpath_transport::files::{file_failure, ignore_missing};

use super::{folder::remove_payload, plan::of_job};
use crate::parts::{KEPT_TRANSFERS, Parts};

/// Names read from the folder of transfers at a time.
const PAGE: usize = 256;

/// Removes ended transfers beyond the newest `keep` of each direction from the journal, but for the one that a job's next transfer
/// builds on; the folders of transfers the journal does not know, and what is left of the work on those that have ended, as a kill or a
/// power cut leaves it. Returns how many folders went.
///
/// # Errors
/// As journal and disk report.
pub async fn prune(parts: &Parts, keep: u64) -> Result<usize, Failure> {
    let (now, bases) = (parts.clock.now(), bases(parts).await?);
    // Each direction by itself: many runs must not make the number of a return file that is late count as used.
    for direction in [Direction::Uplink, Direction::Downlink] {
        let over = Prune::over(now, keep).travelling(direction).sparing(bases.clone());
        while parts.journal.prune(&over).await? == MAX_PRUNE as u64 {}
    }
    let mut removed = 0;
    for folder in [parts.layout.transfers(), parts.layout.of(Direction::Downlink).transfers(), parts.layout.work()] {
        let mut after: Option<String> = None;
        loop {
            let page = match parts.files.list(&folder, after.as_deref(), PAGE) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                other => other.map_err(|error| file_failure("listing", &folder, error))?,
            };
            for entry in &page {
                let Ok(id) = entry.name.parse::<TransferId>() else { continue };
                match parts.journal.get(&parts.key(id)).await? {
                    None if is_young(parts, id) => continue,
                    None => {
                        let path = folder.join(&entry.name);
                        ignore_missing(parts.files.remove_dir_all(&path))
                            .map_err(|error| file_failure("removing", &path, error))?;
                    }
                    Some(record) if record.is_over() && folder == parts.layout.work() => {
                        remove_payload(&*parts.files, &parts.layout.of(record.direction), id)?;
                    }
                    Some(_) => continue,
                }
                removed += 1;
            }
            if page.len() < PAGE {
                break;
            }
            after = page.into_iter().next_back().map(|entry| entry.name);
        }
    }
    Ok(removed)
}

/// What each job's next transfer is compared with. A job that runs often must not push out that of one that runs seldom.
async fn bases(parts: &Parts) -> Result<Vec<u64>, Failure> {
    let mut bases = Vec::new();
    for job in &parts.config.now().jobs {
        let imported = Filter { state: Some(TransferState::Imported.word().to_owned()), ..of_job(parts, &job.name) };
        bases.extend(parts.journal.list(&imported, 1, None).await?.into_iter().map(|record| record.serial));
    }
    Ok(bases)
}

/// A transfer is noted in the work folder a moment before the journal has it. Its id says when that was; one that somebody else has made
/// may say anything.
fn is_young(parts: &Parts, id: TransferId) -> bool {
    /// By far longer than a plan takes.
    const YOUNG_MILLIS: i64 = 10 * 60 * 1_000;
    let hex: String = id.to_string().chars().filter(|c| *c != '-').take(12).collect();
    let Ok(made) = i64::from_str_radix(&hex, 16) else { return true };
    parts.clock.now().as_millisecond().saturating_sub(made).abs() < YOUNG_MILLIS
}

/// As [`prune`], for the configured number; a failure is logged, because the next run prunes as well.
pub async fn prune_or_warn(parts: &Parts) {
    match prune(parts, KEPT_TRANSFERS).await {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "removed old transfers"),
        Err(failure) => tracing::warn!(code = %failure.code(), "old transfers were not removed: {}", failure.report()),
    }
}
