//! `send`: files for the ERP.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use towpath_journal::{Journal, TransferRecord};
use towpath_transfer::{Clock, Code, Failure, TransferId, TransferKey, TransferState};

use super::{
    args::SendArgs,
    output,
    sent::{Sent, view},
};
use crate::{
    agents::addressee,
    downlink::take::{self, Request, Source, travelling_name},
    host::Host,
    parts::Parts,
};

/// How often the journal is asked while somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the own `serve` may take to stop when it is not needed any more.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// What `send --json` prints.
#[derive(Serialize)]
struct Outcome {
    ok: bool,
    serving: bool,
    #[serde(flatten)]
    transfer: Sent,
}

pub(super) async fn send(host: &Host, args: &SendArgs) -> Result<(), Failure> {
    let parts = Arc::new(host.parts().await?);
    let record = taken(&parts, args).await?;
    let id = record.key.id;
    if !args.wait {
        let serving = host.is_serving()?;
        if args.json {
            return output::json(&Outcome { ok: true, serving, transfer: view(host.layout(), record, None) });
        }
        output::line(&id.to_string())?;
        output::say(if serving {
            "taken; see how far it has come: towpath-receiver sent"
        } else {
            "taken; it goes once the receiver runs: systemctl start towpath-receiver, or in a terminal: towpath-receiver serve"
        });
        return Ok(());
    }
    if !args.json {
        output::line(&id.to_string())?;
    }
    let ended = followed(host, &parts, &record.key, args.timeout.0).await?;
    let problem = problem(&ended);
    if args.json {
        let serving = host.is_serving()?;
        output::json(&Outcome { ok: problem.is_none(), serving, transfer: view(host.layout(), ended, None) })?;
    } else if problem.is_none() {
        output::line(&format!("delivered to the ERP by agent {}", record.key.agent))?;
    }
    problem.map_or(Ok(()), Err)
}

/// Copies the files and notes the transfer.
async fn taken(parts: &Arc<Parts>, args: &SendArgs) -> Result<TransferRecord, Failure> {
    let agent = addressee(&parts.trust.signers()?, args.to.as_ref())?;
    let sources = args.files.iter().map(|path| source(path)).collect::<Result<Vec<Source>, Failure>>()?;
    let request = Request {
        version: 1,
        agent,
        kind: args.kind.clone(),
        job: args.job.clone(),
        taken: parts.clock.now(),
        files: sources.iter().map(|source| source.name.clone()).collect(),
    };
    let id = TransferId::new(&*parts.clock, &*parts.entropy);
    take::take(parts, id, &request, &sources)?;
    take::note(parts, id, &request).await.map_err(|failure| {
        let told = format!(
            "the files were taken as transfer {id}, but the journal could not note that; serve does so when it starts or within the \
             hour, so do not send them again"
        );
        Failure::retry(failure.code(), told).caused_by(failure)
    })
}

/// A file that a person has named; a link is followed, for that is what was meant.
fn source(given: &Path) -> Result<Source, Failure> {
    let unread = |error: std::io::Error| {
        let whom = if error.kind() == std::io::ErrorKind::PermissionDenied {
            " by the user whom the state folder belongs to, as whom this command goes on: let that user read it"
        } else {
            ""
        };
        Failure::park(Code::ExportRefused, format!("{} cannot be read{whom}", given.display())).caused_by(error)
    };
    let path: PathBuf = std::fs::canonicalize(given).map_err(unread)?;
    let name = given.file_name().or_else(|| path.file_name()).and_then(|name| name.to_str());
    let nameless = || Failure::park(Code::ExportRefused, format!("the name of {} is not UTF-8", given.display()));
    Ok(Source { name: travelling_name(name.ok_or_else(nameless)?)?, path })
}

/// Waits until a transfer has ended or waits for a person; serves meanwhile where nobody else does.
async fn followed(host: &Host, parts: &Parts, key: &TransferKey, patience: Duration) -> Result<TransferRecord, Failure> {
    let (journal, clock) = (&*parts.journal, &*parts.clock);
    if host.is_serving()? {
        return followed_by(journal, clock, key, patience).await;
    }
    output::say("no serve runs on this state folder; this command serves until the receipt is here");
    let shutdown = CancellationToken::new();
    let mut serving = std::pin::pin!(host.serve(None, shutdown.clone(), || ()));
    let following = followed_by(journal, clock, key, patience);
    let mut following = std::pin::pin!(following);
    tokio::select! {
        done = &mut following => {
            shutdown.cancel();
            // What does not stop in time is as after a power cut, from which the next start goes on.
            let _ = tokio::time::timeout(STOP_WITHIN, serving).await;
            done
        }
        stopped = &mut serving => match stopped {
            // Somebody else has begun to serve in between, and does the work.
            Err(failure) if failure.code() == Code::AlreadyRunning => following.await,
            Err(failure) => Err(failure),
            Ok(()) => Err(Failure::retry(Code::Cancelled, format!("serving has ended before transfer {} has", key.id))),
        },
    }
}

async fn followed_by(
    journal: &dyn Journal,
    clock: &dyn Clock,
    key: &TransferKey,
    patience: Duration,
) -> Result<TransferRecord, Failure> {
    let until = clock.monotonic().saturating_add(patience);
    loop {
        let record = journal.get(key).await?;
        let record = record.ok_or_else(|| Failure::park(Code::NotFound, format!("there is no transfer {} any more", key.id)))?;
        if record.is_over() || record.parked {
            return Ok(record);
        }
        if clock.monotonic() >= until {
            let told = format!(
                "transfer {} is {} after {} s; it goes on with serve, see: towpath-receiver sent",
                key.id,
                record.state.word(),
                patience.as_secs()
            );
            return Err(match record.last_failure {
                Some(why) => Failure::retry(why.code, told).caused_by(why.report),
                None => Failure::retry(Code::Cancelled, told),
            });
        }
        clock.sleep(LOOK_EVERY).await;
    }
}

/// Why a transfer that is not waited for any more is no success.
fn problem(record: &TransferRecord) -> Option<Failure> {
    let id = record.key.id;
    match &record.state {
        TransferState::Rejected { rejection } => {
            let told = format!("transfer {id} was rejected by the agent: {}", rejection.detail);
            Some(Failure::park(rejection.code, told))
        }
        TransferState::Delivered => None,
        _ => {
            let (code, why) = record
                .last_failure
                .as_ref()
                .map_or((Code::Internal, "the reason is not known".to_owned()), |failure| (failure.code, failure.report.clone()));
            let told = format!("transfer {id} waits for you: {why}; when it is mended, run: towpath-receiver retry {id}");
            Some(Failure::park(code, told))
        }
    }
}
