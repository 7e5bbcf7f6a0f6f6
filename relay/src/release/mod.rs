//! The releases of the agent that the operator has handed to this relay: where they lie, and what an agent sees of them.
//!
//! On disk: `releases/<version>/`, the document, its signature and the packages, as the maker has laid them out. Which tenants see
//! one stands in the registry. The relay checks everything when it takes a release, so that a mistake is noticed here; whom an agent
//! believes is for the agent to say.

mod view;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use towpath_keys::ReleaseKeys;
use towpath_transfer::{
    Code, Failure,
    digest::Sha256Hasher,
    failure::Result,
    receipt::MAX_SIGNATURE_BYTES,
    release::{MAX_RELEASE_BYTES, Package, RELEASE_NAME, RELEASE_SIGNATURE_NAME, Release, ReleaseVersion},
};
use towpath_transport::files::{Disk, FileStore, each_chunk, file_failure, ignore_missing, read_if_there};

pub use view::Offered;
pub(crate) use view::{UPDATE, is_update};

/// What a release is called until it is whole.
const NEW: &str = ".new";

/// Where the releases lie.
#[derive(Debug, Clone)]
pub struct Shelf {
    files: Arc<dyn FileStore>,
    state: PathBuf,
}

impl Shelf {
    /// Below the folder `state`.
    #[must_use]
    pub fn new(files: Arc<dyn FileStore>, state: &Path) -> Self {
        Self { files, state: state.to_owned() }
    }

    /// The folder of one version.
    #[must_use]
    pub fn folder(&self, version: ReleaseVersion) -> PathBuf {
        self.root().join(version.to_string())
    }

    fn root(&self) -> PathBuf {
        self.state.join("releases")
    }

    /// The version of the release that lies in the folder `from` of this machine. Blocking.
    ///
    /// # Errors
    /// Those of [`ReleaseKeys::open`]; [`Code::FileFailed`].
    pub fn version_in(from: &Path, keys: &ReleaseKeys) -> Result<ReleaseVersion> {
        let (document, signature) = documents(from)?;
        Ok(keys.open(&document, &signature)?.version)
    }

    /// Takes the release that lies in the folder `from` of this machine, and looks at every byte of it. One of the same version that
    /// nobody knows of, as an interrupted try leaves it, is replaced. At least `reserve` bytes stay free. Blocking.
    ///
    /// # Errors
    /// [`Code::ReleaseInvalid`], [`Code::UpdateRefused`]: those of [`ReleaseKeys::open`]; [`Code::DigestMismatch`] for a package that is
    /// not the listed one; [`Code::FileFailed`], [`Code::DiskFull`].
    pub fn take(&self, from: &Path, keys: &ReleaseKeys, reserve: u64) -> Result<Release> {
        let (document, signature) = documents(from)?;
        let release = keys.open(&document, &signature)?;
        let (root, folder) = (self.root(), self.folder(release.version));
        let new = root.join(format!("{NEW}-{}", release.version));
        let failed = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| file_failure(what, &path, error)
        };
        self.files.create_dir_all(&root).map_err(failed("make the folder", &root))?;
        self.check_room(&release, reserve)?;
        for left in [&new, &folder] {
            ignore_missing(self.files.remove_dir_all(left)).map_err(failed("remove", left))?;
        }
        let laid_out = (|| {
            self.files.create_dir_all(&new).map_err(failed("make the folder", &new))?;
            for (name, bytes) in [(RELEASE_NAME, &document), (RELEASE_SIGNATURE_NAME, &signature)] {
                let path = new.join(name);
                self.write(&path, |file| file.write_all(bytes)).map_err(failed("write", &path))?;
            }
            release.packages.iter().try_for_each(|package| self.take_package(from, &new, package))?;
            self.files.sync_dir(&new).map_err(failed("sync", &new))?;
            self.files.rename(&new, &folder).map_err(failed("rename", &new))?;
            self.files.sync_dir(&root).map_err(failed("sync", &root))
        })();
        if laid_out.is_err() {
            // What failed is told; what stays behind is removed by the next try.
            let _ = self.files.remove_dir_all(&new);
        }
        laid_out.map(|()| release)
    }

    fn check_room(&self, release: &Release, reserve: u64) -> Result<()> {
        let needed = release.packages.iter().fold(reserve, |sum, package| sum.saturating_add(package.size));
        let free = self.files.free_space(&self.state);
        let free = free.map_err(|error| file_failure("ask for the free space of", &self.state, error))?;
        if free >= needed {
            return Ok(());
        }
        let message = format!("the release and the reserve of the disk (spool.reserve) need {needed} bytes, and {free} are free");
        Err(Failure::retry(Code::DiskFull, message))
    }

    fn take_package(&self, from: &Path, to: &Path, package: &Package) -> Result<()> {
        let (source, path) = (from.join(package.file.as_str()), to.join(package.file.as_str()));
        let (mut hasher, mut size) = (Sha256Hasher::new(), 0u64);
        let copied = self.write(&path, |file| {
            let mut written = Ok(());
            // One byte more than there may be shows a file that is too long.
            each_chunk(&Disk, &source, package.size.saturating_add(1), |bytes| {
                hasher.update(bytes);
                size = size.saturating_add(bytes.len() as u64);
                if written.is_ok() {
                    written = file.write_all(bytes);
                }
            })?;
            written
        });
        copied.map_err(|error| file_failure("copy", &source, error))?;
        if size == package.size && hasher.finish() == package.sha256 {
            return Ok(());
        }
        let message = format!("{} is not the package that {RELEASE_NAME} lists", source.display());
        Err(Failure::park(Code::DigestMismatch, message))
    }

    fn write(
        &self,
        path: &Path,
        write: impl FnOnce(&mut dyn towpath_transport::files::WriteFile) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = self.files.create(path)?;
        write(&mut *file)?;
        file.sync_all()
    }

    /// Removes a release that the registry does not know any more; false where nothing of it was here. Blocking; repeating is safe.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub fn remove(&self, version: ReleaseVersion) -> Result<bool> {
        let folder = self.folder(version);
        match self.files.remove_dir_all(&folder) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(file_failure("remove", &folder, error)),
        }
    }

    /// The release of a version, as it was taken. Blocking.
    ///
    /// # Errors
    /// [`Code::FileFailed`] where it is not here, and what [`Release::parse`] says.
    pub fn read(&self, version: ReleaseVersion) -> Result<Release> {
        Release::parse(&read(&*self.files, &self.folder(version), RELEASE_NAME, MAX_RELEASE_BYTES)?)
    }
}

/// The document and its signature in the operator's folder.
fn documents(folder: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let document = read(&Disk, folder, RELEASE_NAME, MAX_RELEASE_BYTES)?;
    Ok((document, read(&Disk, folder, RELEASE_SIGNATURE_NAME, MAX_SIGNATURE_BYTES)?))
}

fn read(files: &dyn FileStore, folder: &Path, name: &str, limit: usize) -> Result<Vec<u8>> {
    let path = folder.join(name);
    let found = read_if_there(files, &path, limit as u64).map_err(|error| file_failure("read", &path, error))?;
    found.ok_or_else(|| {
        let message = format!("{} is missing: a release has {RELEASE_NAME}, its signature and the packages", path.display());
        Failure::park(Code::FileFailed, message)
    })
}

#[cfg(test)]
pub(crate) mod tests;
