//! `receive`: fetches and delivers return files in front of a person.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use towpath_host::program::stop_signal;
use towpath_journal::{TransferRecord, WakeUp};
use towpath_transfer::{Code, Failure, TransferId, failure::Result};

use super::{args::ReceiveArgs, output, progress::Console, send::report, with_open};
use crate::{
    downlink::poll,
    host::{Host, OpenHost},
    parts::Parts,
    pause::Pause,
    work::{Goal, Worker},
};

pub(super) async fn run(host: &Host, args: &ReceiveArgs) -> Result<()> {
    Pause::refuse(&*host.files, &host.layout, host.clock().now())?;
    let console = Arc::new(Console::new());
    with_open(host, console.clone(), async |open| receive(open, &console, args).await).await
}

async fn receive(open: &OpenHost, console: &Arc<Console>, args: &ReceiveArgs) -> Result<()> {
    let stop = stop_signal()?;
    let parts = Arc::clone(&open.parts);
    let until = parts.clock.monotonic().saturating_add(args.timeout);
    let left = || until.saturating_sub(parts.clock.monotonic());
    let offered = take(&parts, args.wait, &stop, left).await?;
    let waiting = begin(&parts, &offered).await?;
    let mut worker = Worker::start(Arc::clone(&parts), WakeUp::new(), console.clone()).await?;
    if !worker.works() && !waiting.is_empty() {
        output::say("another towpath-agent works on this state folder; it does the work");
    }
    let mut ended: Vec<TransferRecord> = Vec::new();
    let mut trouble = None;
    for id in waiting {
        match worker.follow(id, Goal::Settled, left(), &stop).await {
            Ok(record) => ended.push(record),
            // What one transfer waits for keeps no other from being delivered.
            Err(failure) if failure.code() != Code::Cancelled => {
                ended.extend(parts.journal.get(&parts.key(id)).await?);
                trouble.get_or_insert(failure);
            }
            Err(failure) => {
                trouble = Some(failure);
                break;
            }
        }
    }
    worker.stop().await;
    console.finish();
    if ended.is_empty() && trouble.is_none() && !args.output.json {
        return output::line("no return files wait for this agent");
    }
    report(&parts, &ended, Goal::Settled, trouble, &args.output).await
}

/// Asks the relay: once, or until something is there that is open here. Returns what it offers.
async fn take(parts: &Parts, wait: bool, stop: &CancellationToken, left: impl Fn() -> Duration) -> Result<HashSet<TransferId>> {
    let mut version = None;
    loop {
        // Before the first answer it is not known what waits, so that one is asked for at once.
        let pause = version.map_or(Duration::ZERO, |_| poll::LONG_POLL.min(left()));
        let (list, taken) = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Failure::park(Code::Cancelled, "told to stop while waiting for return files")),
            polled = poll::once(parts, pause, version) => polled?,
        };
        let offered = poll::ids(&list.downlinks);
        let nothing_open = open(parts, &offered).await?.is_empty();
        if let Some(full) = taken.full {
            let failure = Failure::retry(full.code, full.report);
            if nothing_open {
                return Err(failure);
            }
            output::say(&format!("warning: not all return files were taken: {}", failure.message()));
            return Ok(offered);
        }
        if !wait || !taken.new.is_empty() || !nothing_open || left().is_zero() {
            return Ok(offered);
        }
        version = Some(list.version);
        parts.clock.sleep(poll::SHORTEST_PAUSE).await;
    }
}

/// What is open, newest first, without what was offered once and is not any more: that is not waited for.
async fn open(parts: &Parts, offered: &HashSet<TransferId>) -> Result<Vec<TransferRecord>> {
    let mut open = poll::open_downlinks(parts).await?;
    open.retain(|record| !poll::is_forsaken(record, offered));
    Ok(open)
}

/// What is open, oldest first; whoever asks by hand does not wait for the end of a pause.
async fn begin(parts: &Parts, offered: &HashSet<TransferId>) -> Result<Vec<TransferId>> {
    let mut ids = Vec::new();
    for record in open(parts, offered).await?.into_iter().rev() {
        if record.not_before.is_some() && !record.parked {
            parts.journal.unpark(&record.key).await?;
        }
        ids.push(record.key.id);
    }
    Ok(ids)
}
