//! `sent`: what was sent to the ERP, and how far it has come.

use jiff::Timestamp;
use serde::Serialize;
use towpath_journal::{Filter, Journal as _, MAX_LIST, TransferRecord};
use towpath_transfer::{
    AgentName, Code, Direction, Failure, JobName, ReturnKind, Sequence, TransferId, TransferKey, TransferState,
    api::{DownlinkState, ExportStatus},
    failure::FailureRecord,
    manifest::Manifest,
    state::Outcome,
};
use towpath_transport::{
    files::{Disk, FileStore as _},
    relay_api::{HttpRelayApi, RelayApi as _},
};

use super::{args::StatusArgs, output};
use crate::{downlink::take, host::Host, kept, layout::Layout};

/// Transfers about which the relay is asked in one go.
const MAX_ASKED: usize = 100;

/// A file that was sent.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SentFile {
    pub(super) name: String,
    pub(super) size: u64,
}

/// What is known of the content of a transfer to the ERP.
pub(super) struct Content {
    pub(super) kind: ReturnKind,
    pub(super) files: Vec<SentFile>,
}

/// A transfer to the ERP, as `sent --json` prints it.
#[derive(Serialize)]
pub(super) struct Sent {
    transfer: TransferId,
    agent: AgentName,
    kind: Option<ReturnKind>,
    job: Option<JobName>,
    sequence: Option<Sequence>,
    files: Vec<SentFile>,
    /// How far it has come, on whichever machine: taken, exported, notified, announced, fetched, packed, queued, delivered or
    /// rejected.
    stage: String,
    parked: bool,
    trouble: Option<SentTrouble>,
    created: Timestamp,
    changed: Timestamp,
}

/// What holds a transfer up, or why it was rejected.
#[derive(Serialize)]
struct SentTrouble {
    code: Code,
    detail: String,
}

/// What `sent --json` prints.
#[derive(Serialize)]
struct Listed {
    relay_asked: bool,
    transfers: Vec<Sent>,
}

pub(super) async fn sent(host: &Host, args: &StatusArgs) -> Result<(), Failure> {
    let journal = host.journal().await?;
    let downlinks = Filter { direction: Some(Direction::Downlink), ..Filter::default() };
    let mut records = journal.list(&downlinks, args.limit.min(MAX_LIST), None).await?;
    // What is still under way is shown however old it is.
    for open in journal.list(&Filter { ended: Some(false), ..downlinks }, MAX_LIST, None).await? {
        if !records.iter().any(|record| record.serial == open.serial) {
            records.push(open);
        }
    }
    journal.close().await;
    let mut relay = Asked { relay: host.relay().ok(), asked: 0 };
    let mut transfers = Vec::new();
    for record in records {
        let status = relay.about(&record).await;
        transfers.push(view(host.layout(), record, status));
    }
    let relay_asked = relay.relay.is_some();
    if args.json {
        return output::json(&Listed { relay_asked, transfers });
    }
    let rows = transfers.iter().flat_map(rows).collect();
    output::table(&["file", "transfer", "agent", "kind", "stage", "remark"], rows, "nothing was sent yet")
}

/// The relay, asked about what it was told of until it does not answer.
struct Asked {
    relay: Option<HttpRelayApi>,
    asked: usize,
}

impl Asked {
    async fn about(&mut self, record: &TransferRecord) -> Option<ExportStatus> {
        if !matches!(record.state, TransferState::Notified { .. }) || self.asked >= MAX_ASKED {
            return None;
        }
        self.asked += 1;
        match self.relay.as_ref()?.export_status(&record.key.agent, record.key.id).await {
            Ok(status) => Some(status),
            // It is told once more by `serve`.
            Err(failure) if failure.code() == Code::NotFound => None,
            Err(failure) => {
                output::say(&format!("warning: only what is known here is shown: {}", failure.report()));
                self.relay = None;
                None
            }
        }
    }
}

/// A transfer as it is told, with what the relay says of it.
pub(super) fn view(layout: &Layout, record: TransferRecord, status: Option<ExportStatus>) -> Sent {
    let content = content(layout, &record.key);
    let trouble = trouble(&record, status.as_ref());
    Sent {
        transfer: record.key.id,
        kind: content.as_ref().map(|content| content.kind.clone()),
        files: content.map(|content| content.files).unwrap_or_default(),
        stage: status.and_then(|status| at_relay(status.state)).unwrap_or(record.state.word()).to_owned(),
        agent: record.key.agent,
        job: record.job,
        sequence: record.sequence,
        parked: record.parked,
        trouble,
        created: record.created,
        changed: record.changed,
    }
}

fn trouble(record: &TransferRecord, status: Option<&ExportStatus>) -> Option<SentTrouble> {
    if let TransferState::Rejected { rejection } | TransferState::Decided { outcome: Outcome::Rejected(rejection) } =
        &record.state
    {
        return Some(SentTrouble { code: rejection.code, detail: rejection.detail.clone() });
    }
    if let Some(FailureRecord { code, report, .. }) = &record.last_failure {
        let detail = report.strip_suffix(&format!(" [{code}]")).unwrap_or(report).to_owned();
        return Some(SentTrouble { code: *code, detail });
    }
    let trouble = status?.trouble.as_ref()?;
    Some(SentTrouble { code: trouble.code, detail: format!("the relay reports at {}: {}", trouble.stage, trouble.detail) })
}

/// How far it is by the relay's word. That it has ended is the agent's to say: only its receipt counts, once it is here.
const fn at_relay(state: DownlinkState) -> Option<&'static str> {
    match state {
        DownlinkState::Announced => Some("announced"),
        DownlinkState::Fetched => Some("fetched"),
        DownlinkState::Packed => Some("packed"),
        DownlinkState::Queued => Some("queued"),
        DownlinkState::Delivered | DownlinkState::Rejected => None,
    }
}

fn rows(sent: &Sent) -> Vec<Vec<String>> {
    let stage = if sent.parked { format!("{} (parked)", sent.stage) } else { sent.stage.clone() };
    let kind = sent.kind.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
    let remark = sent.trouble.as_ref().map_or_else(String::new, |trouble| format!("{}: {}", trouble.code, trouble.detail));
    let mut names: Vec<String> = sent.files.iter().map(|file| file.name.clone()).collect();
    if names.is_empty() {
        names.push("?".to_owned());
    }
    let row =
        |name: String| vec![name, sent.transfer.to_string(), sent.agent.to_string(), kind.clone(), stage.clone(), remark.clone()];
    names.into_iter().map(row).collect()
}

/// What a transfer to the ERP holds, by its manifest, or by what was taken where there is none yet.
pub(super) fn content(layout: &Layout, key: &TransferKey) -> Option<Content> {
    for folder in [layout.receipts(key), layout.laid_out(key)] {
        let Some((bytes, _)) = kept::manifest(&Disk, &folder).ok().flatten() else { continue };
        let Ok(manifest) = Manifest::parse(&bytes) else { continue };
        let files = manifest.files.iter().map(|file| SentFile { name: file.name.to_string(), size: file.size }).collect();
        return Some(Content { kind: manifest.kind?, files });
    }
    let request = take::request_at(&Disk, layout, key).ok()?;
    let sized = |name: &towpath_transfer::FileName| {
        let size = Disk.stat(&take::file_path(layout, key, name)).map_or(0, |stat| stat.len);
        SentFile { name: name.to_string(), size }
    };
    Some(Content { kind: request.kind, files: request.files.iter().map(sized).collect() })
}
