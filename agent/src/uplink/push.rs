//! Stage `push`: every file to the relay, the manifest last, then `complete`.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use towpath_journal::{Lease, Step, StepOutcome};
use towpath_transfer::{
    Code, Failure, FileName, RemotePath, Stage, TransferEvent, TransferId, TransferState,
    api::{Complete, UplinkState, UplinkStatus},
    manifest::{MANIFEST_NAME, MAX_FILES, SIGNATURE_NAME},
    packed::{MD5SUMS_NAME, PACKED_NAME, PART_SUFFIX},
    state::{Identity, MissingFile, Place},
};
use towpath_transport::{
    files::file_failure,
    store::{Far, FileSource, Progress as Advance, RemoteStore, Retry, RetryPolicy, StoreError, StoreErrorKind},
};

use super::{
    folder::{self, own_name},
    receipt::kept_outcome,
};
use crate::parts::{Parts, Progress};

/// How often one step sends again what the relay misses before it pauses.
pub const MAX_ROUNDS: u32 = 3;
/// The most names that a transfer's folder on the relay may have while it is looked through.
pub const MAX_REMOTE_NAMES: usize = 2 * MAX_FILES + 16;
/// What describes a transfer, in the order in which it travels: the manifest last.
const DESCRIPTIONS: [&str; 4] = [MD5SUMS_NAME, PACKED_NAME, SIGNATURE_NAME, MANIFEST_NAME];
/// Names that stand in one message.
const NAMED_FILES: usize = 5;

/// Stage `push`.
#[derive(Debug, Clone)]
pub struct PushStep {
    /// What it touches.
    pub parts: Arc<Parts>,
}

#[async_trait]
impl Step for PushStep {
    fn place(&self) -> Place {
        Place::Agent
    }

    fn stage(&self) -> Stage {
        Stage::Push
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let parts = &*self.parts;
        let id = lease.record.key.id;
        let TransferState::Packed { identity } = lease.record.state else {
            return Err(Failure::park(Code::Internal, format!("transfer {id} is not packed")));
        };
        let Identity { manifest, packed } = identity;
        // It was sent before, and ended: nobody needs it any more, and what it has packed may be gone.
        if kept_outcome(parts, id, manifest)?.is_some() {
            return Ok(StepOutcome::Event(TransferEvent::Pushed));
        }
        let complete = Complete { manifest, packed };
        let status = match parts.relay.uplink(id).await {
            Ok(status) => Some(status),
            Err(failure) if failure.code() == Code::NotFound => None,
            Err(failure) => return Err(failure),
        };
        let mut missing = match status {
            // An earlier `complete` got through and its answer was lost: the folder is frozen and there is nothing to send.
            Some(status) if status.state != UplinkState::Incomplete => {
                parts.relay.complete(id, &complete).await?;
                return Ok(StepOutcome::Event(TransferEvent::Pushed));
            }
            Some(status) => status.missing,
            None => Vec::new(),
        };
        for _ in 0..MAX_ROUNDS {
            self.send(id, &missing).await?;
            let status = parts.relay.complete(id, &complete).await?;
            if status.state != UplinkState::Incomplete {
                return Ok(StepOutcome::Event(TransferEvent::Pushed));
            }
            missing = wanted(status)?;
        }
        Err(still_missing(id, &missing))
    }
}

fn wanted(status: UplinkStatus) -> Result<Vec<MissingFile>, Failure> {
    if status.missing.is_empty() {
        let message = format!("the relay calls transfer {} incomplete and names nothing", status.transfer);
        return Err(Failure::retry(Code::TransferIncomplete, message));
    }
    Ok(status.missing)
}

fn still_missing(id: TransferId, missing: &[MissingFile]) -> Failure {
    let named: Vec<String> = missing.iter().take(NAMED_FILES).map(|file| format!("{} {}", file.name, file.problem)).collect();
    let message = format!("the relay still misses {} files of transfer {id} ({})", missing.len(), named.join(", "));
    Failure::retry(Code::TransferIncomplete, message)
}

impl PushStep {
    async fn send(&self, id: TransferId, missing: &[MissingFile]) -> Result<(), Failure> {
        let parts = &*self.parts;
        let retrying =
            Retry::new(Arc::clone(&parts.stores), RetryPolicy::default(), Arc::clone(&parts.clock), Arc::clone(&parts.entropy));
        let uploads = Uploads::over(parts, Arc::new(retrying), id)?;
        let names = names_in_order(parts, id)?;
        uploads.prepare(&names, missing).await?;
        for name in &names {
            if describes(name.as_str()) {
                // The relay names no signature that differs, and one that an extract begun anew has left is as long as the new one.
                uploads.put(name).await?;
            } else {
                uploads.put_unless_there(name).await?;
            }
        }
        Ok(())
    }
}

/// What travels, in the order in which it travels.
fn names_in_order(parts: &Parts, id: TransferId) -> Result<Vec<FileName>, Failure> {
    let list = folder::packed_list(&*parts.files, &parts.layout, id)?;
    let mut names: Vec<FileName> = list.files.into_iter().map(|file| file.name).collect();
    for own in DESCRIPTIONS {
        names.push(own_name(own)?);
    }
    Ok(names)
}

fn describes(name: &str) -> bool {
    DESCRIPTIONS.contains(&name)
}

