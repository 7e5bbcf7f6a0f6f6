//! Takes packages out of the agent's state folder into root's. Everything that is read there is hostile.

use std::{
    io,
    path::{Path, PathBuf},
};

use towpath_keys::ReleaseKeys;
use towpath_transfer::{
    Code, Failure,
    digest::Sha256Hasher,
    failure::Result,
    receipt::MAX_SIGNATURE_BYTES,
    release::{MAX_RELEASE_BYTES, Package, RELEASE_NAME, RELEASE_SIGNATURE_NAME, Release, ReleaseVersion},
};
use towpath_transport::files::{
    Disk, FileKind, FileStore, disk_below, each_chunk, file_failure, ignore_missing, read_whole, write_whole,
};

use super::open::Side;
use crate::{
    layout::Layout,
    room::{self, DEFAULT_RESERVE_BYTES},
    update::{Installed, Report},
};

/// The most names in the agent's folder that are looked at.
const MAX_NAMES: usize = 100;
/// What a version's folder is called until it is whole.
const NEW: &str = ".new";

fn packages(kept: &Path) -> PathBuf {
    kept.join("packages")
}

/// Where root keeps a version's package with its document.
pub(super) fn kept_folder(kept: &Path, version: ReleaseVersion) -> PathBuf {
    packages(kept).join(version.to_string())
}

/// Removes every version that is not named.
pub(super) fn keep_only(kept: &Path, wanted: &[ReleaseVersion]) -> Result<()> {
    let folder = packages(kept);
    let failed = |error| file_failure("tidying", &folder, error);
    let listed = match Disk.list(&folder, None, MAX_NAMES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    let old = listed.iter().filter(|entry| entry.name.parse().map_or(true, |version| !wanted.contains(&version)));
    old.map(|entry| folder.join(&entry.name))
        .try_for_each(|path| ignore_missing(Disk.remove_dir_all(&path)).map_err(|error| file_failure("removing", &path, error)))
}

/// What is taken for what.
pub(super) struct Taking<'a> {
    pub(super) kept: &'a Path,
    pub(super) layout: &'a Layout,
    pub(super) installed: &'a Installed,
    pub(super) keys: &'a ReleaseKeys,
}

