//! Giving files to the service's user.
//!
//! When root installs again, that user owns the state folder and may at any moment put a link in the place of what root has just
//! looked at. So what was opened is given, never what a path leads to by then.

use std::{
    ffi::{CStr, OsStr},
    io::{self, ErrorKind},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, openat, statat},
    io::Errno,
};
use towpath_host::owner::UserIds;
use towpath_transfer::{Failure, failure::Result};

use super::reach;
use crate::service::installation::is_of_log;

/// How many folders below the state folder, one in the other, are given; the agent makes three. Each holds two descriptors.
pub(super) const MAX_DEPTH: usize = 16;

/// The name of the folders that are made for this program, in `/etc` and `/var/lib`.
const FOLDER: &str = "towpath";

/// Opens what has this very name: no link, and no waiting for the other end of a pipe.
const ITSELF: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The folder, which must not be a link, with everything in it, and open to nobody else.
///
/// # Errors
/// `service-failed`; what was given before stays given.
pub(super) fn folder(path: &Path, ids: UserIds, say: &dyn Fn(&str)) -> Result<()> {
    let opened = openat(CWD, path, ITSELF | OFlags::DIRECTORY, Mode::empty()).map_err(|error| failed(path, error))?;
    let mut giving = Giving { ids, say, given: 0 };
    giving.contents(opened.as_fd(), path, 0)?;
    giving.own(opened.as_fd(), path)?;
    fchmod(&opened, Mode::RWXU).map_err(|error| failed(path, error))?;
    if giving.given > 0 {
        say(&format!("gave {} to the service, {} files and folders", path.display(), giving.given));
    }
    Ok(())
}

/// Looks whether the service can pass through the folders above `path`. One that was made for this program and is `owner`'s is
/// opened so far that users can pass through it; another one is told.
///
/// # Errors
/// `service-failed`.
pub(super) fn passage(path: &Path, owner: u32, ids: UserIds, say: &dyn Fn(&str)) -> Result<()> {
    for folder in path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
        let failed = |error| failed(folder, error);
        let found = match folder.symlink_metadata() {
            Ok(found) => found,
            // What is missing is told elsewhere.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(super::failed(said(folder)).caused_by(error)),
        };
        // What a link leads to is somebody else's matter.
        if !found.is_dir() {
            continue;
        }
        if reach::passes(&found, ids) {
            continue;
        }
        if found.uid() == owner && folder.file_name() == Some(OsStr::new(FOLDER)) {
            let opened = openat(CWD, folder, ITSELF | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
            let found = fstat(&opened).map_err(failed)?;
            fchmod(&opened, Mode::from_raw_mode(found.st_mode) | Mode::XGRP | Mode::XOTH).map_err(failed)?;
            say(&format!("let users pass through {}", folder.display()));
        } else {
            say(&format!("note: the service must be able to pass through {}", folder.display()));
        }
    }
    Ok(())
}

/// One file that is there, with no more than these permissions. A missing one is told, not made.
///
/// # Errors
/// `service-failed`.
pub(super) fn file(path: &Path, ids: UserIds, mode: Mode, say: &dyn Fn(&str)) -> Result<()> {
    let failed = |error| failed(path, error);
    let opened = match openat(CWD, path, ITSELF, Mode::empty()) {
        Ok(opened) => Some(opened),
        Err(Errno::NOENT) => {
            say(&format!("note: there is no {}", path.display()));
            return Ok(());
        }
        Err(Errno::LOOP | Errno::NXIO) => None,
        Err(error) => return Err(failed(error)),
    };
    let found = opened.map(|opened| fstat(&opened).map(|found| (opened, found))).transpose().map_err(failed)?;
    let Some((opened, found)) = found.filter(|(_, found)| kind(found) == FileType::RegularFile) else {
        say(&format!("note: left {} as it is: it is not a file of its own", path.display()));
        return Ok(());
    };
    if is_anothers(&found, ids) {
        say_of_another_name(path, say);
        return Ok(());
    }
    let mut changed = false;
    if !belongs_to(&found, ids) {
        own(opened.as_fd(), ids).map_err(failed)?;
        changed = true;
    }
    let before = Mode::from_raw_mode(found.st_mode);
    let wanted = before & mode | mode & (Mode::RUSR | Mode::RGRP);
    if before != wanted {
        fchmod(&opened, wanted).map_err(failed)?;
        changed = true;
    }
    if changed {
        say(&format!("made {} readable for the service and nobody else", path.display()));
    }
    Ok(())
}

