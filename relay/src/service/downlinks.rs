//! The calls of a downlink: the receiver's `export` and its status, the agent's list.

use std::{collections::VecDeque, time::Duration};

use towpath_journal::{Created, Filter, JournalError, MAX_LIST, NewTransfer, SequenceChoice, TransferRecord};
use towpath_transfer::{
    Code, Direction, Failure, Stage, TransferId, TransferState,
    api::{DownlinkState, Downlinks, Export, ExportStatus, MAX_OFFERS, MAX_WAIT_SECONDS, Offer, Role, Trouble},
    digest::Sha256Digest,
    failure::Result,
    manifest::{MANIFEST_NAME, MAX_MANIFEST_BYTES},
    receipt::ReceiptStage,
    state::Outcome,
};

use super::{
    RelayService,
    uplinks::{receipts_of, strange, trouble},
};
use crate::{
    downlink::alarm::is_overdue,
    scope::{AgentScope, Caller, not_found},
};

impl RelayService {
    /// Takes note of what a receiver has laid out.
    pub(super) async fn announce(&self, scope: &AgentScope, export: &Export) -> Result<ExportStatus> {
        check(export)?;
        let key = scope.key(export.transfer);
        if let Some(record) = self.journal.get(&key).await.map_err(Failure::from)? {
            return self.announced_before(scope, record, export).await;
        }
        let end = self.registry.end(scope.tenant(), scope.agent()).await?;
        end.filter(|end| end.role == Role::Agent && end.revoked.is_none()).ok_or_else(not_found)?;
        self.check_room(scope).await?;
        let new = NewTransfer {
            key,
            direction: Direction::Downlink,
            job: None,
            state: TransferState::Announced { announced: export.announced.clone() },
            sequence: SequenceChoice::Given(Some(export.sequence)),
        };
        let forked = |e: JournalError| match e {
            JournalError::SequenceForked { sequence, .. } => {
                let message =
                    format!("sequence {sequence} was used by another transfer: this receiver's state was copied or rolled back");
                tracing::error!(agent = %scope, transfer = %export.transfer, code = %Code::SequenceForked, "{message}");
                Failure::park(Code::SequenceForked, message)
            }
            other => other.into(),
        };
        match self.journal.create(new).await.map_err(forked)? {
            Created::New(record) => {
                self.wake.hint();
                self.export_status_of(scope, &record).await
            }
            Created::Existing(record) => self.announced_before(scope, record, export).await,
        }
    }

    /// The same announcement again, or another one under the same id.
    async fn announced_before(&self, scope: &AgentScope, record: TransferRecord, export: &Export) -> Result<ExportStatus> {
        let history = self.journal.history(&record.key).await.map_err(Failure::from)?;
        let start = TransferState::Announced { announced: export.announced.clone() };
        if history.start != start || record.sequence != Some(export.sequence) {
            let message = "the transfer was announced as something else and cannot be changed any more";
            return Err(Failure::park(Code::TransferFrozen, message));
        }
        // A receiver that tells again has the files: a pause after they were missing is over.
        if matches!(record.state, TransferState::Announced { .. }) {
            self.journal.unpark(&record.key).await.map_err(Failure::from)?;
            self.wake.hint();
        }
        self.export_status_of(scope, &record).await
    }

    /// Whether one more may be on its way to this agent.
    async fn check_room(&self, scope: &AgentScope) -> Result<()> {
        let most = self.downlinks.waiting;
        let filter = Filter { ended: Some(false), ..downlinks_of(scope) };
        let (mut open, mut below) = (0, None);
        loop {
            let page = self.journal.list(&filter, MAX_LIST, below).await.map_err(Failure::from)?;
            open += page.len();
            if open >= most {
                let message = format!("{most} transfers wait for agent {} already: it has to take some first", scope.agent());
                return Err(Failure::retry(Code::SpoolFull, message));
            }
            if page.len() < MAX_LIST {
                return Ok(());
            }
            below = page.last().map(|record| record.serial);
        }
    }

    pub(super) async fn announced_status(&self, scope: &AgentScope, id: TransferId) -> Result<ExportStatus> {
        let found = self.journal.get(&scope.key(id)).await.map_err(Failure::from)?;
        let record = found.filter(|record| record.direction == Direction::Downlink).ok_or_else(not_found)?;
        self.export_status_of(scope, &record).await
    }

