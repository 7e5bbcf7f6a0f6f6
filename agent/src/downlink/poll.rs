//! Asks the relay what waits for this agent, and takes it into the journal.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use towpath_journal::{Backoff, Filter, JournalError, NewTransfer, SequenceChoice, TransferRecord, WakeUp};
use towpath_transfer::{
    Code, Direction, Failure, TransferId, TransferState,
    api::{Acknowledgement, Downlinks, MAX_OFFERS, MAX_WAIT_SECONDS, Offer},
    digest::Sha256Digest,
    failure::{FailureRecord, Result},
    receipt::ReceiptStage,
};

use super::decide;
use crate::{
    config::{Changes, Poll},
    parts::Parts,
    room,
    service::heart::Heart,
};

/// How long one long poll waits.
pub const LONG_POLL: Duration = Duration::from_secs(MAX_WAIT_SECONDS);
/// The shortest pause between two questions, so that a relay that always answers at once is not asked without end.
pub const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// The pause before the rest of a list is taken that was too long to be taken at once.
pub const CROWDED_PAUSE: Duration = Duration::from_secs(5);
/// The most return files' transfers that are under way here at a time; the others wait at the relay.
pub const MAX_OPEN_DOWNLINKS: usize = 500;

/// What came of one list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// The transfers that are new here.
    pub new: Vec<TransferId>,
    /// The transfers that had ended here and whose receipts were handed over once more.
    pub acknowledged: Vec<TransferId>,
    /// How many had to be left at the relay for now.
    pub left: usize,
    /// Why, where not even half of the reserve is free on the disk.
    pub full: Option<FailureRecord>,
}

/// Polls until `shutdown` is cancelled. An unreachable relay is asked again after growing pauses.
pub async fn run(parts: Arc<Parts>, wake: WakeUp, heart: Heart, shutdown: CancellationToken) {
    let mut version = None;
    let mut failures = 0u32;
    let mut changes = parts.config.changes();
    while !shutdown.is_cancelled() {
        heart.works();
        let poll = parts.config.now().downlink.poll;
        let polled = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            polled = once(&parts, wait(&poll), version) => polled,
            () = another_way(&mut changes, poll) => {
                // What was taken before the question was given up is there to be worked on.
                wake.hint();
                continue;
            }
        };
        let pause = match polled {
            Ok((list, taken)) => {
                if !taken.new.is_empty() {
                    wake.hint();
                }
                match &taken.full {
                    Some(full) => {
                        failures = failures.saturating_add(1);
                        tell(full.code, &full.report, failures);
                    }
                    None => failures = 0,
                }
                // Without a version the relay tells of the rest at once.
                version = (taken.left == 0).then_some(list.version);
                if taken.left > 0 { CROWDED_PAUSE } else { between(&parts.config.now().downlink.poll) }
            }
            Err(failure) => {
                failures = failures.saturating_add(1);
                version = None;
                tell(failure.code(), &failure.report(), failures);
                pause_after(&parts, &failure, failures)
            }
        };
        heart.rests();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            () = parts.clock.sleep(pause) => {}
            () = another_way(&mut changes, poll) => {}
        }
    }
}

fn pause_after(parts: &Parts, failure: &Failure, failures: u32) -> Duration {
    let (backoff, entropy) = (Backoff::default(), &*parts.entropy);
    let wish = failure.retry_after().map(|wish| backoff.asked_for(wish, entropy));
    wish.unwrap_or_else(|| backoff.pause(failures, entropy)).max(SHORTEST_PAUSE)
}

/// Waits until the configuration in force says of another way to ask.
async fn another_way(changes: &mut Changes, now: Poll) {
    while changes.next().await.downlink.poll == now {}
}

/// An outage is told once, and then as seldom as the pauses get long.
fn tell(code: Code, report: &str, failures: u32) {
    if failures.is_power_of_two() {
        tracing::warn!(%code, failures, "no return files were taken: {report}");
    } else {
        tracing::debug!(%code, failures, "no return files were taken: {report}");
    }
}

fn wait(poll: &Poll) -> Duration {
    match poll {
        Poll::Long => LONG_POLL,
        Poll::Every(_) => Duration::ZERO,
    }
}

fn between(poll: &Poll) -> Duration {
    match poll {
        Poll::Long => SHORTEST_PAUSE,
        Poll::Every(pause) => (*pause).max(SHORTEST_PAUSE),
    }
}

/// Asks once and takes what is offered. `wait` and `unless` are those of
/// [`towpath_transport::relay_api::RelayApi::downlinks`].
///
/// # Errors
/// As the relay answers, and as journal and disk report.
pub async fn once(parts: &Parts, wait: Duration, unless: Option<Sha256Digest>) -> Result<(Downlinks, Taken)> {
    let list = parts.relay.downlinks(wait, unless).await?;
    let taken = take(parts, &list.downlinks).await?;
    Ok((list, taken))
}

/// Takes offers into the journal, oldest first and each once; a transfer that has ended here is acknowledged again.
///
/// An offer is no more than the relay's word, and so is what was noted of one. With another identity or number it begins anew, and what is
/// not offered any more gives way where it holds a place or a number that an offer needs.
///
/// # Errors
/// As journal and disk report; what goes wrong with one offer alone is logged.
pub async fn take(parts: &Parts, offers: &[Offer]) -> Result<Taken> {
    let mut taken = Taken::default();
    let mut places = Places::of(parts, offers).await?;
    for offer in offers.iter().take(MAX_OFFERS) {
        let record = parts.journal.get(&parts.key(offer.transfer)).await?;
        match &record {
            Some(record) if is_offered_so(record, offer) => {
                if record.state.is_final() && acknowledge_again(parts, record).await {
                    taken.acknowledged.push(offer.transfer);
                }
                continue;
            }
            // It has its place already.
            Some(_) => {}
            None if places.free == 0 && !places.give_way(|_| true).await? => {
                taken.left += 1;
                continue;
            }
            None => {}
        }
        if let Err(full) = room::check_for_offers(parts) {
            taken.left += 1;
            taken.full = Some(FailureRecord::from(&full));
        } else if note(parts, offer, record.is_some(), &mut places).await? {
            taken.new.push(offer.transfer);
        }
    }
    taken.left += offers.len().saturating_sub(MAX_OFFERS);
    Ok(taken)
}

