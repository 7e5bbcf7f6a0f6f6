//! A disk of its own for one folder, so small that it can be filled.

use std::{
    fs,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

/// What fills it up.
const BALLAST: &str = "ballast";
/// As much as is written at a time, in bytes.
const BLOCK: usize = 64 * 1024;

/// A file system in memory at a folder; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one of so many bytes at a folder, which it makes.
    ///
    /// # Panics
    /// Where this process may not mount.
    #[must_use]
    pub fn mount(at: &Path, bytes: u64) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=700"), "towpath-test"]).arg(at);
        let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        assert!(
            output.status.success(),
            "{command:?} failed: {}\nThis test mounts small disks, for which it must be run by root with CAP_SYS_ADMIN",
            String::from_utf8_lossy(&output.stderr)
        );
        Self { at: at.to_owned() }
    }

    /// Fills it to the last byte.
    ///
    /// # Panics
    /// Where it cannot be filled.
    pub fn fill(&self) {
        let mut ballast = fs::File::options().create(true).append(true).open(self.at.join(BALLAST)).unwrap();
        let mut block = vec![1; BLOCK];
        while !block.is_empty() {
            match ballast.write(&block) {
                Ok(0) => break,
                Ok(_) => {}
                // What no longer fits in one piece may fit in half of it.
                Err(e) if e.kind() == ErrorKind::StorageFull => block.truncate(block.len() / 2),
                Err(e) => panic!("filling {}: {e}", self.at.display()),
            }
        }
    }

    /// Fills it until only so many bytes are free.
    ///
    /// # Panics
    /// Where it has less already.
    pub fn fill_but(&self, free: u64) {
        self.fill();
        let ballast = fs::File::options().write(true).open(self.at.join(BALLAST)).unwrap();
        let length = ballast.metadata().unwrap().len();
        ballast.set_len(length.checked_sub(free).expect("as much ballast as is to be free")).unwrap();
    }

    /// Gives the space back.
    ///
    /// # Panics
    /// Where the ballast cannot be removed.
    pub fn empty(&self) {
        fs::remove_file(self.at.join(BALLAST)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A program that the test has not ended yet may still hold it; it goes with the program.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
