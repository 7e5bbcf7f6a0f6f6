//! Fetches a release from the relay: its document first, and the package only where its maker has signed for it.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use towpath_keys::ReleaseKeys;
use towpath_transfer::{
    Code, Failure, FileName, RemotePath,
    digest::{Sha256Digest, Sha256Hasher},
    failure::Result,
    packed::PART_SUFFIX,
    receipt::MAX_SIGNATURE_BYTES,
    release::{MAX_RELEASE_BYTES, Package, RELEASE_NAME, RELEASE_SIGNATURE_NAME, Release, ReleaseVersion},
};
use towpath_transport::{
    files::{FileStore, each_chunk, file_failure, ignore_missing, publish},
    store::{Far, FetchError, Retry, RetryPolicy, StoreError, StoreErrorKind, fetch, read_remote},
};

use super::{Installed, Ready, Report, Updates, is_open};
use crate::{blocking::blocking, parts::Parts, room, small_file, uplink::folder::own_name};

/// How often a package is fetched before it is given up: once, and once more from its first byte.
pub const DOWNLOAD_TRIES: u32 = 2;
/// The most folders of versions that are looked at when what is not needed is removed.
const MAX_FOLDERS: usize = 100;

/// Is told how far a file is: its name, bytes here, bytes in all.
pub type Told<'a> = &'a (dyn Fn(&FileName, u64, u64) + Send + Sync);

impl Updates {
    /// Fetches the newest version that this agent follows, and first the package of the installed one, to go back to; nothing where
    /// there is no such version. What is here already is not fetched again, and what an interrupted try has left is gone on with.
    ///
    /// # Errors
    /// `update-refused` where no approved version may follow, or the installed one is neither kept nor approved; `release-invalid`,
    /// `digest-mismatch`; as relay and disk report.
    pub async fn download(&self, told: Told<'_>) -> Result<Option<Ready>> {
        let keys = self.keys()?;
        let (installed, report) = self.installed().await?;
        let approved = self.approved().await?;
        let fetching = Fetching { parts: &self.parts, store: store(&self.parts), installed: &installed, keys: &keys, told };
        // What was withdrawn goes, before anybody takes it: root looks at what lies here, and not at the relay.
        fetching.keep_only(approved.iter().copied().chain([installed.version]).collect()).await?;
        let mut unfit = None;
        for version in approved.iter().rev().filter(|version| is_open(**version, &installed, &report)) {
            let release = fetching.document(*version).await?;
            if let Err(failure) = release.check_follows(installed.version) {
                unfit.get_or_insert(failure);
                continue;
            }
            fetching.previous(&approved, &report).await?;
            fetching.package(&release).await?;
            fetching.keep_only(vec![*version, installed.version]).await?;
            return Ok(Some(Ready { version: *version, previous: installed.version }));
        }
        unfit.map_or(Ok(None), Err)
    }
}

fn store(parts: &Parts) -> Retry {
    Retry::new(Arc::clone(&parts.stores), RetryPolicy::default(), Arc::clone(&parts.clock), Arc::clone(&parts.entropy))
}

struct Fetching<'a> {
    parts: &'a Arc<Parts>,
    store: Retry,
    installed: &'a Installed,
    keys: &'a ReleaseKeys,
    told: Told<'a>,
}

