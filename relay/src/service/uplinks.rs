//! `complete` and the status of an uplink.

use std::sync::Arc;

use towpath_journal::{Created, JournalError, NewTransfer, SequenceChoice, TransferRecord};
use towpath_transfer::{
    Code, Direction, Disposition, Failure, JobName, Sequence, TransferEvent, TransferId, TransferState,
    api::{Complete, Trouble, UplinkState, UplinkStatus},
    digest::Sha256Digest,
    failure::{FailureRecord, Result},
    manifest::{MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest},
    name::InvalidName,
    receipt::{ReceiptStage, SignedReceipt},
    state::{Identity, MissingFile, Outcome},
};
use tracing::Instrument as _;

use super::RelayService;
use crate::{
    scope::{AgentScope, not_found},
    spool::{IN_PUBLIC, Room, Spool, blocking},
};

/// What the manifest says that the journal needs; nothing where it is not one of this agent.
#[derive(Debug, Default)]
struct Named {
    sequence: Option<Sequence>,
    job: Option<JobName>,
}

impl RelayService {
    /// Claims in a task of its own: a caller that hangs up, or its timeout, ends the call and not the claim, so that the
    /// folder stays frozen until the journal has the row.
    pub(super) async fn claim(&self, scope: &AgentScope, id: TransferId, complete: &Complete) -> Result<UplinkStatus> {
        let identity = Identity { manifest: complete.manifest, packed: complete.packed };
        let (service, scope) = (self.clone(), scope.clone());
        let claimed = async move { service.claim_frozen(&scope, id, identity).await };
        let claimed = tokio::spawn(claimed.in_current_span()).await;
        claimed.map_err(|e| Failure::retry(Code::Internal, format!("claim transfer {id}")).caused_by(e))?
    }

    async fn claim_frozen(&self, scope: &AgentScope, id: TransferId, identity: Identity) -> Result<UplinkStatus> {
        let known = self.journal.get(&scope.key(id)).await.map_err(Failure::from)?;
        if let Some(record) = known.filter(|record| !matches!(record.state, TransferState::Incomplete { .. })) {
            // Nothing is written, so nobody waits here for whoever has the folder: the fetch of a downlink of this name takes as long
            // as an app server likes.
            let record = self.claim_again(scope, record, identity).await?;
            self.wake.hint();
            return self.status_of(scope, &record).await;
        }
        // Nobody writes between the look at the folder and the row that freezes it.
        let frozen = self.spool.freeze(scope, id).await;
        let found = self.journal.get(&scope.key(id)).await.map_err(Failure::from)?;
        let record = match found {
            None => match self.look(scope, id, identity.manifest).await? {
                Ok(named) => self.create(scope, id, identity, named).await?,
                Err(missing) => return Ok(incomplete(id, missing)),
            },
            Some(record) => self.claim_again(scope, record, identity).await?,
        };
        drop(frozen);
        self.wake.hint();
        self.status_of(scope, &record).await
    }

    /// Looks at the manifest of a transfer that the journal does not know: without it there is nothing to claim.
    async fn look(&self, scope: &AgentScope, id: TransferId, digest: Sha256Digest) -> Result<Result<Named, MissingFile>> {
        let (spool, owner) = (self.spool.clone(), scope.clone());
        let read = blocking(move || {
            let path = spool.path(Room::Uplink, &owner, id, MANIFEST_NAME);
            let size = spool.files().stat(&path).map_or(0, |stat| stat.len);
            if size > MAX_MANIFEST_BYTES as u64 {
                Ok(None)
            } else {
                spool.read(Room::Uplink, &owner, id, MANIFEST_NAME, MAX_MANIFEST_BYTES)
            }
        });
        let missing = |problem: &str| -> Result<Result<Named, MissingFile>> {
            let name = MANIFEST_NAME
                .parse()
                .map_err(|e: InvalidName| Failure::park(Code::Internal, "name the manifest").caused_by(e))?;
            Ok(Err(MissingFile { name, problem: problem.to_owned() }))
        };
        let Some(bytes) = read.await?? else { return missing("is not there") };
        if Sha256Digest::of(&bytes) != digest {
            return missing("is not the one that `complete` named");
        }
        // What is wrong with the named bytes themselves is for `accept` to say.
        let ours = |manifest: &Manifest| {
            manifest.tenant == *scope.tenant().tenant() && manifest.agent == *scope.agent() && manifest.transfer == id
        };
        let named = Manifest::parse(&bytes).ok().filter(ours);
        Ok(Ok(named.map_or_else(Named::default, |m| Named { sequence: Some(m.sequence), job: Some(m.job) })))
    }

    async fn create(&self, scope: &AgentScope, id: TransferId, identity: Identity, named: Named) -> Result<TransferRecord> {
        let new = NewTransfer {
            key: scope.key(id),
            direction: Direction::Uplink,
            job: named.job,
            state: TransferState::Claimed { identity },
            sequence: SequenceChoice::Given(named.sequence),
        };
        let forked = |e: JournalError| match e {
            JournalError::SequenceForked { sequence, .. } => {
                let message =
                    format!("sequence {sequence} was used by another transfer: this agent's state was copied or rolled back");
                tracing::error!(agent = %scope, transfer = %id, code = %Code::SequenceForked, "{message}");
                Failure::park(Code::SequenceForked, message)
            }
            other => other.into(),
        };
        self.journal.create(new).await.map(Created::into_record).map_err(forked)
    }