impl Taking<'_> {
    /// Takes the newest version that lies ready and may follow; nothing where there is none.
    pub(super) fn candidate(&self, report: &Report) -> Result<Option<Side>> {
        let Some(agent) = self.agent()? else { return Ok(None) };
        let ready = agent.list(&self.layout.updates(), None, MAX_NAMES);
        let ready = match ready {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other.map_err(|error| file_failure("listing", &self.layout.updates(), error))?,
        };
        let versions = ready.iter().filter_map(|entry| entry.name.parse::<ReleaseVersion>().ok());
        let newer = versions.filter(|version| *version > self.installed.version && !report.refused.contains(version));
        let whole = newer.filter(|version| agent.stat(&self.layout.update_whole(*version)).is_ok());
        let Some(version) = whole.max() else { return Ok(None) };
        let (release, side) = self.side(&*agent, version)?;
        release.check_follows(self.installed.version)?;
        Ok(Some(side))
    }

    /// Takes the package of the installed version, unless it is kept.
    pub(super) fn previous(&self) -> Result<Side> {
        let version = self.installed.version;
        if let Ok((release, package)) = self.verified(&Disk, &kept_folder(self.kept, version), version)
            && matches(&Disk, &kept_folder(self.kept, version).join(package.file.as_str()), &package)?
        {
            return Ok(Side { version: release.version, file: package.file });
        }
        let missing = |error: Failure| {
            let message =
                format!("the package of the installed version {version} is not here, so that nobody could go back to it");
            Failure::park(Code::UpdateRefused, message).caused_by(error)
        };
        let agent = self.agent()?;
        let agent = agent.ok_or_else(|| missing(Failure::park(Code::NotFound, "nothing was fetched")))?;
        self.side(&*agent, version).map(|(_, side)| side).map_err(missing)
    }

    /// The folder above the agent's state folder, below which no link is followed but the state folder itself, whose name is not the
    /// agent's.
    fn agent(&self) -> Result<Option<std::sync::Arc<dyn FileStore>>> {
        let state = self.layout.state();
        let above = state.parent().unwrap_or(state);
        match disk_below(above) {
            Err(error) if is_missing(&error) => Ok(None),
            other => other.map(Some).map_err(|error| file_failure("opening", above, error)),
        }
    }

    /// The document of a version in a folder, believed, and the package of this platform.
    fn verified(&self, files: &dyn FileStore, folder: &Path, version: ReleaseVersion) -> Result<(Release, Package)> {
        let [document, signature] = documents(files, folder)?;
        self.opened(&document, &signature, version)
    }

    fn opened(&self, document: &[u8], signature: &[u8], version: ReleaseVersion) -> Result<(Release, Package)> {
        let release = self.keys.open(document, signature)?;
        if release.version != version {
            let message = format!("release {} lies in the place of {version}", release.version);
            return Err(Failure::park(Code::ReleaseInvalid, message));
        }
        let package = self.installed.package(&release)?.clone();
        Ok((release, package))
    }

    /// Copies a version into root's folder. The copy is what is verified: what was copied may be another thing a moment later. What its
    /// maker has not signed is not written at all, and of what is not what it should be nothing stays: others may read that folder.
    fn side(&self, agent: &dyn FileStore, version: ReleaseVersion) -> Result<(Release, Side)> {
        let (theirs, ours) = (self.layout.update(version), kept_folder(self.kept, version));
        let new = packages(self.kept).join(format!("{NEW}-{version}"));
        let failed = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| file_failure(what, &path, error)
        };
        for left in [&new, &ours] {
            ignore_missing(Disk.remove_dir_all(left)).map_err(failed("removing", left))?;
        }
        let [document, signature] = documents(agent, &theirs)?;
        let (release, package) = self.opened(&document, &signature, version)?;
        let copied = || {
            Disk.create_dir_all(&new).map_err(failed("making the folder", &new))?;
            for (name, bytes) in [(RELEASE_NAME, &document), (RELEASE_SIGNATURE_NAME, &signature)] {
                write_whole(&Disk, &new.join(name), bytes).map_err(failed("writing", &new))?;
            }
            room::check(&Disk, self.kept, DEFAULT_RESERVE_BYTES, package.size, "packages")?;
            let (from, to) = (theirs.join(package.file.as_str()), new.join(package.file.as_str()));
            copy(agent, &from, &to, package.size)?;
            if matches(&Disk, &to, &package)? {
                return Ok(());
            }
            let message = format!("{} is not the package that its maker has signed", from.display());
            Err(Failure::park(Code::DigestMismatch, message))
        };
        if let Err(failure) = copied() {
            ignore_missing(Disk.remove_dir_all(&new)).map_err(failed("removing", &new))?;
            return Err(failure);
        }
        Disk.rename(&new, &ours).and_then(|()| Disk.sync_dir(&packages(self.kept))).map_err(failed("renaming", &new))?;
        Ok((release, Side { version, file: package.file }))
    }
}

/// A version's document and its signature, as they lie in a folder.
fn documents(files: &dyn FileStore, folder: &Path) -> Result<[Vec<u8>; 2]> {
    let read = |name: &str, limit: usize| {
        let path = folder.join(name);
        read_whole(files, &path, limit as u64).map_err(|error| file_failure("reading", &path, error))
    };
    Ok([read(RELEASE_NAME, MAX_RELEASE_BYTES)?, read(RELEASE_SIGNATURE_NAME, MAX_SIGNATURE_BYTES)?])
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound)
}

/// Copies at most one byte more than the file may have.
fn copy(files: &dyn FileStore, from: &Path, to: &Path, size: u64) -> Result<()> {
    let mut file = Disk.create(to).map_err(|error| file_failure("writing", to, error))?;
    let mut written = Ok(());
    each_chunk(files, from, size.saturating_add(1), |bytes| {
        if written.is_ok() {
            written = file.write_all(bytes);
        }
    })
    .map_err(|error| file_failure("reading", from, error))?;
    written.and_then(|()| file.sync_all()).map_err(|error| file_failure("writing", to, error))
}

/// Whether a file of root's is the package that was signed for.
fn matches(files: &dyn FileStore, path: &Path, package: &Package) -> Result<bool> {
    match files.stat(path) {
        Ok(stat) if stat.kind == FileKind::File && stat.len == package.size => {}
        Err(error) if !is_missing(&error) => return Err(file_failure("looking at", path, error)),
        _ => return Ok(false),
    }
    let mut hasher = Sha256Hasher::new();
    each_chunk(files, path, package.size, |bytes| hasher.update(bytes)).map_err(|error| file_failure("reading", path, error))?;
    Ok(hasher.finish() == package.sha256)
}