    async fn export_status_of(&self, scope: &AgentScope, record: &TransferRecord) -> Result<ExportStatus> {
        use ReceiptStage as R;
        let (state, wanted): (_, &'static [R]) = match &record.state {
            TransferState::Announced { .. } => (DownlinkState::Announced, &[]),
            TransferState::Fetched { .. } => (DownlinkState::Fetched, &[]),
            TransferState::Packed { .. } => (DownlinkState::Packed, &[]),
            TransferState::Queued { .. } => (DownlinkState::Queued, &[R::Accepted]),
            TransferState::Delivered | TransferState::Removed { outcome: Outcome::Delivered } => {
                (DownlinkState::Delivered, &[R::Accepted, R::Delivered])
            }
            TransferState::Rejected { .. } | TransferState::Removed { outcome: Outcome::Rejected(_) } => {
                (DownlinkState::Rejected, &[R::Accepted, R::Rejected])
            }
            _ => return Err(strange(record)),
        };
        let receipts = receipts_of(&self.spool, scope, record.key.id, wanted).await?;
        let trouble = trouble(record).or_else(|| self.silence(record));
        Ok(ExportStatus { transfer: record.key.id, state, trouble, receipts })
    }

    /// What holds up a transfer that its agent does not take.
    fn silence(&self, record: &TransferRecord) -> Option<Trouble> {
        let (now, after) = (self.clock.now(), self.downlinks.alarm_after);
        is_overdue(record, now, after).then(|| Trouble {
            code: Code::AgentSilent,
            stage: Stage::Pull,
            parked: false,
            detail: "the agent has not taken the files for long".to_owned(),
        })
    }

    /// Waits until the agent's list is another than the known one, or `wait` is over.
    pub(super) async fn offers_unless(&self, caller: &Caller, wait: Duration, unless: Option<Sha256Digest>) -> Result<Downlinks> {
        let scope = caller.as_agent()?;
        let known = unless.unwrap_or_else(|| Downlinks::of(Vec::new()).version);
        // The time runs from the call on, and the hints count from before the first look.
        let mut over = self.clock.sleep(wait.min(Duration::from_secs(MAX_WAIT_SECONDS)));
        let mut waiting = self.arrivals.wait(&scope)?;
        loop {
            if let Some(code) = self.registry.is_out(&caller.user(), &caller.key().fingerprint()).await? {
                return Err(Failure::park(code, format!("{} was revoked, or its key was retired", caller.user())));
            }
            let list = self.offers(&scope).await?;
            if list.version != known || wait.is_zero() {
                return Ok(list);
            }
            tokio::select! {
                biased;
                hinted = waiting.hinted() => hinted?,
                () = &mut over => return Ok(list),
            }
        }
    }

    /// What is queued for an agent, oldest first, as the journal says.
    async fn offers(&self, scope: &AgentScope) -> Result<Downlinks> {
        let filter = Filter { state: Some("queued".to_owned()), ..downlinks_of(scope) };
        // The journal lists the newest first, and the oldest are wanted.
        let (mut oldest, mut below) = (VecDeque::new(), None);
        loop {
            let page = self.journal.list(&filter, MAX_LIST, below).await.map_err(Failure::from)?;
            below = page.last().map(|record| record.serial);
            let last = page.len() < MAX_LIST;
            for record in page {
                oldest.push_front(offer_of(&record)?);
                oldest.truncate(MAX_OFFERS);
            }
            if last {
                return Ok(Downlinks::of(oldest.into()));
            }
        }
    }
}

/// The downlinks of an agent.
fn downlinks_of(scope: &AgentScope) -> Filter {
    Filter {
        tenant: Some(scope.tenant().tenant().clone()),
        agent: Some(scope.agent().clone()),
        direction: Some(Direction::Downlink),
        ..Filter::default()
    }
}

fn offer_of(record: &TransferRecord) -> Result<Offer> {
    match (&record.state, record.sequence) {
        (TransferState::Queued { identity }, Some(sequence)) => {
            Ok(Offer { transfer: record.key.id, sequence, identity: *identity })
        }
        _ => Err(strange(record)),
    }
}

/// What can be said of an announcement without looking at the files.
fn check(export: &Export) -> Result<()> {
    let refused = |why: String| Failure::park(Code::RequestInvalid, format!("the announcement was not accepted: {why}"));
    let name = export.announced.path.file_name().map(|name| name.as_str());
    if name != Some(MANIFEST_NAME) {
        return Err(refused(format!("its path does not end in {MANIFEST_NAME}")));
    }
    if export.announced.size > MAX_MANIFEST_BYTES as u64 {
        return Err(refused(format!("its manifest is larger than {MAX_MANIFEST_BYTES} bytes")));
    }
    Ok(())
}