impl Fetching<'_> {
    /// The document of a version, believed and written down with its signature.
    async fn document(&self, version: ReleaseVersion) -> Result<Release> {
        let document = self.small(version, RELEASE_NAME, MAX_RELEASE_BYTES).await?;
        let signature = self.small(version, RELEASE_SIGNATURE_NAME, MAX_SIGNATURE_BYTES).await?;
        let release = self.keys.open(&document, &signature)?;
        if release.version != version {
            let message = format!("the relay has release {} in the place of {version}", release.version);
            return Err(Failure::park(Code::ReleaseInvalid, message));
        }
        let (parts, folder) = (Arc::clone(self.parts), self.folder(version));
        blocking(move || {
            room::check_here(&parts, 0, "the documents of a release")?;
            for (name, bytes) in [(RELEASE_NAME, &document), (RELEASE_SIGNATURE_NAME, &signature)] {
                small_file::write_if_different(&*parts.files, &folder.join(name), bytes)?;
            }
            Ok(())
        })
        .await?;
        Ok(release)
    }

    async fn small(&self, version: ReleaseVersion, name: &str, limit: usize) -> Result<Vec<u8>> {
        read_remote(&self.store, &far_path(version, &own_name(name)?)?, limit).await.map_err(far)
    }

    fn folder(&self, version: ReleaseVersion) -> PathBuf {
        self.parts.layout.update(version)
    }

    /// What to go back to: kept by whoever applies updates, or fetched as well.
    async fn previous(&self, approved: &[ReleaseVersion], report: &Report) -> Result<()> {
        let version = self.installed.version;
        if report.kept == Some(version) {
            return Ok(());
        }
        if !approved.contains(&version) {
            let message = format!(
                "the package of the installed version {version} is not kept here and not approved at the relay, so that nobody could go back \
                 to it: have the relay's operator approve {version} as well"
            );
            return Err(Failure::park(Code::UpdateRefused, message));
        }
        let release = self.document(version).await?;
        self.package(&release).await
    }

    /// Fetches the package of a release unless it is here, whole and as it was signed; then says that the release is whole.
    async fn package(&self, release: &Release) -> Result<()> {
        let package = self.installed.package(release)?;
        let folder = self.folder(release.version);
        let whole = folder.join(package.file.as_str());
        if !self.is_right(&whole, package).await? {
            let name = package.file.with_suffix(PART_SUFFIX).map_err(|error| {
                Failure::park(Code::ReleaseInvalid, format!("the name {} is too long", package.file)).caused_by(error)
            })?;
            let part = folder.join(name.as_str());
            let mut tries = 0;
            while !self.attempt(release.version, package, &part, &whole).await? {
                tries += 1;
                if tries >= DOWNLOAD_TRIES {
                    let message = format!("{} came from the relay with other bytes than its maker has signed", package.file);
                    return Err(Failure::retry(Code::DigestMismatch, message));
                }
            }
        }
        (self.told)(&package.file, package.size, package.size);
        let (parts, marker) = (Arc::clone(self.parts), self.parts.layout.update_whole(release.version));
        blocking(move || small_file::write_if_different(&*parts.files, &marker, b"")).await
    }

    /// `false` where the bytes were wrong; nothing of them is kept then.
    async fn attempt(&self, version: ReleaseVersion, package: &Package, part: &Path, whole: &Path) -> Result<bool> {
        let (parts, at, size) = (Arc::clone(self.parts), part.to_owned(), package.size);
        let here = blocking(move || {
            let here = parts.files.stat(&at).map_or(0, |stat| stat.len);
            room::check_here(&parts, size.saturating_sub(here), "packages")?;
            Ok(if here > size { 0 } else { here })
        });
        let done = AtomicU64::new(here.await?);
        let allow = |bytes: u64| {
            let now = done.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes);
            (self.told)(&package.file, now.min(size), size);
            Ok(())
        };
        match fetch(&self.store, &far_path(version, &package.file)?, size, &self.parts.files, part, &allow).await {
            // Nothing of it is left.
            Err(FetchError::Length { .. }) => return Ok(false),
            Err(FetchError::Far(error)) => return Err(far(error)),
            Err(FetchError::Disk(error)) => return Err(file_failure("writing", part, error)),
            Err(FetchError::Refused(failure)) => return Err(failure),
            Ok(()) => {}
        }
        let right = self.is_right(part, package).await?;
        let (files, part, whole) = (Arc::clone(&self.parts.files), part.to_owned(), whole.to_owned());
        blocking(move || {
            let done = if right { publish(&*files, &part, &whole) } else { ignore_missing(files.remove(&part)) };
            done.map_err(|error| file_failure("finishing", &part, error))
        })
        .await?;
        Ok(right)
    }

    /// Whether a file is the package that was signed for.
    async fn is_right(&self, path: &Path, package: &Package) -> Result<bool> {
        let (files, path, size, wanted) = (Arc::clone(&self.parts.files), path.to_owned(), package.size, package.sha256);
        blocking(move || match files.stat(&path) {
            Ok(stat) if stat.len == size => digest(&*files, &path).map(|found| found == wanted),
            Err(error) if error.kind() != ErrorKind::NotFound => Err(file_failure("looking at", &path, error)),
            _ => Ok(false),
        })
        .await
    }

    /// Removes every version but the one to follow and the installed one.
    async fn keep_only(&self, keep: Vec<ReleaseVersion>) -> Result<()> {
        let parts = Arc::clone(self.parts);
        blocking(move || {
            let folder = parts.layout.updates();
            let found = match parts.files.list(&folder, None, MAX_FOLDERS) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                listed => listed.map_err(|error| file_failure("listing", &folder, error))?,
            };
            let old = found.iter().filter_map(|entry| entry.name.parse::<ReleaseVersion>().ok());
            old.filter(|version| !keep.contains(version)).try_for_each(|version| {
                let path = parts.layout.update(version);
                ignore_missing(parts.files.remove_dir_all(&path)).map_err(|error| file_failure("removing", &path, error))
            })
        })
        .await
    }
}

fn digest(files: &dyn FileStore, path: &Path) -> Result<Sha256Digest> {
    let mut hasher = Sha256Hasher::new();
    each_chunk(files, path, u64::MAX, |bytes| hasher.update(bytes)).map_err(|error| file_failure("reading", path, error))?;
    Ok(hasher.finish())
}

/// A file of a release in the agent's root at the relay.
fn far_path(version: ReleaseVersion, name: &FileName) -> Result<RemotePath> {
    let failed = |error| Failure::park(Code::Internal, format!("the far path of {name}")).caused_by(error);
    let parts = [own_name("update")?, own_name(&version.to_string())?, name.clone()];
    parts.into_iter().try_fold(RemotePath::root(), |path, part| path.join(part)).map_err(failed)
}

/// What the relay has named and does not show may have been withdrawn meanwhile.
fn far(error: StoreError) -> Failure {
    match error.kind() {
        StoreErrorKind::NotFound => Failure::retry(Code::NotFound, "fetching a release from the relay").caused_by(error),
        _ => error.into_failure(Far::Relay),
    }
}
