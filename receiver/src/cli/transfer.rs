//! `status`, `show` and `retry`

use std::{collections::BTreeSet, path::PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use towpath_journal::{Filter, Journal, MAX_LIST, TransferRecord};
use towpath_transfer::{
    AgentName, Code, Direction, Failure, JobName, ReturnKind, Sequence, Stage, TenantName, TransferEvent, TransferId,
    TransferKey,
    failure::FailureRecord,
    public_key::Fingerprint,
    state::{Outcome, Rejection, TransferState},
};
use towpath_transport::files::{Disk, FileKind, FileStore as _};

use super::{
    args::{RetryArgs, StatusArgs, TransferArgs},
    output,
    sent::{self, SentFile},
    tables::{self, ShownTable},
};
use crate::{
    host::{Host, Listening},
    layout::Layout,
    restored::{self, Lacking},
};

/// A transfer, as `status --json` and `show --json` print it.
#[derive(Serialize)]
struct Transfer {
    tenant: TenantName,
    agent: AgentName,
    transfer: TransferId,
    direction: Direction,
    job: Option<JobName>,
    sequence: Option<Sequence>,
    state: &'static str,
    stage: Option<Stage>,
    parked: bool,
    attempts: u32,
    created: Timestamp,
    changed: Timestamp,
    next_try: Option<Timestamp>,
    failure: Option<FailureRecord>,
    rejection: Option<Rejection>,
}

/// What `status --json` prints.
#[derive(Serialize)]
struct Status {
    tenant: TenantName,
    fingerprint: Fingerprint,
    serving: bool,
    listening: Option<Listening>,
    app_restored: Vec<Lacking>,
    counts: Vec<Count>,
    transfers: Vec<Transfer>,
}

#[derive(Serialize)]
struct Count {
    state: String,
    stage: Option<Stage>,
    parked: bool,
    transfers: u64,
}

/// What `show --json` prints.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    transfer: Transfer,
    events: Vec<Event>,
    receipts: Vec<PathBuf>,
    quarantine: Option<PathBuf>,
    kind: Option<ReturnKind>,
    files: Vec<SentFile>,
    tables: Vec<ShownTable>,
}

#[derive(Serialize)]
struct Event {
    at: Timestamp,
    event: TransferEvent,
}

impl From<TransferRecord> for Transfer {
    fn from(record: TransferRecord) -> Self {
        let stage = record.stage();
        let rejection = match &record.state {
            TransferState::Rejected { rejection }
            | TransferState::Decided { outcome: Outcome::Rejected(rejection), .. }
            | TransferState::Removed { outcome: Outcome::Rejected(rejection) } => Some(rejection.clone()),
            _ => None,
        };
        Self {
            tenant: record.key.tenant,
            agent: record.key.agent,
            transfer: record.key.id,
            direction: record.direction,
            job: record.job,
            sequence: record.sequence,
            state: record.state.word(),
            stage,
            parked: record.parked,
            attempts: record.attempts,
            created: record.created,
            changed: record.changed,
            next_try: record.not_before,
            failure: record.last_failure,
            rejection,
        }
    }
}

impl Transfer {
    /// What a person has to know about it in one line.
    fn remark(&self) -> String {
        match (&self.failure, &self.rejection) {
            (Some(failure), _) if self.parked => format!("waits for a person: {}", failure.report),
            (_, Some(why)) => format!("{}: {}", why.code, why.detail),
            (Some(failure), None) => format!("tried again: {}", failure.report),
            (None, None) => String::new(),
        }
    }
}