/// Whether what is known of a transfer is still what the relay offers. Once something has happened to it, that stands.
fn is_offered_so(record: &TransferRecord, offer: &Offer) -> bool {
    match &record.state {
        TransferState::Offered { identity } => *identity == offer.identity && record.sequence == Some(offer.sequence),
        _ => true,
    }
}

/// The places for transfers under way.
struct Places<'a> {
    parts: &'a Parts,
    free: usize,
    /// What was offered once and is not any more, and was not begun with.
    forsaken: Vec<TransferRecord>,
}

impl<'a> Places<'a> {
    async fn of(parts: &'a Parts, offers: &[Offer]) -> Result<Self> {
        let open = open_downlinks(parts).await?;
        let free = MAX_OPEN_DOWNLINKS.saturating_sub(open.len());
        let offered = ids(offers);
        Ok(Self { parts, free, forsaken: open.into_iter().filter(|record| is_forsaken(record, &offered)).collect() })
    }

    /// Forgets one of the forsaken that is `wanted`; `false` where there is none on which nobody works.
    async fn give_way(&mut self, wanted: impl Fn(&TransferRecord) -> bool) -> Result<bool> {
        while let Some(at) = self.forsaken.iter().position(&wanted) {
            let record = self.forsaken.swap_remove(at);
            if self.parts.journal.withdraw(&record.key).await? {
                tracing::info!(transfer = %record.key.id, "the relay does not offer it any more: it has made way");
                self.free += 1;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The transfers that are offered.
#[must_use]
pub fn ids(offers: &[Offer]) -> HashSet<TransferId> {
    offers.iter().map(|offer| offer.transfer).collect()
}

/// Whether a transfer was offered once and is not any more, and was not begun with.
#[must_use]
pub fn is_forsaken(record: &TransferRecord, offered: &HashSet<TransferId>) -> bool {
    matches!(record.state, TransferState::Offered { .. }) && !offered.contains(&record.key.id)
}

/// The return files' transfers that have not ended here, newest first.
///
/// # Errors
/// As the journal reports.
pub async fn open_downlinks(parts: &Parts) -> Result<Vec<TransferRecord>> {
    let filter = Filter { direction: Some(Direction::Downlink), ended: Some(false), ..Filter::default() };
    Ok(parts.journal.list(&filter, towpath_journal::MAX_LIST, None).await?)
}

/// Notes an offer; `false` where it could not be taken, and the log says why.
async fn note(parts: &Parts, offer: &Offer, anew: bool, places: &mut Places<'_>) -> Result<bool> {
    let new = NewTransfer {
        key: parts.key(offer.transfer),
        direction: Direction::Downlink,
        job: None,
        state: TransferState::Offered { identity: offer.identity },
        sequence: SequenceChoice::Given(Some(offer.sequence)),
    };
    let create = async || match anew {
        true => parts.journal.begin_anew(new.clone()).await,
        false => parts.journal.create(new.clone()).await.map(|created| created.is_new()),
    };
    let mut created = create().await;
    let of_forsaken = |record: &TransferRecord| record.sequence == Some(offer.sequence);
    if matches!(created, Err(JournalError::SequenceForked { .. })) && places.give_way(of_forsaken).await? {
        created = create().await;
    }
    match created {
        Ok(created) => {
            if created {
                tracing::info!(transfer = %offer.transfer, sequence = %offer.sequence, "return files are offered");
                places.free = places.free.saturating_sub(usize::from(!anew));
            }
            Ok(created)
        }
        // Also a transfer that ended here so long ago that the journal has forgotten all of it but its number.
        Err(error @ JournalError::SequenceForked { .. }) => {
            tracing::warn!(code = %Code::SequenceForked, transfer = %offer.transfer, "not taken: {error}");
            Ok(false)
        }
        // One offer that no journal could hold must not keep the others from being taken.
        Err(error @ JournalError::Limit { .. }) => {
            tracing::warn!(code = %Code::LimitExceeded, transfer = %offer.transfer, "not taken: {error}");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Hands the kept receipt over once more; `false` where that failed or none is kept.
async fn acknowledge_again(parts: &Parts, record: &TransferRecord) -> bool {
    let id = record.key.id;
    let kept = [ReceiptStage::Delivered, ReceiptStage::Rejected]
        .into_iter()
        .find_map(|stage| decide::kept(parts, id, stage).transpose());
    let handed = match kept {
        Some(Ok(signed)) => parts.relay.acknowledge(id, &Acknowledgement { signed }).await,
        Some(Err(failure)) => Err(failure),
        None => Err(Failure::park(Code::ReceiptInvalid, "its receipt is not kept here any more")),
    };
    match handed {
        Ok(()) => {
            tracing::info!(transfer = %id, "offered again after its end; acknowledged again");
            true
        }
        Err(failure) => {
            tracing::warn!(transfer = %id, code = %failure.code(), "offered again after its end: {}", failure.report());
            false
        }
    }
}
