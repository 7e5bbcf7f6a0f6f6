//! Whose releases a program believes: the keys that it was built with.
//!
//! The private half stays with whoever builds Towpath, away from every network: `ssh-keygen -Y sign -n towpath-release@1`. The public
//! half is part of the program (`TOWPATH_RELEASE_KEYS` at build time), so that nothing that a relay, a configuration or a state
//! folder says can put another one in its place.

use towpath_transfer::{Code, Failure, failure::Result, release::Release};

use crate::{
    public::PublicKey,
    sshsig::{self, Namespace},
};

/// The most keys of one program: the one in use, and those that are to follow it.
pub const MAX_RELEASE_KEYS: usize = 8;

/// What this program was built with: public keys as OpenSSH writes them, one a line.
const BUILT_IN: Option<&str> = option_env!("TOWPATH_RELEASE_KEYS");

/// By which a test names the keys, in a program with failpoints that is not built for a release. The packages of a release are
/// searched for it.
#[cfg(all(feature = "failpoints", debug_assertions))]
pub const TEST_VARIABLE: &str = "TOWPATH_RELEASE_KEYS_OF_TEST";

/// The keys whose releases are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseKeys(Vec<PublicKey>);

impl ReleaseKeys {
    /// Those of this program.
    ///
    /// # Errors
    /// [`Code::UpdateRefused`] where it was built without any, and so takes no updates; [`Code::KeyInvalid`] where it was built with
    /// something else than keys.
    pub fn of_this_program() -> Result<Self> {
        Self::read(BUILT_IN, named_by_test().as_deref())
    }

    /// The keys that stand one a line; those of a test come before those that are built in.
    fn read(built_in: Option<&str>, of_test: Option<&str>) -> Result<Self> {
        let lines = of_test.or(built_in).unwrap_or_default().lines().map(str::trim);
        let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
            line.parse::<PublicKey>()
                .map_err(|error| Failure::park(Code::KeyInvalid, "a release key of this program cannot be used").caused_by(error))
        });
        let keys = keys.collect::<Result<Vec<_>>>()?;
        if keys.is_empty() {
            let message = "this program was built without a release key (TOWPATH_RELEASE_KEYS), so that it takes no updates";
            return Err(Failure::park(Code::UpdateRefused, message));
        }
        if keys.len() > MAX_RELEASE_KEYS {
            let message = format!("a program has at most {MAX_RELEASE_KEYS} release keys, and this one has {}", keys.len());
            return Err(Failure::park(Code::KeyInvalid, message));
        }
        Ok(Self(keys))
    }

    /// These keys alone.
    #[must_use]
    pub fn of(keys: Vec<PublicKey>) -> Self {
        Self(keys)
    }

    /// Reads a release document that one of the keys has signed. Nothing of it is read before the signature is checked.
    ///
    /// # Errors
    /// [`Code::ReleaseInvalid`] where none of them has signed these bytes, or they are no release document.
    pub fn open(&self, document: &[u8], signature: &[u8]) -> Result<Release> {
        let refused = |why: String| Failure::park(Code::ReleaseInvalid, format!("the release document is not believed: {why}"));
        let unsigned = |error: Failure| refused("its signature is wrong".to_owned()).caused_by(error);
        let signer = sshsig::signer_of(signature).map_err(unsigned)?;
        if !self.0.contains(&signer) {
            let by = signer.fingerprint();
            return Err(refused(format!("it is signed by {by}, which is no release key of this program")));
        }
        sshsig::verify(signature, Namespace::Release, document, &signer).map_err(unsigned)?;
        Release::parse(document)
    }
}

#[cfg(all(feature = "failpoints", debug_assertions))]
fn named_by_test() -> Option<String> {
    std::env::var(TEST_VARIABLE).ok()
}