pub(super) async fn status(host: &Host, args: &StatusArgs) -> Result<(), Failure> {
    let enrolment = host.enrolment()?;
    let journal = host.journal().await?;
    let mut records = journal.list(&Filter::default(), args.limit.min(MAX_LIST), None).await?;
    // What waits for a person is shown however old it is.
    for parked in journal.list(&Filter { parked: Some(true), ..Filter::default() }, MAX_LIST, None).await? {
        if !records.iter().any(|record| record.serial == parked.serial) {
            records.push(parked);
        }
    }
    let counts = journal.counts().await?.into_iter();
    let counts = counts.map(|c| Count { state: c.state, stage: c.stage, parked: c.parked, transfers: c.transfers }).collect();
    journal.close().await;
    let serving = host.is_serving()?;
    let status = Status {
        tenant: enrolment.tenant,
        fingerprint: host.identity()?.fingerprint(),
        serving,
        listening: if serving { host.listening()? } else { None },
        app_restored: restored::known(&Disk, host.layout())?,
        counts,
        transfers: records.into_iter().map(Transfer::from).collect(),
    };
    if args.json { output::json(&status) } else { tell_status(&status) }
}

fn tell_status(status: &Status) -> Result<(), Failure> {
    let serving = match &status.listening {
        Some(listening) if !listening.listen.is_empty() => {
            let addresses: Vec<String> = listening.listen.iter().map(ToString::to_string).collect();
            format!("serving on {}", addresses.join(", "))
        }
        _ if status.serving => "serving".to_owned(),
        _ => "not running; start: systemctl start towpath-receiver, or in a terminal: towpath-receiver serve".to_owned(),
    };
    output::line(&format!("receiver of tenant {}, {serving}", status.tenant))?;
    output::line(&format!("fingerprint {}", status.fingerprint))?;
    for Lacking { agent, job, transfer, since } in &status.app_restored {
        let since = since.strftime("%Y-%m-%d %H:%M:%SZ");
        output::line(&format!(
            "{}: the app database of {agent}/{job} lacks transfer {transfer}, noticed {since}; the job's next transfer mends it",
            Code::AppRestored
        ))?;
    }
    for count in &status.counts {
        let parked = if count.parked { ", waiting for a person" } else { "" };
        output::line(&format!("{} {}{parked}", count.transfers, count.state))?;
    }
    let rows = status.transfers.iter().map(|transfer| {
        let state = if transfer.parked { format!("{} (parked)", transfer.state) } else { transfer.state.to_owned() };
        let changed = transfer.changed.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let (id, direction) = (transfer.transfer.to_string(), transfer.direction.to_string());
        vec![id, direction, transfer.agent.to_string(), state, changed, transfer.remark()]
    });
    let head = ["transfer", "direction", "agent", "state", "changed", "remark"];
    output::table(&head, rows.collect(), "nothing has landed yet, and nothing was sent")?;
    if status.transfers.iter().any(|transfer| transfer.parked) {
        output::say("a parked transfer goes on after: towpath-receiver retry TRANSFER");
    }
    Ok(())
}

pub(super) async fn show(host: &Host, args: &TransferArgs) -> Result<(), Failure> {
    let journal = host.journal().await?;
    let record = find(host, &journal, args.transfer, args.agent.as_ref()).await?;
    let history = journal.history(&record.key).await?;
    journal.close().await;
    let layout = host.layout();
    let quarantine = layout.quarantined(&record.key.agent, record.key.id);
    let sent = if record.direction == Direction::Downlink { sent::content(layout, &record.key) } else { None };
    let from_erp = record.direction == Direction::Uplink;
    let shown = Shown {
        tables: if from_erp { tables::tables(layout, &record.key) } else { Vec::new() },
        kind: sent.as_ref().map(|sent| sent.kind.clone()),
        files: sent.map(|sent| sent.files).unwrap_or_default(),
        receipts: receipts(layout, &record.key),
        quarantine: Disk.stat(&quarantine).is_ok().then_some(quarantine),
        transfer: record.into(),
        events: history.entries.into_iter().map(|entry| Event { at: entry.at, event: entry.event }).collect(),
    };
    if args.json {
        return output::json(&shown);
    }
    let transfer = &shown.transfer;
    let whose = if transfer.direction == Direction::Uplink { "of" } else { "to" };
    output::line(&format!("{} {} {whose} agent {}: {}", transfer.direction, transfer.transfer, transfer.agent, transfer.state))?;
    let remark = transfer.remark();
    if !remark.is_empty() {
        output::line(&remark)?;
    }
    for file in &shown.files {
        output::line(&format!("{} ({} bytes)", file.name, file.size))?;
    }
    if !shown.tables.is_empty() {
        output::table(&tables::HEAD, shown.tables.iter().map(ShownTable::row).collect(), "")?;
    }
    let begun = if transfer.direction == Direction::Uplink { "landed" } else { "taken" };
    let first = vec![transfer.created.to_string(), begun.to_owned()];
    let events = shown.events.iter().map(|event| vec![event.at.to_string(), word(&event.event).to_owned()]);
    output::table(&["time", "event"], std::iter::once(first).chain(events).collect(), "")?;
    for path in shown.receipts.iter().chain(&shown.quarantine) {
        output::line(&path.display().to_string())?;
    }
    Ok(())
}

