//! Files on the delivery folder's volume: first whole under a hidden name, then under a name that was free, and never twice.
//!
//! Hidden means `<folder>/.towpath/<transfer>/<name>`. A rename takes a file from there into the folder; whoever finds it gone
//! after a crash knows that it was delivered, wherever the ERP has put it since.

use std::{
    collections::{BTreeMap, HashSet},
    io::{ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
};

use towpath_transfer::{
    Code, Direction, Failure, TransferId,
    digest::FileHasher,
    failure::Result,
    manifest::{FileEntry, MAX_RETURN_FILES, Manifest},
    name::FileName,
    packed::packed_name,
    state::PlacedFile,
};
use towpath_transport::files::{FileKind, file_failure, ignore_missing};

use super::{names, verify};
use crate::{parts::Parts, uplink::folder};

/// The hidden folder in a delivery folder.
pub const HIDDEN_NAME: &str = ".towpath";
/// Bytes copied at a time.
const CHUNK: usize = 256 * 1024;
/// The largest note of names, in bytes.
const MAX_NOTE_BYTES: usize = MAX_RETURN_FILES * 1024;

/// Where a transfer's files lie before they have their names.
#[must_use]
pub fn hidden(folder: &Path, id: TransferId) -> PathBuf {
    folder.join(HIDDEN_NAME).join(id.to_string())
}

/// Puts every file of a transfer whole and durable on the volume of `folder`, and chooses their names. Begun anew it begins
/// from nothing.
///
/// # Errors
/// `delivery-failed` (retry) where the folder is missing or cannot be written to.
pub fn stage(parts: &Parts, manifest: &Manifest, folder: &Path) -> Result<Vec<PlacedFile>> {
    let files = &*parts.files;
    let id = manifest.transfer;
    let hidden = hidden(folder, id);
    let failed = |what: &'static str| move |error| failed(what, folder, error);
    // What an interrupted try has left must not want room beside itself.
    ignore_missing(files.remove_dir_all(&hidden)).map_err(failed("emptying"))?;
    check_folder(parts, folder, manifest.sent_files().map(|file| file.size).sum())?;
    files.create_dir_all(&hidden).map_err(failed("making"))?;
    let mut used = HashSet::new();
    let mut placed = Vec::new();
    for entry in manifest.sent_files() {
        let target = hidden.join(entry.name.as_str());
        if files.stat(&target).is_ok() {
            let (name, folder) = (&entry.name, folder.display());
            let message = format!("{name} and another file of transfer {id} have one name on the volume of {folder}");
            return Err(Failure::retry(Code::DeliveryFailed, message));
        }
        whole(parts, id, entry, || copy(parts, id, entry, &target, folder))?;
        files.share(&target, folder).map_err(failed("giving rights to a file in"))?;
        placed.push(PlacedFile { name: entry.name.clone(), placed: names::free(files, folder, &entry.name, &mut used)? });
    }
    files.sync_dir(&hidden).map_err(failed("syncing"))?;
    Ok(placed)
}

/// A folder that is missing is never made: it may be a network drive that is not there now.
fn check_folder(parts: &Parts, folder: &Path, bytes: u64) -> Result<()> {
    let free = match parts.files.free_space(folder) {
        Ok(free) => free,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(failed("looking at", folder, error));
        }
        // A folder of another host need not tell; the disk does when it is full.
        Err(error) => {
            tracing::debug!(folder = %folder.display(), %error, "how much room there is for return files is not known");
            return Ok(());
        }
    };
    let reserve = parts.config.now().state.reserve.0;
    if free >= bytes.saturating_add(reserve) {
        return Ok(());
    }
    let folder = folder.display();
    let message = format!("the return files need {bytes} bytes in {folder} beside a reserve of {reserve}, and {free} are free");
    Err(Failure::retry(Code::DeliveryFailed, message))
}

fn failed(what: &str, folder: &Path, error: std::io::Error) -> Failure {
    Failure::retry(Code::DeliveryFailed, format!("{what} the delivery folder {}", folder.display())).caused_by(error)
}

/// Makes sure that the agent's own copies are what was verified, for whoever goes by them and not by what was delivered.
///
/// # Errors
/// `file-failed` (retry) where the disk does not keep them.
pub fn verified(parts: &Parts, manifest: &Manifest) -> Result<()> {
    let id = manifest.transfer;
    manifest.sent_files().try_for_each(|entry| whole(parts, id, entry, || reads_as_verified(parts, id, entry, &mut |_| Ok(()))))
}

/// Reads a verified file, once more where it was damaged on the disk since, because the packed one is still here.
fn whole(parts: &Parts, id: TransferId, entry: &FileEntry, read: impl Fn() -> Result<bool>) -> Result<()> {
    if read()? {
        return Ok(());
    }
    tracing::warn!(transfer = %id, file = %entry.name, "damaged on the disk; unpacked anew");
    unpack_again(parts, id, entry)?;
    if read()? {
        return Ok(());
    }
    let message = format!("{} of transfer {id} reads differently each time: check the disk", entry.name);
    Err(Failure::retry(Code::FileFailed, message))
}

