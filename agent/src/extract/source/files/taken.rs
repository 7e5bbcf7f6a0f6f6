//! What an extract has taken from the folder: noted before it travels, archived when the app has it.

use std::path::{Path, PathBuf};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};
use towpath_transfer::{Code, Failure, digest::Sha256Digest};
use towpath_transport::files::{FileKind, FileStore};

use super::decode::BLOCK_BYTES;

/// The longest note of what was taken, in bytes.
pub const MAX_TAKEN_BYTES: usize = 32 * 1024 * 1024;
/// How many files of one name and second the archive tells apart.
const MAX_SAME_NAME: u32 = 999;

/// What stands before the own name of an archived file: time of the extract (UTC) and a number.
const PREFIX_FORM: &str = "00000000-000000-000_";
/// The length of the time in it.
const TIME_LENGTH: usize = 15;

/// What was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The folder of the files.
    pub folder: PathBuf,
    /// Where they go.
    pub archive: PathBuf,
    /// When they were read, and after the last that was archived; the archived names begin with it, so that they are in the order in
    /// which they went.
    pub at: Timestamp,
    /// The files, in their order.
    pub files: Vec<TakenFile>,
}

/// One file that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenFile {
    /// Its name in the folder.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
    /// When it was last changed, where the folder knows.
    pub modified: Option<Timestamp>,
    /// The digest of its bytes; none for a marker, whose bytes say nothing.
    pub sha256: Option<Sha256Digest>,
}

impl TakenFile {
    /// Whether the file there is this one.
    fn is(&self, files: &dyn FileStore, path: &Path) -> std::io::Result<bool> {
        if !self.looks_like(files, path)? {
            return Ok(false);
        }
        Ok(match self.sha256 {
            Some(digest) => digest_of(files, path)? == digest,
            None => true,
        })
    }

    fn looks_like(&self, files: &dyn FileStore, path: &Path) -> std::io::Result<bool> {
        let stat = files.stat(path)?;
        Ok((stat.kind, stat.len, stat.modified) == (FileKind::File, self.len, self.modified))
    }
}

/// Moves what was taken into the archive. May be repeated, also after a crash in the middle and after a power cut: a file goes there
/// once. What the ERP has taken away or replaced meanwhile stays as it is.
///
/// # Errors
/// `file-failed` (retry: until the files are away no further transfer may take them), naming file and archive.
pub fn archive(files: &dyn FileStore, taken: &Taken) -> Result<(), Failure> {
    let Taken { folder, archive, .. } = taken;
    let made = files.create_dir_all(archive).and_then(|()| taken.files.iter().try_for_each(|file| put_away(files, taken, file)));
    // The target first, so that a power cut leaves every file in one of the two.
    made.and_then(|()| files.sync_dir(archive)).and_then(|()| files.sync_dir(folder)).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::CrossesDevices => "; the archive must be on the volume of the folder",
            _ => "",
        };
        let (folder, archive) = (folder.display(), archive.display());
        Failure::retry(Code::FileFailed, format!("moving imported files from {folder} to {archive} failed{hint}"))
            .caused_by(error)
    })
}

fn put_away(files: &dyn FileStore, taken: &Taken, file: &TakenFile) -> std::io::Result<()> {
    use std::io::ErrorKind::{AlreadyExists, NotFound};
    let from = taken.folder.join(&file.name);
    for number in 1..=MAX_SAME_NAME {
        let to = taken.archive.join(archived_name(taken.at, number, &file.name));
        match file.is(files, &to) {
            // An earlier attempt has put it there; the rename takes away the second name that a power cut may have left.
            Ok(true) => return finished(files.rename_new(&from, &to)),
            Ok(false) => continue,
            Err(error) if error.kind() == NotFound => {}
            Err(error) => return Err(error),
        }
        match file.is(files, &from) {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(file = %from.display(), "not archived: it was replaced since it was sent");
                return Ok(());
            }
            Err(error) if error.kind() == NotFound => return missing(files, taken, file, number),
            Err(error) => return Err(error),
        }
        match files.rename_new(&from, &to) {
            Ok(()) if file.looks_like(files, &to)? => return Ok(()),
            // Replaced between the look and the move: it was not sent yet and goes back.
            Ok(()) => return files.rename_new(&to, &from),
            Err(error) if error.kind() == AlreadyExists => {}
            Err(error) if error.kind() == NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Err(std::io::Error::new(AlreadyExists, format!("the archive has {MAX_SAME_NAME} other files of the name {}", file.name)))
}

/// A file that is not in its folder was taken away since it was sent. Or an attempt that was cut off has moved one that had just taken
/// its place: that was not sent yet, lies under the last name before `free`, and goes back. Names of this time are this transfer's own.
fn missing(files: &dyn FileStore, taken: &Taken, file: &TakenFile, free: u32) -> std::io::Result<()> {
    let from = taken.folder.join(&file.name);
    if free > 1 {
        tracing::info!(file = %from.display(), "not archived: it was replaced while it was moved, and goes back");
        return finished(files.rename_new(&taken.archive.join(archived_name(taken.at, free - 1, &file.name)), &from));
    }
    tracing::info!(file = %from.display(), "not archived: it was taken away since it was sent");
    Ok(())
}

/// A newer file of the name stays.
fn finished(renamed: std::io::Result<()>) -> std::io::Result<()> {
    match renamed {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::AlreadyExists) => Ok(()),
        other => other,
    }
}

fn digest_of(files: &dyn FileStore, path: &Path) -> std::io::Result<Sha256Digest> {
    let mut file = files.open(path)?;
    let mut hasher = towpath_transfer::digest::Sha256Hasher::new();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(block.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// `20260301-120000-001_items.csv`.
fn archived_name(at: Timestamp, number: u32, name: &str) -> String {
    let time = at.to_zoned(TimeZone::UTC).strftime("%Y%m%d-%H%M%S").to_string();
    format!("{time}-{number:03}_{name}")
}

/// The time that an archived file's name begins with; `None` for what is not archived by us.
pub(super) fn archived_at(path: &Path) -> Option<Timestamp> {
    let name = path.file_name()?.to_str()?;
    own_name(name)?;
    let time = DateTime::strptime("%Y%m%d-%H%M%S", name.get(..TIME_LENGTH)?).ok()?;
    time.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp())
}

/// The name that an archived file had; `None` for what is not archived by us.
pub(super) fn own_name(archived: &str) -> Option<&str> {
    let (prefix, name) = archived.split_at_checked(PREFIX_FORM.len())?;
    let fits = |(c, form): (u8, u8)| if form == b'0' { c.is_ascii_digit() } else { c == form };
    (!name.is_empty() && prefix.bytes().zip(PREFIX_FORM.bytes()).all(fits)).then_some(name)
}
