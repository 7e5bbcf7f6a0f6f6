//! `send` and `retry`: work on transfers in front of a person.

use std::sync::Arc;

use futures::future::try_join_all;
use serde::Serialize;
use towpath_host::{counted, program};
use towpath_journal::{TransferRecord, WakeUp};
use towpath_transfer::{Code, Direction, Failure, JobName, TransferId, TransferState, failure::Result};

use super::{
    args::{OutputArgs, SendArgs, WaitArgs},
    extract::one_job,
    output,
    progress::Console,
    transfer_args::RetryArgs,
    with_open,
};
use crate::{
    host::{Host, OpenHost},
    parts::Parts,
    pause::Pause,
    uplink::{Plan, plan},
    view::{FailureView, TransferDetail, detail, what_next},
    work::{Goal, Worker},
};

/// What was sent, or received.
#[derive(Serialize)]
struct SentView {
    ok: bool,
    transfers: Vec<TransferDetail>,
}

pub(super) async fn run(host: &Host, args: &SendArgs) -> Result<()> {
    Pause::refuse(&*host.files, &host.layout, host.clock().now())?;
    let jobs: Vec<JobName> = match &args.job {
        Some(name) => vec![one_job(host.settings(), Some(name))?.name.clone()],
        None => host.settings().jobs.iter().map(|job| job.name.clone()).collect(),
    };
    if jobs.is_empty() {
        return Err(Failure::park(Code::ConfigInvalid, "the configuration has no [[job]]"));
    }
    let console = Arc::new(Console::new());
    with_open(host, console.clone(), async |open| {
        let mut ids = Vec::new();
        for job in &jobs {
            let planned = plan(&open.parts, job, args.full).await?;
            let id = planned.record().key.id;
            if let Plan::Open(record) = &planned {
                let full = if args.full { "; --full counts for the next one" } else { "" };
                output::say(&format!("job {job}: going on with transfer {id}, which is {}{full}", record.state.word()));
                if record.not_before.is_some() {
                    // Whoever sends by hand does not wait for the end of a pause.
                    open.parts.journal.unpark(&record.key).await?;
                }
            }
            ids.push(id);
        }
        work(open, &console, &ids, args.wait, &args.output).await
    })
    .await
}

pub(super) async fn retry(host: &Host, args: &RetryArgs) -> Result<()> {
    Pause::refuse(&*host.files, &host.layout, host.clock().now())?;
    let console = Arc::new(Console::new());
    with_open(host, console.clone(), async |open| {
        let key = open.parts.key(args.transfer);
        let record = open.parts.journal.unpark(&key).await?;
        if record.state.is_final() {
            let instead = if record.direction == Direction::Uplink { ": send again instead" } else { "" };
            let message = format!("transfer {} has ended ({}){instead}", args.transfer, record.state.word());
            return Err(Failure::park(Code::RequestInvalid, message));
        }
        work(open, &console, &[args.transfer], args.wait, &args.output).await
    })
    .await
}

async fn work(open: &OpenHost, console: &Arc<Console>, ids: &[TransferId], wait: WaitArgs, format: &OutputArgs) -> Result<()> {
    let stop = program::stop_signal()?;
    let goal = if wait.wait { Goal::Settled } else { Goal::Pushed };
    let parts = Arc::clone(&open.parts);
    let mut worker = Worker::start(parts.clone(), WakeUp::new(), console.clone()).await?;
    if !worker.works() {
        output::say("another towpath-agent works on this state folder; it does the work");
    }
    // Also an agent that is never left running learns of the relay's next keys.
    let follower = open.follower.clone();
    let asked = worker.works().then(|| tokio::spawn(async move { follower.ask_or_warn().await }));
    let mut ended = Vec::new();
    let mut trouble = None;
    for id in ids {
        match worker.follow(*id, goal, wait.timeout, &stop).await {
            Ok(record) => ended.push(record),
            Err(failure) => {
                trouble = Some(failure);
                break;
            }
        }
    }
    worker.stop().await;
    match asked {
        // A relay that was reached answers this too.
        Some(asked) if trouble.is_none() => drop(asked.await),
        Some(asked) => asked.abort(),
        None => {}
    }
    console.finish();
    report(&parts, &ended, goal, trouble, format).await
}

pub(super) async fn report(
    parts: &Parts,
    ended: &[TransferRecord],
    goal: Goal,
    trouble: Option<Failure>,
    format: &OutputArgs,
) -> Result<()> {
    // Asked anew: while other transfers were waited for, these may have got further.
    let details = try_join_all(ended.iter().map(async |record| {
        let newest = parts.journal.get(&record.key).await?.unwrap_or_else(|| record.clone());
        detail(parts, &newest).await
    }))
    .await?;
    let problem = trouble.or_else(|| ended.iter().find_map(problem));
    if format.json {
        output::json(&SentView { ok: problem.is_none(), transfers: details })?;
    } else {
        for one in &details {
            output::line(&sentence(one))?;
        }
        let waits = details.iter().any(|one| one.view.direction == Direction::Uplink && one.view.state != "imported");
        if goal == Goal::Pushed && waits && problem.is_none() {
            output::say("the receipts are fetched by `towpath-agent run`, or by the next `send --wait`");
        }
    }
    problem.map_or(Ok(()), Err)
}

/// Why a transfer that is not waited for any more is no success.
fn problem(record: &TransferRecord) -> Option<Failure> {
    let id = record.key.id;
    match &record.state {
        TransferState::Rejected { rejection } => {
            let by = if record.direction == Direction::Uplink { "by the receiver" } else { "here" };
            let message = format!("transfer {id} was rejected {by}: {}", rejection.detail);
            Some(Failure::park(rejection.code, message))
        }
        TransferState::Abandoned { reason } => {
            Some(Failure::park(Code::Cancelled, format!("transfer {id} was abandoned: {reason}")))
        }
        _ if record.parked => {
            let failure = record.last_failure.as_ref().map(FailureView::from);
            let code = failure.as_ref().map_or(Code::Internal, |failure| failure.code);
            let why = failure.map_or_else(|| "the reason is not known".to_owned(), |failure| failure.report);
            let message = format!("transfer {id} waits for you: {why}; {}", what_next(Some(code), &id.to_string()));
            Some(Failure::park(code, message))
        }
        _ => None,
    }
}

fn sentence(one: &TransferDetail) -> String {
    if one.view.direction == Direction::Downlink {
        return returned(one);
    }
    let rows: u64 = one.tables.iter().map(|table| table.rows).sum();
    let packed: u64 = one.tables.iter().map(|table| table.packed_bytes).sum();
    let unchanged = one.tables.iter().filter(|table| table.unchanged).count();
    let job = one.view.job.as_deref().unwrap_or("?");
    let told = if one.view.parked { "parked" } else { one.view.state };
    format!(
        "{job}: transfer {} {told}: {} rows in {} ({unchanged} unchanged), {} bytes sent",
        one.view.transfer,
        output::grouped(rows),
        counted(one.tables.len(), "table", "tables"),
        output::grouped(packed)
    )
}

fn returned(one: &TransferDetail) -> String {
    let told = if one.view.parked { "parked" } else { one.view.state };
    let kind = one.kind.as_deref().unwrap_or("return files");
    let bytes: u64 = one.files.iter().map(|file| file.bytes).sum();
    let folder = one.delivery_folder.as_ref().map(|folder| format!(", to {folder}")).unwrap_or_default();
    let (id, files) = (&one.view.transfer, counted(one.files.len(), "file", "files"));
    format!("{kind}: transfer {id} {told}: {files}, {} bytes{folder}", output::grouped(bytes))
}