/// The log file with what was put aside of it, and its folder: one that is made here, that has a log already, or that is made for this
/// program by its name. Any other one stays whose it is, and so does one in which something else lies or that serves something else
/// (`is_others`); the service then has to be let in by somebody else.
///
/// # Errors
/// `service-failed`; what was given before stays given.
pub(super) fn log(file: &Path, is_others: bool, ids: UserIds, say: &dyn Fn(&str)) -> Result<()> {
    let Some(folder) = file.parent() else { return Ok(()) };
    let is_new = !folder.exists();
    std::fs::create_dir_all(folder)
        .map_err(|error| super::failed(format!("making {} failed", folder.display())).caused_by(error))?;
    let opened = match openat(CWD, folder, ITSELF | OFlags::DIRECTORY, Mode::empty()) {
        Ok(opened) => opened,
        Err(Errno::LOOP | Errno::NOTDIR) => {
            say(&format!("note: left {} as it is: it is not a folder of its own", folder.display()));
            return Ok(());
        }
        Err(error) => return Err(failed(folder, error)),
    };
    let mut giving = Giving { ids, say, given: 0 };
    let mut is_own = is_new || folder.file_name() == Some(OsStr::new(FOLDER));
    let mut is_shared = is_others;
    let mut entries = Dir::read_from(&opened).map_err(|error| failed(folder, error))?;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(|error| failed(folder, error))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        if !is_of_log(file, name) {
            is_shared = true;
            continue;
        }
        let found = match statat(&opened, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            // The running agent puts its log aside.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(failed(folder, error)),
        };
        if kind(&found) == FileType::RegularFile {
            is_own = true;
            giving.file(opened.as_fd(), entry.file_name(), &folder.join(name))?;
        }
    }
    let found = fstat(&opened).map_err(|error| failed(folder, error))?;
    if is_own && !is_shared {
        giving.own(opened.as_fd(), folder)?;
    } else if found.st_uid != ids.uid {
        say(&format!(
            "note: left {} as it is, because it is not the log's own; the service has to be let write there, or say [log] file in a \
             folder of its own, such as /var/log/towpath/agent.log",
            folder.display()
        ));
    }
    if giving.given > 0 {
        say(&format!("gave the log in {} to the service", folder.display()));
    }
    Ok(())
}

/// A folder that is being given.
pub(super) struct Giving<'a> {
    pub(super) ids: UserIds,
    /// Is told what is left as it is.
    pub(super) say: &'a dyn Fn(&str),
    /// How many files and folders had another owner.
    pub(super) given: u64,
}

impl Giving<'_> {
    /// What is in an opened folder that lies `depth` folders deep. The paths are for messages only.
    fn contents(&mut self, folder: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<()> {
        let mut entries = Dir::read_from(folder).map_err(|error| failed(path, error))?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(|error| failed(path, error))?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.entry(folder, name, &path.join(OsStr::from_bytes(name.to_bytes())), depth)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, folder: BorrowedFd<'_>, name: &CStr, path: &Path, depth: usize) -> Result<()> {
        let found = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => found,
            // The running agent removes what it is done with.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(path, error)),
        };
        match kind(&found) {
            FileType::Directory => self.subfolder(folder, name, path, depth + 1),
            FileType::RegularFile if !belongs_to(&found, self.ids) => self.file(folder, name, path),
            // A link is nobody's to follow, and the agent makes its socket anew whenever it starts.
            _ => Ok(()),
        }
    }

    /// An entry that was a folder when it was looked at.
    pub(super) fn subfolder(&mut self, folder: BorrowedFd<'_>, name: &CStr, path: &Path, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            (self.say)(&format!("note: left {} as it is: it lies deeper than {MAX_DEPTH} folders", path.display()));
            return Ok(());
        }
        let Some(opened) = self.open(folder, name, path, OFlags::DIRECTORY)? else { return Ok(()) };
        self.contents(opened.as_fd(), path, depth)?;
        self.own(opened.as_fd(), path)
    }

    /// An entry that was a file when it was looked at.
    pub(super) fn file(&mut self, folder: BorrowedFd<'_>, name: &CStr, path: &Path) -> Result<()> {
        match self.open(folder, name, path, OFlags::empty())? {
            Some(opened) => self.own(opened.as_fd(), path),
            None => Ok(()),
        }
    }

    /// `None` where it is gone, or is not any more what it was.
    fn open(&self, folder: BorrowedFd<'_>, name: &CStr, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>> {
        match openat(folder, name, ITSELF | flags, Mode::empty()) {
            Ok(opened) => Ok(Some(opened)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => {
                (self.say)(&format!("note: left {} as it is: something else was just put in its place", path.display()));
                Ok(None)
            }
            Err(error) => Err(failed(path, error)),
        }
    }

    fn own(&mut self, opened: BorrowedFd<'_>, path: &Path) -> Result<()> {
        let found = fstat(opened).map_err(|error| failed(path, error))?;
        if belongs_to(&found, self.ids) {
            return Ok(());
        }
        if is_anothers(&found, self.ids) {
            say_of_another_name(path, self.say);
            return Ok(());
        }
        own(opened, self.ids).map_err(|error| failed(path, error))?;
        self.given += 1;
        Ok(())
    }
}

fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

fn belongs_to(found: &Stat, ids: UserIds) -> bool {
    (found.st_uid, found.st_gid) == (ids.uid, ids.gid)
}

/// Whether it may be somebody else's file under a second name, which would be given away with it.
fn is_anothers(found: &Stat, ids: UserIds) -> bool {
    kind(found) != FileType::Directory && found.st_nlink > 1 && found.st_uid != ids.uid
}

fn say_of_another_name(path: &Path, say: &dyn Fn(&str)) {
    say(&format!("note: left {} as it is: it has another name as well", path.display()));
}

fn own(opened: BorrowedFd<'_>, ids: UserIds) -> rustix::io::Result<()> {
    fchown(opened, Some(Uid::from_raw(ids.uid)), Some(Gid::from_raw(ids.gid)))
}

fn failed(path: &Path, error: Errno) -> Failure {
    super::failed(said(path)).caused_by(io::Error::from(error))
}

fn said(path: &Path) -> String {
    format!("giving {} to the service failed", path.display())
}