    async fn claim_again(&self, scope: &AgentScope, record: TransferRecord, identity: Identity) -> Result<TransferRecord> {
        if record.direction != Direction::Uplink {
            return Err(frozen());
        }
        match &record.state {
            TransferState::Incomplete { .. } => {
                let event = TransferEvent::Claimed { identity };
                Ok(self.journal.append_unleased(&record.key, record.events, &event).await.map_err(Failure::from)?)
            }
            TransferState::Claimed { identity: known }
            | TransferState::Accepted { identity: known }
            | TransferState::Forwarded { identity: known } => {
                if *known == identity {
                    Ok(record)
                } else {
                    Err(frozen())
                }
            }
            TransferState::Imported | TransferState::Rejected { .. } | TransferState::Removed { .. } => {
                let known = receipts_of(&self.spool, scope, record.key.id, &[ReceiptStage::Accepted]).await?;
                let manifest = known.first().and_then(|signed| signed.parse().ok()).and_then(|receipt| receipt.manifest);
                if manifest == Some(identity.manifest) { Ok(record) } else { Err(frozen()) }
            }
            _ => Err(strange(&record)),
        }
    }

    pub(super) async fn status(&self, scope: &AgentScope, id: TransferId) -> Result<UplinkStatus> {
        let found = self.journal.get(&scope.key(id)).await.map_err(Failure::from)?;
        let record = found.filter(|record| record.direction == Direction::Uplink).ok_or_else(not_found)?;
        self.status_of(scope, &record).await
    }

    async fn status_of(&self, scope: &AgentScope, record: &TransferRecord) -> Result<UplinkStatus> {
        use ReceiptStage as R;
        let (state, wanted): (_, &'static [R]) = match &record.state {
            TransferState::Claimed { .. } => (UplinkState::Claimed, &[]),
            TransferState::Incomplete { .. } => (UplinkState::Incomplete, &[]),
            TransferState::Accepted { .. } => (UplinkState::Accepted, &[R::Accepted]),
            TransferState::Forwarded { .. } => (UplinkState::Forwarded, &[R::Accepted]),
            TransferState::Imported | TransferState::Removed { outcome: Outcome::Imported } => {
                (UplinkState::Imported, &[R::Accepted, R::Imported])
            }
            TransferState::Rejected { .. } | TransferState::Removed { outcome: Outcome::Rejected(_) } => {
                (UplinkState::Rejected, &[R::Accepted, R::Rejected])
            }
            _ => return Err(strange(record)),
        };
        let missing = match &record.state {
            TransferState::Incomplete { missing } => missing.clone(),
            _ => Vec::new(),
        };
        let receipts = receipts_of(&self.spool, scope, record.key.id, wanted).await?;
        Ok(UplinkStatus { transfer: record.key.id, state, missing, trouble: trouble(record), receipts })
    }
}

/// The receipts of these stages that a transfer has, in this order.
pub(super) async fn receipts_of(
    spool: &Arc<Spool>,
    scope: &AgentScope,
    id: TransferId,
    stages: &'static [ReceiptStage],
) -> Result<Vec<SignedReceipt>> {
    let (spool, scope) = (Arc::clone(spool), scope.clone());
    let read = move || stages.iter().filter_map(|stage| spool.receipt(&scope, id, *stage).transpose()).collect();
    blocking(read).await?
}

fn incomplete(transfer: TransferId, missing: MissingFile) -> UplinkStatus {
    let (state, missing) = (UplinkState::Incomplete, vec![missing]);
    UplinkStatus { transfer, state, missing, trouble: None, receipts: Vec::new() }
}

fn frozen() -> Failure {
    Failure::park(Code::TransferFrozen, "the transfer was completed with other files and cannot be changed any more")
}

pub(super) fn strange(record: &TransferRecord) -> Failure {
    Failure::park(Code::Internal, format!("transfer {} is {} at the relay", record.key, record.state.word()))
}

/// What holds the transfer up, without internals of this machine: those are in the relay's own log.
pub(super) fn trouble(record: &TransferRecord) -> Option<Trouble> {
    let stage = record.stage()?;
    let FailureRecord { code, disposition, report } = record.last_failure.as_ref()?;
    let parked = record.parked || *disposition == Disposition::Park;
    Some(Trouble { code: *code, stage, parked, detail: in_public(*code, report).to_owned() })
}

/// One sentence for the agent's operator.
fn in_public(code: Code, report: &str) -> &'static str {
    match code {
        Code::AppServerMissing => "the tenant has no app server yet",
        Code::AppServerUnreachable => "the tenant's app server does not answer the relay",
        Code::AppServerRefused => "the tenant's app server refuses the relay's files",
        Code::HostKeyUnknown => "the tenant's app server shows another host key than the relay has pinned",
        Code::AuthenticationRefused => "the tenant's app server does not accept the relay's key",
        Code::ManifestInvalid => "the manifest is not one that the relay can accept from this agent",
        Code::PackedListInvalid => "the packed list is not the one of the manifest",
        Code::SignatureInvalid => "the manifest is not signed by the key this agent has enrolled with",
        Code::SequenceForked => "the sequence number belongs to another transfer: the agent's state was copied or rolled back",
        Code::AgentRevoked => "the agent was revoked",
        Code::LimitExceeded => "a limit of the relay was exceeded",
        Code::ExportMissing => "the app server does not have the return files that were announced, or has others",
        Code::SpoolFull => {
            // Which of them it is stands first in what the relay says to itself.
            IN_PUBLIC.into_iter().find(|said| report.starts_with(said)).unwrap_or("the relay has no room")
        }
        Code::DiskFull => "the relay's disk is full",
        _ => "the relay has trouble of its own; its operator can see more",
    }
}