#[cfg(not(all(feature = "failpoints", debug_assertions)))]
fn named_by_test() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use towpath_transfer::{
        digest::Sha256Digest,
        release::{Package, PackageKind},
    };

    use super::*;
    use crate::testing::{ed25519, other, rsa, ssh_keygen};

    fn document() -> Vec<u8> {
        let (size, sha256) = (3, Sha256Digest::of(b"abc"));
        let package = Package { kind: PackageKind::Deb, arch: "x86_64".into(), file: "a.deb".parse().unwrap(), size, sha256 };
        Release::of("1.2.3".parse().unwrap(), "1.0.0".parse().unwrap(), vec![package]).to_bytes().unwrap()
    }

    fn keys() -> ReleaseKeys {
        ReleaseKeys::of([ed25519(), rsa()].map(|key| key.public_line().try_into().unwrap()).to_vec())
    }

    #[test]
    fn a_document_is_believed_by_the_signature_of_a_release_key_alone() {
        let (document, signature) = (document(), ed25519().sign(Namespace::Release, &document()).unwrap());
        assert_eq!(keys().open(&document, signature.as_bytes()).unwrap().version.to_string(), "1.2.3");
        assert!(keys().open(&document, rsa().sign(Namespace::Release, &document).unwrap().as_bytes()).is_ok());
        let refused = |document: &[u8], signature: &str| keys().open(document, signature.as_bytes()).unwrap_err();
        let failures = [
            refused(&document, &other().sign(Namespace::Release, &document).unwrap()),
            refused(&document, &ed25519().sign(Namespace::Manifest, &document).unwrap()),
            refused(&[&document[..], b" "].concat(), &signature),
            refused(&document, "no signature"),
            // What is signed is believed, and still has to be a document.
            refused(b"{}", &ed25519().sign(Namespace::Release, b"{}").unwrap()),
        ];
        for failure in failures {
            assert_eq!(failure.code(), Code::ReleaseInvalid, "{}", failure.report());
        }
    }

    #[test]
    fn what_ssh_keygen_has_signed_is_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        ssh_keygen(&["-q", "-t", "ed25519", "-N", "", "-f", &path("release_key")], b"");
        std::fs::write(path("release.json"), document()).unwrap();
        ssh_keygen(&["-q", "-Y", "sign", "-f", &path("release_key"), "-n", "towpath-release@1", &path("release.json")], b"");
        let keys = ReleaseKeys::read(Some(&std::fs::read_to_string(path("release_key.pub")).unwrap()), None).unwrap();
        assert!(keys.open(&document(), &std::fs::read(path("release.json.sig")).unwrap()).is_ok());
    }

    #[test]
    fn a_program_has_the_keys_that_it_was_built_with() {
        let (one, two) = (ed25519().public_line().to_string(), other().public_line().to_string());
        let two_lines = format!("# of 2026\n{one}\n\n {two} \n");
        assert_eq!(ReleaseKeys::read(Some(&two_lines), None).unwrap().0.len(), 2);
        for none in [None, Some(""), Some("# none\n")] {
            let failure = ReleaseKeys::read(none, None).unwrap_err();
            assert!(failure.code() == Code::UpdateRefused && failure.report().contains("takes no updates"));
        }
        assert_eq!(ReleaseKeys::read(Some("ssh-ed25519 x"), None).unwrap_err().code(), Code::KeyInvalid);
        let many = format!("{one}\n").repeat(MAX_RELEASE_KEYS + 1);
        assert_eq!(ReleaseKeys::read(Some(&many), None).unwrap_err().code(), Code::KeyInvalid);
        let of_test = ReleaseKeys::read(Some(&one), Some(&two)).unwrap();
        assert_eq!(of_test, ReleaseKeys::of(vec![other().public_line().try_into().unwrap()]));
    }

    #[cfg(not(all(feature = "failpoints", debug_assertions)))]
    #[test]
    fn nobody_can_name_a_key_to_a_program_without_failpoints() {
        assert_eq!(named_by_test(), None);
    }
}