/// The transfer's folder in the agent's root at the relay.
pub(crate) fn remote_folder(id: TransferId) -> Result<RemotePath, Failure> {
    let root = RemotePath::root().join(own_name("uplink")?);
    root.and_then(|uplink| id.to_string().parse().and_then(|name| uplink.join(name)))
        .map_err(|error| Failure::park(Code::Internal, format!("the far folder of transfer {id}")).caused_by(error))
}

/// One transfer's files on their way to the relay.
pub(crate) struct Uploads<'a> {
    parts: &'a Parts,
    pub(crate) store: Arc<dyn RemoteStore>,
    id: TransferId,
    folder: RemotePath,
}

impl<'a> Uploads<'a> {
    /// Sends over `store`.
    pub(crate) fn over(parts: &'a Parts, store: Arc<dyn RemoteStore>, id: TransferId) -> Result<Self, Failure> {
        Ok(Self { parts, store, id, folder: remote_folder(id)? })
    }

    /// Makes the folder, and removes from it what the relay found wrong and what is not of this transfer: an extract that was
    /// begun anew may have left files of another content or name there.
    async fn prepare(&self, names: &[FileName], missing: &[MissingFile]) -> Result<(), Failure> {
        self.store.make_dir_all(&self.folder).await.map_err(far)?;
        let known: BTreeSet<&str> = names.iter().map(FileName::as_str).collect();
        let wrong: BTreeSet<&str> = missing.iter().map(|file| file.name.as_str()).collect();
        for entry in self.store.list(&self.folder, MAX_REMOTE_NAMES).await.map_err(far)? {
            let whole = entry.name.as_str();
            // Where a server cannot compare what is there, a part is gone on with by its length: too weak for the small files.
            let goes_on = |name: &str| known.contains(name) && !wrong.contains(name) && !describes(name);
            let is_part = whole.strip_suffix(PART_SUFFIX).is_some_and(goes_on);
            if is_part || (known.contains(whole) && !wrong.contains(whole)) {
                continue;
            }
            self.store.remove(&self.path(&entry.name)?).await.map_err(far)?;
        }
        Ok(())
    }

    /// For a packed file, which takes long to send.
    async fn put_unless_there(&self, name: &FileName) -> Result<(), Failure> {
        let local = self.parts.layout.sent(self.id, name);
        let size = self.parts.files.stat(&local).map_err(|error| file_failure("looking at", &local, error))?.len;
        match self.store.stat(&self.path(name)?).await {
            // Equal length is enough here: the relay compares every digest at `complete` and names what differs.
            Ok(there) if there.size == size => {
                self.parts.watcher.progress(self.id, &Progress::Sent { name: name.clone(), done: size, total: size });
                Ok(())
            }
            Ok(_) => self.put(name).await,
            Err(error) if error.kind() == StoreErrorKind::NotFound => self.put(name).await,
            Err(error) => Err(far(error)),
        }
    }

    /// Sends one file under its part name and gives it its own name.
    pub(crate) async fn put(&self, name: &FileName) -> Result<(), Failure> {
        let whole = self.path(name)?;
        let part = name
            .with_suffix(PART_SUFFIX)
            .map_err(|error| Failure::park(Code::Internal, format!("the part name of {name}")).caused_by(error))?;
        let part = self.path(&part)?;
        let source = FileSource::new(Arc::clone(&self.parts.files), self.parts.layout.sent(self.id, name));
        let shown = Shown { parts: self.parts, id: self.id, name };
        let lost = |error: StoreError| match error.kind() {
            StoreErrorKind::NotFound => gone_there(name, error),
            _ => far(error),
        };
        self.store.put_new(&part, source, &shown).await.map_err(lost)?;
        self.store.publish(&part, &whole).await.map_err(lost)
    }

    fn path(&self, name: &FileName) -> Result<RemotePath, Failure> {
        let joined = self.folder.clone().join(name.clone());
        joined.map_err(|error| Failure::park(Code::Internal, format!("the far path of {name}")).caused_by(error))
    }
}

/// A folder that the relay has frozen meanwhile answers like one that is not ours: the next try asks the web service first. What the relay
/// answers wrongly may be right again later, too.
fn far(error: StoreError) -> Failure {
    let code = match error.kind() {
        StoreErrorKind::Denied => Code::RequestInvalid,
        StoreErrorKind::Protocol | StoreErrorKind::Unsupported | StoreErrorKind::Exists => Code::RelayProtocol,
        _ => return error.into_failure(Far::Relay),
    };
    Failure::retry(code, "sending to the relay").caused_by(error)
}

/// The folder was there, or the part: a relay whose power has gone has what is durable, and a name is that only when the file is whole.
fn gone_there(name: &FileName, error: StoreError) -> Failure {
    let message = format!("the relay does not have any more what it was sent of {name}; it is sent again");
    Failure::retry(Code::TransferIncomplete, message).caused_by(error)
}

struct Shown<'a> {
    parts: &'a Parts,
    id: TransferId,
    name: &'a FileName,
}

impl Advance for Shown<'_> {
    fn advanced(&self, done: u64, total: u64) {
        self.parts.watcher.progress(self.id, &Progress::Sent { name: self.name.clone(), done, total });
    }
}
