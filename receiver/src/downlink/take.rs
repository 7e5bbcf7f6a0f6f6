//! What is to be sent back is taken: copied, durable, and noted in the journal. From then on the originals are not needed.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_journal::{NewTransfer, SequenceChoice, TransferRecord};
use towpath_transfer::{
    AgentName, Code, Direction, Failure, FileName, JobName, ReturnKind, TransferId, TransferKey, TransferState,
    manifest::MAX_RETURN_FILES,
    packed::{is_reserved, packed_name},
};
use towpath_transport::files::{FileKind, FileStore, file_failure, write_whole};

use super::{copy, exists, publish_folder, remove_copies, remove_tree, too_large};
use crate::{
    kept,
    layout::Layout,
    parts::Parts,
    uplink::{scan::folders, verify::blocking},
};

/// The ERP company that return files are for, unless it is said.
pub const DEFAULT_JOB: &str = "main";
/// What return files are, unless it is said.
pub const DEFAULT_KIND: &str = "recommended-orders";
/// What is wanted of the files, beside them.
const REQUEST_NAME: &str = "request.json";
/// The folder of the files.
const FILES_NAME: &str = "files";
/// The largest `request.json`, in bytes: as many names as there may be, at their longest.
const MAX_REQUEST_BYTES: usize = 512 * 1024;
/// Agents whose exports one look finds.
const MAX_AGENTS: usize = 10_000;

/// What is to be sent, to whom and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Always 1.
    pub version: u32,
    /// The agent it is for.
    pub agent: AgentName,
    /// What return files these are.
    pub kind: ReturnKind,
    /// The ERP company it is for.
    pub job: JobName,
    /// When it was taken; the manifest says so too.
    pub taken: Timestamp,
    /// The files' names, in the order of the manifest.
    pub files: Vec<FileName>,
}

/// A file that is to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name on the way and at the ERP.
    pub name: FileName,
    /// Where it lies.
    pub path: PathBuf,
}

/// Whether a file of this name can travel.
///
/// # Errors
/// `export-refused`.
pub fn travelling_name(name: &str) -> Result<FileName, Failure> {
    let refused = |why: String| Failure::park(Code::ExportRefused, format!("{name:?} cannot travel: {why}"));
    let parsed: FileName = name.parse().map_err(|e: towpath_transfer::name::InvalidName| refused(e.to_string()))?;
    if is_reserved(&parsed) {
        return Err(refused("the name has a meaning of its own in a transfer's folder".to_owned()));
    }
    packed_name(&parsed).map_err(|e| refused(e.to_string()))?;
    Ok(parsed)
}

/// Copies the files of a request and makes the copies durable: after that it is taken, whatever happens to the originals. May be
/// repeated; what was taken once stays as it is. Blocking.
///
/// # Errors
/// `export-refused` (park) where a file cannot travel or be read, (retry) where one changes while it is copied; `limit-exceeded`
/// where too much is on its way to the agent; as the disk reports. Nothing of it is left then.
pub fn take(parts: &Parts, id: TransferId, request: &Request, sources: &[Source]) -> Result<(), Failure> {
    let key = key_of(parts, id, request);
    let files = &*parts.files;
    let taken = parts.layout.export(&key);
    if exists(files, &taken.join(REQUEST_NAME))? {
        return kept::held(files, &taken);
    }
    check(sources)?;
    has_room(parts, &request.agent)?;
    let begun = parts.layout.export_begun(&key);
    let taken = copy_all(parts, &key, request, sources);
    if taken.is_err() {
        // What failed is reported; what stays behind is removed by the next try, or with what is old.
        let _ = remove_tree(files, &begun);
    }
    taken
}

fn copy_all(parts: &Parts, key: &TransferKey, request: &Request, sources: &[Source]) -> Result<(), Failure> {
    let files = &*parts.files;
    let begun = parts.layout.export_begun(key);
    remove_tree(files, &begun)?;
    let into = begun.join(FILES_NAME);
    files.create_dir_all(&into).map_err(|e| file_failure("creating", &into, e))?;
    for source in sources {
        take_one(parts, source, &into.join(source.name.as_str()))?;
    }
    files.sync_dir(&into).map_err(|e| file_failure("syncing", &into, e))?;
    let text =
        serde_json::to_vec_pretty(request).map_err(|e| Failure::park(Code::Internal, "writing a request failed").caused_by(e))?;
    let path = begun.join(REQUEST_NAME);
    write_whole(files, &path, &text).map_err(|e| file_failure("writing", &path, e))?;
    publish_folder(files, &begun, &parts.layout.export(key))
}

fn take_one(parts: &Parts, source: &Source, to: &Path) -> Result<(), Failure> {
    let (files, path) = (&*parts.files, &source.path);
    let unread = |e| Failure::park(Code::ExportRefused, format!("{} cannot be read", path.display())).caused_by(e);
    let before = files.stat(path).map_err(unread)?;
    if before.kind != FileKind::File {
        return Err(Failure::park(Code::ExportRefused, format!("{} is not a file", path.display())));
    }
    let limit = parts.limits.export_file_bytes;
    if before.len > limit {
        return Err(too_large(path, limit));
    }
    let folder = to.parent().unwrap_or(to);
    if files.free_space(folder).is_ok_and(|free| free < before.len) {
        return Err(Failure::retry(Code::DiskFull, format!("there is no room to take {}", path.display())));
    }
    let copied = copy(files, path, to, limit, &unread)?;
    let after = files.stat(path).map_err(unread)?;
    if copied.size != before.len || (after.len, after.modified) != (before.len, before.modified) {
        let told = format!("{} was changed while it was taken; send it again when it is whole", path.display());
        return Err(Failure::retry(Code::ExportRefused, told));
    }
    Ok(())
}

