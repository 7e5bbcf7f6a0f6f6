//! The claim on a file of an export folder: its note, its own folder, and the renames between them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use towpath_transfer::{
    Code, Failure, FileName, TransferId,
    digest::{Sha256Digest, Sha256Hasher},
};
use towpath_transport::files::{
    FileKind, FileStat, FileStore, TEMP_SUFFIX, each_chunk, file_failure, ignore_missing, write_whole,
};

use super::{remove_tree, take::Request};
use crate::kept;

/// The most files of one folder that are claimed and not removed yet.
pub(super) const MAX_CLAIMS: usize = 1_000;
/// The folder of what is claimed.
const TAKEN_NAME: &str = ".taken";
/// The largest note of a claim, in bytes.
const MAX_CLAIM_BYTES: usize = 64 * 1024;

/// A file that is taken, or on its way there: `.taken/<transfer>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claim {
    /// What is wanted of the file.
    pub(super) request: Request,
    /// Its name.
    pub(super) name: FileName,
    /// The marker's name, where one said that the file is whole.
    pub(super) marker: Option<String>,
}

fn taken_folder(folder: &Path) -> PathBuf {
    folder.join(TAKEN_NAME)
}

fn note_path(folder: &Path, id: TransferId) -> PathBuf {
    taken_folder(folder).join(format!("{id}.json"))
}

fn marker_path(folder: &Path, id: TransferId) -> PathBuf {
    taken_folder(folder).join(format!("{id}.marker"))
}

pub(super) fn path(folder: &Path, id: TransferId, claim: &Claim) -> PathBuf {
    taken_folder(folder).join(id.to_string()).join(claim.name.as_str())
}

pub(super) fn all(files: &dyn FileStore, folder: &Path) -> Result<Vec<(TransferId, Claim)>, Failure> {
    let taken = taken_folder(folder);
    let entries = match files.list(&taken, None, MAX_CLAIMS.saturating_mul(4)) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(file_failure("looking at", &taken, e)),
    };
    // A note that was being written when the power went is none.
    for unfinished in entries.iter().filter(|entry| entry.name.ends_with(TEMP_SUFFIX)) {
        let path = taken.join(&unfinished.name);
        ignore_missing(files.remove(&path)).map_err(|e| file_failure("removing", &path, e))?;
    }
    let ids = entries.iter().filter_map(|entry| entry.name.strip_suffix(".json")?.parse::<TransferId>().ok());
    let mut found = Vec::new();
    for id in ids {
        let path = note_path(folder, id);
        let Some(bytes) = kept::read(files, &path, MAX_CLAIM_BYTES)? else { continue };
        let damaged =
            |e: serde_json::Error| Failure::park(Code::FileFailed, format!("{} is damaged", path.display())).caused_by(e);
        found.push((id, serde_json::from_slice(&bytes).map_err(damaged)?));
    }
    Ok(found)
}

/// Notes a claim and moves the file there, and its marker before it: a marker that stayed behind would vouch for the next file of
/// that name.
pub(super) fn begin(files: &dyn FileStore, folder: &Path, id: TransferId, claim: &Claim) -> Result<(), Failure> {
    let taken = taken_folder(folder);
    let own = taken.join(id.to_string());
    files.create_dir_all(&taken).map_err(|e| file_failure("creating", &taken, e))?;
    let text = serde_json::to_vec(claim).map_err(|e| Failure::park(Code::Internal, "writing a claim failed").caused_by(e))?;
    let note = note_path(folder, id);
    write_whole(files, &note, &text).map_err(|e| file_failure("writing", &note, e))?;
    files.create_dir_all(&own).map_err(|e| file_failure("creating", &own, e))?;
    if let Some(marker) = &claim.marker {
        let from = folder.join(marker);
        files.rename(&from, &marker_path(folder, id)).map_err(|e| file_failure("claiming", &from, e))?;
        sync(files, &[&taken, folder])?;
    }
    let from = folder.join(claim.name.as_str());
    files.rename(&from, &path(folder, id, claim)).map_err(|e| file_failure("claiming", &from, e))
}

/// Makes a claim durable and says what is claimed; `None` where nothing is, because it was stopped before.
pub(super) fn hold(files: &dyn FileStore, folder: &Path, id: TransferId, claim: &Claim) -> Result<Option<FileStat>, Failure> {
    let (claimed, source) = (path(folder, id, claim), folder.join(claim.name.as_str()));
    let (vouched, marker) = (marker_path(folder, id), claim.marker.as_ref().map(|marker| folder.join(marker)));
    let vouches = look(files, &vouched)?;
    if let Some(marker) = &marker
        && is_same(vouches, look(files, marker)?)
    {
        files.rename(marker, &vouched).map_err(|e| file_failure("claiming", marker, e))?;
    }
    let (here, there) = (look(files, &claimed)?, look(files, &source)?);
    // A marker that is claimed vouches for a file that is not claimed yet.
    let follows = here.is_none() && vouches.is_some() && there.is_some_and(|there| there.kind == FileKind::File);
    if follows || is_same(here, there) && same_bytes(files, &claimed, &source)? {
        files.rename(&source, &claimed).map_err(|e| file_failure("claiming", &source, e))?;
    } else if here.is_none() {
        return Ok(None);
    }
    sync(files, &[claimed.parent().unwrap_or(folder), &taken_folder(folder), folder])?;
    look(files, &claimed)
}

fn look(files: &dyn FileStore, path: &Path) -> Result<Option<FileStat>, Failure> {
    match files.stat(path) {
        Ok(stat) => Ok(Some(stat)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file_failure("looking for", path, e)),
    }
}

/// Whether what is claimed and what lies in the folder is one file: a power cut can show it under both names.
fn is_same(here: Option<FileStat>, there: Option<FileStat>) -> bool {
    here.is_some_and(|here| here.modified.is_some()) && here == there
}

/// Whether two files hold the same: another file of the same name may have the same length and the same time, and is not replaced.
fn same_bytes(files: &dyn FileStore, one: &Path, other: &Path) -> Result<bool, Failure> {
    let digest = |path: &Path| -> Result<Sha256Digest, Failure> {
        let mut hasher = Sha256Hasher::new();
        each_chunk(files, path, u64::MAX, |bytes| hasher.update(bytes)).map_err(|e| file_failure("reading", path, e))?;
        Ok(hasher.finish())
    };
    Ok(digest(one)? == digest(other)?)
}

/// Removes a claim; its note last, so that a crash leaves nothing that nobody knows.
pub(super) fn release(files: &dyn FileStore, folder: &Path, id: TransferId) -> Result<(), Failure> {
    let taken = taken_folder(folder);
    remove_tree(files, &taken.join(id.to_string()))?;
    for path in [marker_path(folder, id), note_path(folder, id)] {
        ignore_missing(files.remove(&path)).map_err(|e| file_failure("removing", &path, e))?;
        sync(files, &[&taken])?;
    }
    Ok(())
}

fn sync(files: &dyn FileStore, folders: &[&Path]) -> Result<(), Failure> {
    folders.iter().try_for_each(|folder| files.sync_dir(folder).map_err(|e| file_failure("syncing", folder, e)))
}
