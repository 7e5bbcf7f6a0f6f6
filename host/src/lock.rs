//! One process does the work of a state folder; others may look and add.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::Path,
};

use towpath_transfer::{Code, Failure};

/// Held as long as this value lives; the system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes the lock; `None` where another process has it.
    ///
    /// # Errors
    /// `file-failed` where the lock file cannot be made.
    pub fn try_take(path: &Path) -> Result<Option<Self>, Failure> {
        let failed = || Failure::park(Code::FileFailed, format!("locking {} failed", path.display()));
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(path).map_err(|error| failed().caused_by(error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed().caused_by(error)),
        }
    }

    /// Takes the lock for `program`.
    ///
    /// # Errors
    /// `already-running` where another process has it.
    pub fn take(path: &Path, program: &str) -> Result<Self, Failure> {
        Self::try_take(path)?.ok_or_else(|| {
            let folder = path.parent().unwrap_or(path);
            Failure::park(Code::AlreadyRunning, format!("another {program} works on {}", folder.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_and_the_next_after_the_first_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = StateLock::take(&path, "towpath-agent").unwrap();
        assert!(StateLock::try_take(&path).unwrap().is_none());
        assert_eq!(StateLock::take(&path, "towpath-agent").unwrap_err().code(), Code::AlreadyRunning);
        drop(first);
        StateLock::take(&path, "towpath-agent").unwrap();
    }
}
