//! A release: the packages of one version of the agent, as its maker lists and signs them.
//!
//! The document travels with its signature (SSHSIG, namespace `towpath-release@1`) from whoever builds Towpath over a relay to the
//! agents. Nobody in between can change it, and nobody but the agent decides what it follows.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::Sha256Digest,
    failure::{Code, Failure, Result},
    name::FileName,
};

/// The name of the document.
pub const RELEASE_NAME: &str = "release.json";
/// The name of its signature, as `ssh-keygen -Y sign` calls it.
pub const RELEASE_SIGNATURE_NAME: &str = "release.json.sig";
/// The form of the document that this program reads. Fields may be added to it; what changes a meaning is another form.
pub const RELEASE_FORMAT: u32 = 1;
/// What the packages are of.
pub const RELEASE_PRODUCT: &str = "towpath-agent";
/// The largest document, in bytes.
pub const MAX_RELEASE_BYTES: usize = 64 * 1024;
/// The most packages of one release.
pub const MAX_PACKAGES: usize = 50;
/// The largest package, in bytes.
pub const MAX_PACKAGE_BYTES: u64 = 512 * 1024 * 1024;
/// The longest name of an architecture, in bytes.
const MAX_ARCH_BYTES: usize = 20;

/// A version: three numbers, such as `1.4.0`, of which one is newer than another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^(0|[1-9][0-9]{0,4})([.](0|[1-9][0-9]{0,4})){2}$")]
pub struct ReleaseVersion([u16; 3]);

/// Text that is not a [`ReleaseVersion`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a version is three numbers up to 65535 without leading zeros, such as 1.4.0")]
pub struct InvalidVersion;

impl FromStr for ReleaseVersion {
    type Err = InvalidVersion;

    /// Accepts exactly the form that [`fmt::Display`] writes: a version is the name of a folder.
    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let mut numbers = text.split('.').map(str::parse::<u16>);
        let mut next = || numbers.next().and_then(Result::ok).ok_or(InvalidVersion);
        let version = Self([next()?, next()?, next()?]);
        if version.to_string() == text { Ok(version) } else { Err(InvalidVersion) }
    }
}

impl TryFrom<String> for ReleaseVersion {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, InvalidVersion> {
        text.parse()
    }
}

impl From<ReleaseVersion> for String {
    fn from(version: ReleaseVersion) -> Self {
        version.to_string()
    }
}

impl fmt::Display for ReleaseVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Whose installer reads a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PackageKind {
    /// dpkg's: Debian, Ubuntu.
    Deb,
    /// rpm's: RHEL and its kin, SUSE.
    Rpm,
    /// Windows Installer's.
    Msi,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}

impl fmt::Display for PackageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deb => "deb",
            Self::Rpm => "rpm",
            Self::Msi => "msi",
            Self::Other => "other",
        })
    }
}

/// One package of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Whose installer reads it.
    pub kind: PackageKind,
    /// For which architecture, by the name that Rust has for it (`std::env::consts::ARCH`).
    pub arch: String,
    /// Its file.
    pub file: FileName,
    /// The file's length in bytes.
    pub size: u64,
    /// The file's SHA-256.
    pub sha256: Sha256Digest,
}

/// The packages of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// [`RELEASE_FORMAT`].
    pub format: u32,
    /// [`RELEASE_PRODUCT`].
    pub product: String,
    /// The version.
    pub version: ReleaseVersion,
    /// The oldest version that it may follow, and that may follow it again: what one of the two writes, the other reads.
    pub follows: ReleaseVersion,
    /// Its packages, at most one for each kind and architecture.
    pub packages: Vec<Package>,
}

fn invalid(why: impl fmt::Display) -> Failure {
    Failure::park(Code::ReleaseInvalid, format!("the release document cannot be used: {why}"))
}