/// Copies a verified file; `false` where it is not the verified one any more.
fn copy(parts: &Parts, id: TransferId, entry: &FileEntry, target: &Path, folder: &Path) -> Result<bool> {
    let mut to = parts.files.create(target).map_err(|error| failed("writing to", folder, error))?;
    let mut write = |bytes: &[u8]| to.write_all(bytes).map_err(|error| failed("writing to", folder, error));
    let is_verified = reads_as_verified(parts, id, entry, &mut write)?;
    to.sync_all().map_err(|error| failed("syncing", folder, error))?;
    Ok(is_verified)
}

/// Reads the agent's own copy of a file; `false` where it is not the verified one any more.
fn reads_as_verified(
    parts: &Parts,
    id: TransferId,
    entry: &FileEntry,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<bool> {
    let plain = parts.layout.of(Direction::Downlink).plain(id).join(entry.name.as_str());
    let mut from = match parts.files.open(&plain) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.map_err(|error| file_failure("opening", &plain, error))?,
    };
    let mut hasher = FileHasher::new();
    let mut chunk = vec![0; CHUNK];
    let mut left = entry.size;
    loop {
        let count = from.read(&mut chunk).map_err(|error| file_failure("reading", &plain, error))?;
        if count == 0 || count as u64 > left {
            break;
        }
        left -= count as u64;
        let bytes = chunk.get(..count).unwrap_or_default();
        hasher.update(bytes);
        take(bytes)?;
    }
    Ok(hasher.finish() == entry.digests())
}

fn unpack_again(parts: &Parts, id: TransferId, entry: &FileEntry) -> Result<()> {
    let layout = parts.layout.of(Direction::Downlink);
    let name = packed_name(&entry.name)
        .map_err(|error| Failure::park(Code::Internal, format!("the packed name of {}", entry.name)).caused_by(error))?;
    let plain = layout.plain(id);
    parts.files.create_dir_all(&plain).map_err(|error| file_failure("making the folder", &plain, error))?;
    verify::unpack(&*parts.files, &layout.sent(id, &name), entry, &plain.join(entry.name.as_str()))?;
    parts.files.sync_dir(&plain).map_err(|error| file_failure("syncing", &plain, error))
}

/// Gives every staged file its name, durably. A file that is not staged any more was delivered before.
///
/// # Errors
/// `delivery-failed` (retry) where the folder, or what was staged in it, is not there as a whole.
pub fn place(parts: &Parts, id: TransferId, folder: &Path, chosen: &[PlacedFile]) -> Result<()> {
    let files = &*parts.files;
    let hidden = hidden(folder, id);
    if !files.stat(&hidden).is_ok_and(|stat| stat.kind == FileKind::Dir) {
        let message = format!(
            "{} is not there, so it cannot be told what was delivered: is the folder's volume mounted? Where every file is \
             delivered and it was removed by hand, make it again, empty",
            hidden.display()
        );
        return Err(Failure::retry(Code::DeliveryFailed, message));
    }
    let mut renamed = noted_names(parts, id)?;
    for file in chosen {
        place_one(parts, id, folder, file, &mut renamed)?;
    }
    // The target first, so that no file is ever in neither.
    files.sync_dir(folder).map_err(|error| failed("syncing", folder, error))?;
    files.sync_dir(&hidden).map_err(|error| failed("syncing", folder, error))
}

type Renamed = BTreeMap<FileName, FileName>;

fn place_one(parts: &Parts, id: TransferId, folder: &Path, file: &PlacedFile, renamed: &mut Renamed) -> Result<()> {
    let files = &*parts.files;
    let staged = hidden(folder, id).join(file.name.as_str());
    for _ in 0..names::MAX_NAMES {
        match files.stat(&staged) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("looking at", folder, error)),
            Ok(_) => {}
        }
        let name = renamed.get(&file.name).unwrap_or(&file.placed);
        match files.rename_new(&staged, &folder.join(name.as_str())) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("renaming a file in", folder, error)),
        }
        // Taken since it was chosen. The next name is noted before it is used, so that it is known whatever happens then.
        let next = names::free(files, folder, &file.name, &mut HashSet::new())?;
        renamed.insert(file.name.clone(), next);
        folder::note(files, &parts.layout.placed_names(id), renamed)?;
    }
    Err(Failure::retry(
        Code::DeliveryFailed,
        format!("every name for {} in {} is taken as soon as it is chosen", file.name, folder.display()),
    ))
}

fn noted_names(parts: &Parts, id: TransferId) -> Result<Renamed> {
    Ok(folder::noted_for_good(&*parts.files, &parts.layout.placed_names(id), MAX_NOTE_BYTES)?.unwrap_or_default())
}

/// The name each file really got.
///
/// # Errors
/// As the disk reports.
pub fn placed(parts: &Parts, id: TransferId, chosen: &[PlacedFile]) -> Result<Vec<PlacedFile>> {
    let mut renamed = noted_names(parts, id)?;
    let real = |file: &PlacedFile| {
        let placed = renamed.remove(&file.name).unwrap_or_else(|| file.placed.clone());
        PlacedFile { name: file.name.clone(), placed }
    };
    Ok(chosen.iter().map(real).collect())
}

/// Removes the hidden folder of a transfer whose files all have their names.
///
/// # Errors
/// As the disk reports.
pub fn forget(parts: &Parts, id: TransferId, folder: &Path) -> Result<()> {
    let hidden = hidden(folder, id);
    ignore_missing(parts.files.remove_dir_all(&hidden)).map_err(|error| failed("clearing", folder, error))
}
