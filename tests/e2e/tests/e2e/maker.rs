//! Whoever makes releases of the agent, and signs them with `ssh-keygen`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use towpath_transfer::release::{RELEASE_NAME, Release};

/// By which a program with failpoints is told whose releases it believes.
pub(crate) const KEYS: &str = "TOWPATH_RELEASE_KEYS_OF_TEST";

/// Whoever makes releases.
pub(crate) struct Maker {
    folder: tempfile::TempDir,
}

impl Maker {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("release_key");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "maker", "-f"]).arg(&key).status();
        assert!(made.unwrap().success());
        Self { folder }
    }

    /// A new folder for a version.
    pub(crate) fn folder(&self, version: &str) -> PathBuf {
        let folder = self.folder.path().join(version);
        fs::create_dir(&folder).unwrap();
        folder
    }

    pub(crate) fn public_key(&self) -> String {
        fs::read_to_string(self.folder.path().join("release_key.pub")).unwrap().trim().to_owned()
    }

    /// Signs the document of a folder as docs/operations.md says.
    pub(crate) fn sign(&self, folder: &Path) {
        let _ = fs::remove_file(folder.join("release.json.sig"));
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-Y", "sign", "-n", "towpath-release@1", "-f"]).arg(self.folder.path().join("release_key"));
        assert!(command.arg(folder.join(RELEASE_NAME)).output().unwrap().status.success());
    }

    /// The release that `cargo xtask package` has made of a version in a folder, signed.
    pub(crate) fn release(&self, version: &str, from: &Path) -> PathBuf {
        let folder = self.folder(version);
        let release = Release::parse(&fs::read(from.join(RELEASE_NAME)).unwrap()).unwrap();
        for name in release.packages.iter().map(|package| package.file.as_str()).chain([RELEASE_NAME]) {
            fs::copy(from.join(name), folder.join(name)).unwrap();
        }
        self.sign(&folder);
        folder
    }
}