fn check(sources: &[Source]) -> Result<(), Failure> {
    if !(1..=MAX_RETURN_FILES).contains(&sources.len()) {
        let told = format!("a transfer to the ERP has 1 to {MAX_RETURN_FILES} files, and these are {}", sources.len());
        return Err(Failure::park(Code::ExportRefused, told));
    }
    let mut names = HashSet::new();
    match sources.iter().find(|source| !names.insert(source.name.case_folded())) {
        None => Ok(()),
        Some(twice) => Err(Failure::park(Code::ExportRefused, format!("two of the files have the name {}", twice.name))),
    }
}

/// Whether one transfer more may be on its way to an agent. Blocking.
///
/// # Errors
/// `limit-exceeded`; as the disk reports.
pub fn has_room(parts: &Parts, agent: &AgentName) -> Result<(), Failure> {
    let most = parts.limits.open_exports;
    let open = folders::<TransferId>(&*parts.files, &parts.layout.exports_for(agent), most.saturating_mul(2))?.len();
    if open < most {
        return Ok(());
    }
    let told =
        format!("{open} transfers are on their way to agent {agent}, and at most {most} may be; see: towpath-receiver sent");
    Err(Failure::retry(Code::LimitExceeded, told))
}

/// Notes in the journal that a transfer was taken. May be repeated.
///
/// # Errors
/// Of the journal. What was taken is then noted by `serve`, at its next start or within the hour.
pub async fn note(parts: &Parts, id: TransferId, request: &Request) -> Result<TransferRecord, Failure> {
    let transfer = NewTransfer {
        key: key_of(parts, id, request),
        direction: Direction::Downlink,
        job: Some(request.job.clone()),
        state: TransferState::Taken,
        sequence: SequenceChoice::Next,
    };
    Ok(parts.journal.create(transfer).await?.into_record())
}

/// Notes everything that was taken and that the journal does not know, and removes what has ended and came back with a power cut.
/// Returns how many were noted.
///
/// # Errors
/// Of disk and journal; what was noted before stays noted.
pub async fn adopt(parts: &Arc<Parts>) -> Result<usize, Failure> {
    let finder = Arc::clone(parts);
    let mut adopted = 0;
    for key in blocking(move || taken(&finder)).await? {
        match parts.journal.get(&key).await? {
            Some(record) if record.is_over() => {
                let remover = Arc::clone(parts);
                blocking(move || remove_copies(&remover, &key)).await?;
            }
            Some(_) => {}
            None => {
                let (reader, of) = (Arc::clone(parts), key.clone());
                let found = move || {
                    // Whoever has taken it may have stopped before its name was durable.
                    kept::held(&*reader.files, &reader.layout.export(&of))?;
                    request(&reader, &of)
                };
                match blocking(found).await {
                    Ok(request) => {
                        tracing::warn!(transfer = %key, "taken before, and noted now");
                        note(parts, key.id, &request).await?;
                        adopted += 1;
                    }
                    Err(failure) => {
                        tracing::error!(transfer = %key, code = %failure.code(), error = %failure.report(), "cannot be noted");
                    }
                }
            }
        }
    }
    Ok(adopted)
}

/// Everything of which there are copies here.
fn taken(parts: &Parts) -> Result<Vec<TransferKey>, Failure> {
    let (layout, most) = (&parts.layout, parts.limits.open_exports.saturating_mul(2));
    let mut found = BTreeSet::new();
    for root in [layout.exports(), layout.landing_downlink()] {
        for agent in folders::<AgentName>(&*parts.files, &root, MAX_AGENTS)? {
            let ids = folders::<TransferId>(&*parts.files, &root.join(agent.as_str()), most)?;
            found.extend(ids.into_iter().map(|id| TransferKey { tenant: parts.tenant.clone(), agent: agent.clone(), id }));
        }
    }
    Ok(found.into_iter().collect())
}

/// What is wanted of a transfer that was taken. Blocking.
///
/// # Errors
/// `file-failed` (park) where it is gone or damaged; as the disk reports.
pub fn request(parts: &Parts, key: &TransferKey) -> Result<Request, Failure> {
    request_at(&*parts.files, &parts.layout, key)
}

/// [`request`] without the other parts.
///
/// # Errors
/// As there.
pub fn request_at(files: &dyn FileStore, layout: &Layout, key: &TransferKey) -> Result<Request, Failure> {
    let path = layout.export(key).join(REQUEST_NAME);
    let gone = || Failure::park(Code::FileFailed, format!("{} is missing or damaged", path.display()));
    let bytes = kept::read(files, &path, MAX_REQUEST_BYTES)?.ok_or_else(gone)?;
    let request: Request = serde_json::from_slice(&bytes).map_err(|e| gone().caused_by(e))?;
    if request.version == 1 && request.agent == key.agent { Ok(request) } else { Err(gone()) }
}

/// Where the copy of a file lies that was taken.
#[must_use]
pub fn file_path(layout: &Layout, key: &TransferKey, name: &FileName) -> PathBuf {
    layout.export(key).join(FILES_NAME).join(name.as_str())
}

fn key_of(parts: &Parts, id: TransferId, request: &Request) -> TransferKey {
    TransferKey { tenant: parts.tenant.clone(), agent: request.agent.clone(), id }
}