impl Release {
    /// The release of these packages.
    #[must_use]
    pub fn of(version: ReleaseVersion, follows: ReleaseVersion, packages: Vec<Package>) -> Self {
        Self { format: RELEASE_FORMAT, product: RELEASE_PRODUCT.to_owned(), version, follows, packages }
    }

    /// Reads a document. Who has signed it is not looked at here: see `towpath_keys::ReleaseKeys`.
    ///
    /// # Errors
    /// [`Code::ReleaseInvalid`] for one that is too large, of another form or product, or that contradicts itself.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_RELEASE_BYTES {
            return Err(invalid(format!("it is larger than {MAX_RELEASE_BYTES} bytes")));
        }
        // What another form looks like is not known here.
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let form: Form = serde_json::from_slice(bytes).map_err(|error| invalid("it is no release document").caused_by(error))?;
        if form.format != RELEASE_FORMAT {
            let found = form.format;
            return Err(invalid(format!("it is of form {found}, and this program reads form {RELEASE_FORMAT}")));
        }
        let release: Self = serde_json::from_slice(bytes).map_err(|error| invalid("it is malformed").caused_by(error))?;
        release.check()?;
        Ok(release)
    }

    fn check(&self) -> Result<()> {
        if self.product != RELEASE_PRODUCT {
            return Err(invalid(format!("it is of {:?}, and not of {RELEASE_PRODUCT}", self.product)));
        }
        if self.follows > self.version {
            return Err(invalid(format!("version {} cannot follow {} only", self.version, self.follows)));
        }
        if self.packages.is_empty() || self.packages.len() > MAX_PACKAGES {
            return Err(invalid(format!("a release has 1 to {MAX_PACKAGES} packages")));
        }
        for (at, package) in self.packages.iter().enumerate() {
            let arch = (1..=MAX_ARCH_BYTES).contains(&package.arch.len())
                && package.arch.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            let name = package.file.as_str();
            if !arch || package.size == 0 || package.size > MAX_PACKAGE_BYTES {
                return Err(invalid(format!("the architecture or size of {name} is impossible")));
            }
            if name.starts_with(['.', '-']) || [RELEASE_NAME, RELEASE_SIGNATURE_NAME].contains(&name) {
                return Err(invalid(format!("a package cannot be called {name}")));
            }
            let mut before = self.packages.iter().take(at);
            let is_known = package.kind != PackageKind::Other;
            let alike = |one: &Package| {
                one.file.case_folded() == package.file.case_folded()
                    || is_known && (one.kind, &one.arch) == (package.kind, &package.arch)
            };
            if before.any(alike) {
                return Err(invalid(format!("{name} is named twice, or is not the only one of its kind")));
            }
        }
        Ok(())
    }

    /// The document as it is written, for the signature.
    ///
    /// # Errors
    /// [`Code::ReleaseInvalid`] where it could not be read again.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::park(Code::Internal, "writing a release document").caused_by(error))?;
        bytes.push(b'\n');
        if bytes.len() > MAX_RELEASE_BYTES {
            return Err(invalid(format!("it is larger than {MAX_RELEASE_BYTES} bytes")));
        }
        Ok(bytes)
    }

    /// The package for this installer and architecture.
    #[must_use]
    pub fn package(&self, kind: PackageKind, arch: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.kind == kind && package.arch == arch)
    }

    /// Whether it may follow the version `installed`.
    ///
    /// # Errors
    /// [`Code::UpdateRefused`]: it is no newer one, or follows newer ones only.
    pub fn check_follows(&self, installed: ReleaseVersion) -> Result<()> {
        let version = self.version;
        if version <= installed {
            let message = format!("version {version} is not newer than the installed {installed}: an update never goes back");
            return Err(Failure::park(Code::UpdateRefused, message));
        }
        if installed < self.follows {
            let message = format!(
                "version {version} follows {} or a newer one, and {installed} is installed: update to that one first",
                self.follows
            );
            return Err(Failure::park(Code::UpdateRefused, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> ReleaseVersion {
        text.parse().unwrap()
    }

    fn package(kind: PackageKind, arch: &str, file: &str) -> Package {
        Package { kind, arch: arch.into(), file: file.parse().unwrap(), size: 3, sha256: Sha256Digest::of(b"abc") }
    }

    fn release() -> Release {
        let packages = vec![package(PackageKind::Deb, "x86_64", "a.deb"), package(PackageKind::Rpm, "x86_64", "a.rpm")];
        Release::of(version("1.10.0"), version("1.2.0"), packages)
    }

    #[test]
    fn versions_have_one_form_and_an_order() {
        assert!(version("1.10.0") > version("1.9.65535") && version("2.0.0") > version("1.99.99"));
        for bad in ["", "1", "1.2", "1.2.3.4", "1.2.x", "01.2.3", "1.2.65536", "+1.2.3", " 1.2.3", "1.2.3-rc1", "../../x"] {
            assert_eq!(bad.parse::<ReleaseVersion>(), Err(InvalidVersion), "{bad}");
        }
    }

    #[test]
    fn a_document_is_read_as_it_was_written_and_what_is_added_later_is_passed_over() {
        let bytes = release().to_bytes().unwrap();
        assert_eq!(Release::parse(&bytes).unwrap(), release());
        let text = String::from_utf8(bytes).unwrap();
        let newer = text.replacen('{', "{\"notes\": \"x\",", 1).replacen("\"rpm\"", "\"snap\"", 1);
        let read = Release::parse(newer.as_bytes()).unwrap();
        assert_eq!(read.package(PackageKind::Deb, "x86_64"), Some(&release().packages[0]));
        assert_eq!(read.package(PackageKind::Rpm, "x86_64"), None);
        assert_eq!(release().package(PackageKind::Deb, "aarch64"), None);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let broken = |change: &dyn Fn(&mut Release)| {
            let mut release = release();
            change(&mut release);
            let bytes = serde_json::to_vec(&release).unwrap();
            let failure = Release::parse(&bytes).unwrap_err();
            assert_eq!(failure.code(), Code::ReleaseInvalid);
            assert_eq!(release.to_bytes().unwrap_err().code(), Code::ReleaseInvalid);
        };
        broken(&|release| release.product = "towpath-relay".into());
        broken(&|release| release.follows = version("1.10.1"));
        broken(&|release| release.packages.clear());
        broken(&|release| release.packages = vec![release.packages[0].clone(); MAX_PACKAGES + 1]);
        broken(&|release| release.packages[1].kind = PackageKind::Deb);
        broken(&|release| release.packages[1].file = "A.DEB".parse().unwrap());
        broken(&|release| release.packages[0].file = RELEASE_NAME.parse().unwrap());
        broken(&|release| release.packages[0].file = "--force".parse().unwrap());
        broken(&|release| release.packages[0].size = 0);
        broken(&|release| release.packages[0].size = MAX_PACKAGE_BYTES + 1);
        broken(&|release| release.packages[0].arch = "../x".into());
        let form = serde_json::to_string(&release()).unwrap().replace("\"format\":1", "\"format\":2");
        assert!(Release::parse(form.as_bytes()).unwrap_err().report().contains("form 2"));
        for bytes in [&b"{}"[..], b"", b"[]", &vec![b' '; MAX_RELEASE_BYTES + 1]] {
            assert_eq!(Release::parse(bytes).unwrap_err().code(), Code::ReleaseInvalid);
        }
    }

    #[test]
    fn an_update_goes_forward_and_leaves_nothing_out() {
        let refused = |installed: &str| release().check_follows(version(installed)).unwrap_err().code();
        assert_eq!([refused("1.10.0"), refused("1.10.1"), refused("1.1.9")], [Code::UpdateRefused; 3]);
        assert!(release().check_follows(version("1.2.0")).is_ok() && release().check_follows(version("1.9.7")).is_ok());
    }
}