/// What happened, in the words of the states.
fn word(event: &TransferEvent) -> &'static str {
    match event {
        TransferEvent::Verified { .. } => "verified",
        TransferEvent::Decided { outcome: Outcome::Imported } => "decided: imported",
        TransferEvent::Decided { outcome: Outcome::Rejected(_) } => "decided: rejected",
        TransferEvent::Settled { outcome: Outcome::Delivered } => "settled: the agent has delivered it",
        TransferEvent::Settled { .. } => "settled: the receipt is where it belongs",
        TransferEvent::Exported { .. } => "exported: signed, and laid out for the relay",
        TransferEvent::Notified => "notified: the relay was told",
        TransferEvent::NotifyAgain => "the relay did not know it any more",
        _ => "other",
    }
}

pub(super) async fn retry(host: &Host, args: &RetryArgs) -> Result<(), Failure> {
    let journal = host.journal().await?;
    let record = find(host, &journal, args.transfer, args.agent.as_ref()).await?;
    let Some(stage) = record.stage() else {
        let told = format!("transfer {} is {}: nothing is left to try", args.transfer, record.state.word());
        return Err(Failure::park(Code::RequestInvalid, told));
    };
    journal.unpark(&record.key).await?;
    journal.close().await;
    output::line(&format!("transfer {} goes on with {stage}", args.transfer))
}

/// The transfer of this id, whichever agent's it is.
pub(super) async fn find(
    host: &Host,
    journal: &dyn Journal,
    id: TransferId,
    agent: Option<&AgentName>,
) -> Result<TransferRecord, Failure> {
    let tenant = host.enrolment()?.tenant;
    let agents = match agent {
        Some(agent) => BTreeSet::from([agent.clone()]),
        None => agents(host.layout()),
    };
    let mut found = Vec::new();
    for agent in agents {
        found.extend(journal.get(&TransferKey { tenant: tenant.clone(), agent, id }).await?);
    }
    if found.len() > 1 {
        return Err(Failure::park(Code::RequestInvalid, format!("several agents have a transfer {id}; add --agent NAME")));
    }
    found.pop().ok_or_else(|| Failure::park(Code::NotFound, format!("there is no transfer {id} in the journal")))
}

/// Every agent that has left a trace here.
fn agents(layout: &Layout) -> BTreeSet<AgentName> {
    const MOST: usize = 10_000;
    let roots = [
        layout.landing().join("uplink"),
        layout.landing_downlink(),
        layout.exports(),
        layout.all_receipts(),
        layout.quarantine(),
    ];
    let entries = roots.iter().flat_map(|root| Disk.list(root, None, MOST).unwrap_or_default());
    entries.filter(|entry| entry.stat.kind == FileKind::Dir).filter_map(|entry| entry.name.parse().ok()).collect()
}

fn receipts(layout: &Layout, key: &TransferKey) -> Vec<PathBuf> {
    const MOST: usize = 10;
    let folder = layout.receipts(key);
    let entries = Disk.list(&folder, None, MOST).unwrap_or_default();
    entries.into_iter().filter(|entry| entry.stat.kind == FileKind::File).map(|entry| folder.join(entry.name)).collect()
}
