//! The private key: making it, keeping it on disk, and signing with it.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ring::{
    rsa::PublicKeyComponents,
    signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair},
};
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding, SecretDocument};
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use towpath_transfer::{
    Code, Entropy, Failure,
    failure::Result,
    public_key::{Fingerprint, PublicKeyLine},
};
use zeroize::Zeroizing;

use crate::{
    file::{self, Access, Existing},
    kind::KeyKind,
    public::{PublicKey, SignatureAlgorithm},
    random::{self, EntropyRng},
};

/// The largest key file that is read, in bytes; RSA with 4096 bits needs about 3,300.
pub const MAX_KEY_FILE_BYTES: u64 = 16 * 1024;

const PKCS8_LABEL: &str = "PRIVATE KEY";
const ENCRYPTED_PKCS8_LABEL: &str = "ENCRYPTED PRIVATE KEY";
const OPENSSH_BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";

/// A private key and everything done with it.
///
/// All private-key operations are `ring`'s. The encoded key is wiped as soon as it is parsed or written; what `ring` itself
/// holds lives as long as the last clone and is never shown, serialised or handed out.
#[derive(Clone)]
pub struct Identity {
    secret: Arc<Secret>,
    public: PublicKey,
}

enum Secret {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Identity {
    /// Makes a key pair in memory.
    ///
    /// # Errors
    /// [`Code::Internal`] when the key generator fails.
    pub fn generate(kind: KeyKind, entropy: &dyn Entropy) -> Result<Self> {
        Self::from_pem(&generate_pem(kind, entropy)?).map_err(|why| generation_failed().caused_by(why))
    }

    /// Makes a key pair and keeps it in the new file `path`, mode 0600, beside `<path>.pub`.
    ///
    /// RSA is written as PKCS#8 (RFC 5958), Ed25519 in OpenSSH's form, because OpenSSH cannot read the other one everywhere.
    ///
    /// # Errors
    /// [`Code::FileFailed`] when `path` exists already (it is never overwritten) or cannot be written; [`Code::DiskFull`].
    pub fn create_file(path: &Path, kind: KeyKind, entropy: &dyn Entropy) -> Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(exists_already(path));
        }
        let pem = generate_pem(kind, entropy)?;
        let identity = Self::from_pem(&pem).map_err(|why| generation_failed().caused_by(why))?;
        let tag = random::hex::<8>(entropy);
        file::write(path, pem.as_bytes(), Access::Private, Existing::Keep, &tag).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => exists_already(path),
            _ => file::write_failed(path, e),
        })?;
        identity.write_public(path, &tag)?;
        Ok(identity)
    }

    /// Reads the key at `path`.
    ///
    /// # Errors
    /// [`Code::KeyMissing`]; [`Code::KeyPermissions`] when group or others have any access, with the command that mends it;
    /// [`Code::KeyInvalid`] when it is not RSA of 2048, 3072 or 4096 bits in PKCS#8 or Ed25519 in OpenSSH form, without
    /// passphrase; [`Code::FileFailed`].
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = file::read(path, Access::Private, MAX_KEY_FILE_BYTES)?
            .ok_or_else(|| Failure::park(Code::KeyMissing, format!("there is no key file {}", path.display())))?;
        let invalid = |why: InvalidKey| {
            Failure::park(Code::KeyInvalid, format!("the key file {} cannot be used", path.display())).caused_by(why)
        };
        let pem = str::from_utf8(&bytes).map_err(|_| invalid(InvalidKey::NotPem))?;
        Self::from_pem(pem).map_err(invalid)
    }

    /// Reads the key at `path`, or makes one there if there is none; writes a missing `<path>.pub`.
    ///
    /// # Errors
    /// Those of [`Identity::load`] and [`Identity::create_file`].
    pub fn load_or_create(path: &Path, kind: KeyKind, entropy: &dyn Entropy) -> Result<Self> {
        match Self::load(path) {
            Err(failure) if failure.code() == Code::KeyMissing => Self::create_file(path, kind, entropy),
            Err(failure) => Err(failure),
            Ok(identity) => {
                if !public_path(path).exists() {
                    identity.write_public(path, &random::hex::<8>(entropy))?;
                }
                Ok(identity)
            }
        }
    }

    /// Puts the key file `from` in the place of `to`, in one step, with its public half. Whatever stops in between is ended by the
    /// same call. Blocking.
    ///
    /// # Errors
    /// Those of [`Identity::load`]; [`Code::FileFailed`], [`Code::DiskFull`].
    pub fn put_in_place(from: &Path, to: &Path) -> Result<()> {
        Self::load(from)?.write_public(to, "next")?;
        file::rename(from, to).map_err(|e| file::write_failed(to, e))?;
        file::remove(&public_path(from)).map_err(|e| file::write_failed(&public_path(from), e))
    }

    /// Removes a key file and its public half, where they are there. Blocking.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub fn remove(path: &Path) -> Result<()> {
        for path in [path, &public_path(path)] {
            file::remove(path).map_err(|e| file::write_failed(path, e))?;
        }
        Ok(())
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// The public half in OpenSSH's one-line form.
    #[must_use]
    pub fn public_line(&self) -> &PublicKeyLine {
        self.public.line()
    }

    /// The fingerprint that `ssh-keygen -l` shows.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.public.fingerprint()
    }

    /// A raw signature, without any framing.
    pub(crate) fn sign_raw(&self, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>> {
        let failed = || Failure::park(Code::Internal, format!("signing with the key {} failed", self.fingerprint()));
        match (&*self.secret, algorithm) {
            (Secret::Rsa(key), SignatureAlgorithm::RsaSha256) => rsa_sign(key, &RSA_PKCS1_SHA256, message).ok_or_else(failed),
            (Secret::Rsa(key), SignatureAlgorithm::RsaSha512) => rsa_sign(key, &RSA_PKCS1_SHA512, message).ok_or_else(failed),
            (Secret::Ed25519(key), SignatureAlgorithm::Ed25519) => Ok(key.sign(message).as_ref().to_vec()),
            _ => Err(failed()),
        }
    }

    /// What this key signs with where it may choose.
    pub(crate) fn preferred_algorithm(&self) -> SignatureAlgorithm {
        match *self.secret {
            Secret::Rsa(_) => SignatureAlgorithm::RsaSha512,
            Secret::Ed25519(_) => SignatureAlgorithm::Ed25519,
        }
    }

    fn write_public(&self, path: &Path, tag: &str) -> Result<()> {
        let path = public_path(path);
        let line = format!("{}\n", self.public_line());
        file::write(&path, line.as_bytes(), Access::Pinned, Existing::Replace, tag).map_err(|e| file::write_failed(&path, e))
    }

    fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        if pem.trim_start().starts_with(OPENSSH_BEGIN) {
            return Self::from_openssh(pem);
        }
        let (label, der) = SecretDocument::from_pem(pem).map_err(|_| InvalidKey::NotPem)?;
        match label {
            PKCS8_LABEL => Self::from_pkcs8(der.as_bytes()),
            ENCRYPTED_PKCS8_LABEL => Err(InvalidKey::Encrypted),
            _ => Err(InvalidKey::Form),
        }
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, InvalidKey> {
        let key = RsaKeyPair::from_pkcs8(der).map_err(|e| InvalidKey::Rejected(e.to_string()))?;
        let parts: PublicKeyComponents<Vec<u8>> = key.public().into();
        let public = PublicKey::from_rsa_parts(&parts.n, &parts.e).map_err(|e| InvalidKey::Rejected(e.to_string()))?;
        Ok(Self { secret: Arc::new(Secret::Rsa(key)), public })
    }

    fn from_openssh(pem: &str) -> Result<Self, InvalidKey> {
        let parsed = ssh_key::PrivateKey::from_openssh(pem).map_err(|e| InvalidKey::Rejected(e.to_string()))?;
        if parsed.is_encrypted() {
            return Err(InvalidKey::Encrypted);
        }
        let pair = parsed.key_data().ed25519().ok_or(InvalidKey::Form)?;
        let key = Ed25519KeyPair::from_seed_and_public_key(pair.private.as_ref(), pair.public.as_ref())
            .map_err(|e| InvalidKey::Rejected(e.to_string()))?;
        let public = PublicKey::from_ed25519(key.public_key().as_ref()).map_err(|e| InvalidKey::Rejected(e.to_string()))?;
        Ok(Self { secret: Arc::new(Secret::Ed25519(key)), public })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
enum InvalidKey {
    #[error("it is not a private key in PEM form")]
    NotPem,
    #[error(
        "it is neither RSA in PKCS#8 form nor Ed25519 in OpenSSH form; an RSA key of another form is converted in place by: \
         ssh-keygen -p -m PKCS8 -N '' -f FILE"
    )]
    Form,
    #[error("it has a passphrase, which a service cannot type")]
    Encrypted,
    #[error(
        "it was rejected ({0}); accepted are RSA of 2048, 3072 or 4096 bits in PKCS#8 form and Ed25519 in OpenSSH form, \
         without passphrase"
    )]
    Rejected(String),
}

#[expect(clippy::disallowed_types, reason = "ring asks for a generator and accepts only its own; this padding draws nothing")]
fn rsa_sign(key: &RsaKeyPair, padding: &'static dyn RsaEncoding, message: &[u8]) -> Option<Vec<u8>> {
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(padding, &ring::rand::SystemRandom::new(), message, &mut signature).ok()?;
    Some(signature)
}

fn generate_pem(kind: KeyKind, entropy: &dyn Entropy) -> Result<Zeroizing<String>> {
    match kind.rsa_bits() {
        Some(bits) => {
            let key = rsa::RsaPrivateKey::new(&mut EntropyRng(entropy), bits).map_err(|e| generation_failed().caused_by(e))?;
            key.to_pkcs8_pem(LineEnding::LF).map_err(|e| generation_failed().caused_by(e))
        }
        None => {
            let mut seed = Zeroizing::new([0; Ed25519PrivateKey::BYTE_SIZE]);
            entropy.fill(&mut *seed);
            ed25519_pem(&seed)
        }
    }
}

pub(crate) fn ed25519_pem(seed: &[u8; Ed25519PrivateKey::BYTE_SIZE]) -> Result<Zeroizing<String>> {
    let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|e| generation_failed().caused_by(e.to_string()))?;
    let public = key.public_key().as_ref().try_into().map_err(|e: ssh_key::Error| generation_failed().caused_by(e))?;
    let pair = Ed25519Keypair { public, private: Ed25519PrivateKey::from_bytes(seed) };
    let key = ssh_key::PrivateKey::new(KeypairData::Ed25519(pair), "").map_err(|e| generation_failed().caused_by(e))?;
    key.to_openssh(LineEnding::LF).map_err(|e| generation_failed().caused_by(e))
}

fn generation_failed() -> Failure {
    Failure::park(Code::Internal, "making a key pair failed")
}

fn exists_already(path: &Path) -> Failure {
    let message = format!("the key file {} exists already and is never overwritten", path.display());
    Failure::park(Code::FileFailed, message)
}

fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use towpath_transfer::clock::SeededEntropy;

    use super::*;
    use crate::testing::{ed25519, rsa, ssh_keygen};

    #[test]
    fn a_created_key_is_private_readable_by_openssh_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        for (seed, kind) in KeyKind::ALL.iter().enumerate() {
            let entropy = SeededEntropy::new(seed as u64);
            let path = folder.path().join(kind.as_str());
            let shown = path.to_str().unwrap();
            let made = Identity::create_file(&path, *kind, &entropy).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);

            let loaded = Identity::load(&path).unwrap();
            assert_eq!(loaded.public_key(), made.public_key());
            let public = fs::read_to_string(format!("{shown}.pub")).unwrap();
            assert_eq!(public.trim_end(), made.public_line().to_string());
            assert_eq!(ssh_keygen(&["-y", "-f", shown], b"").trim_end(), public.trim_end(), "{kind}");
            let listed = ssh_keygen(&["-l", "-f", shown], b"");
            let bits = kind.rsa_bits().unwrap_or(256);
            assert!(listed.starts_with(&format!("{bits} {} ", made.fingerprint())), "{listed}");

            let before = fs::read(&path).unwrap();
            let failure = Identity::create_file(&path, *kind, &entropy).unwrap_err();
            assert_eq!(failure.code(), Code::FileFailed);
            assert!(failure.message().contains("never overwritten"), "{failure}");
            assert_eq!(fs::read(&path).unwrap(), before);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2 * KeyKind::ALL.len());
    }

    #[test]
    fn a_next_key_takes_the_place_with_its_public_half_however_often_it_is_tried() {
        let folder = tempfile::tempdir().unwrap();
        let (key, next) = (folder.path().join("key"), folder.path().join("key.next"));
        Identity::create_file(&key, KeyKind::Ed25519, &SeededEntropy::new(1)).unwrap();
        let follows = Identity::create_file(&next, KeyKind::Ed25519, &SeededEntropy::new(2)).unwrap();
        // Stopped after its first step.
        follows.write_public(&key, "next").unwrap();
        Identity::put_in_place(&next, &key).unwrap();
        assert_eq!(Identity::load(&key).unwrap().fingerprint(), follows.fingerprint());
        assert_eq!(fs::read_to_string(folder.path().join("key.pub")).unwrap().trim(), follows.public_line().to_string());
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Identity::put_in_place(&next, &key).unwrap_err().code(), Code::KeyMissing);
        for _ in 0..2 {
            Identity::remove(&key).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn load_or_create_makes_only_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let entropy = SeededEntropy::new(1);
        let first = Identity::load_or_create(&path, KeyKind::Ed25519, &entropy).unwrap();
        fs::remove_file(public_path(&path)).unwrap();
        let second = Identity::load_or_create(&path, KeyKind::Rsa2048, &entropy).unwrap();
        assert_eq!(first.public_key(), second.public_key());
        assert_eq!(fs::read_to_string(public_path(&path)).unwrap().trim_end(), first.public_line().to_string());
        fs::write(&path, "garbage").unwrap();
        assert_eq!(Identity::load_or_create(&path, KeyKind::Rsa2048, &entropy).unwrap_err().code(), Code::KeyInvalid);
        assert_eq!(fs::read(&path).unwrap(), b"garbage");
    }

    #[test]
    fn keys_of_ssh_keygen_are_taken_where_their_form_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, options: &[&str]| {
            let path = folder.path().join(name);
            let mut arguments = vec!["-q", "-f", path.to_str().unwrap()];
            arguments.extend_from_slice(options);
            ssh_keygen(&arguments, b"");
            path
        };
        for (name, options) in
            [("rsa", &["-N", "", "-t", "rsa", "-b", "2048", "-m", "PKCS8"][..]), ("ed25519", &["-N", "", "-t", "ed25519"])]
        {
            let path = make(name, options);
            let public: PublicKey = fs::read_to_string(public_path(&path)).unwrap().parse().unwrap();
            assert_eq!(*Identity::load(&path).unwrap().public_key(), public);
        }
        for (name, options) in [
            ("short", &["-N", "", "-t", "rsa", "-b", "1024", "-m", "PKCS8"][..]),
            ("long", &["-N", "", "-t", "rsa", "-b", "4608", "-m", "PKCS8"]),
            ("ecdsa", &["-N", "", "-t", "ecdsa"]),
            ("ecdsa8", &["-N", "", "-t", "ecdsa", "-m", "PKCS8"]),
            ("locked", &["-N", "secret", "-t", "ed25519"]),
            ("locked8", &["-N", "secret", "-t", "rsa", "-b", "2048", "-m", "PKCS8"]),
            ("pkcs1", &["-N", "", "-t", "rsa", "-b", "2048", "-m", "PEM"]),
        ] {
            let failure = Identity::load(&make(name, options)).unwrap_err();
            assert_eq!(failure.code(), Code::KeyInvalid, "{name}");
            assert_eq!(failure.report().contains("it has a passphrase"), name.starts_with("locked"), "{}", failure.report());
        }
        let path = make("openssh", &["-N", "", "-t", "rsa", "-b", "2048"]);
        let report = Identity::load(&path).unwrap_err().report();
        assert!(report.contains("ssh-keygen -p -m PKCS8 -N '' -f FILE [key-invalid]"), "{report}");
        ssh_keygen(&["-p", "-q", "-m", "PKCS8", "-N", "", "-f", path.to_str().unwrap()], b"");
        Identity::load(&path).unwrap();
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert_eq!(Identity::load(&path).unwrap_err().code(), Code::KeyMissing);
        let good = generate_pem(KeyKind::Ed25519, &SeededEntropy::new(3)).unwrap();
        let other = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
        let pair = Ed25519Keypair {
            public: other.public_key().as_ref().try_into().unwrap(),
            private: Ed25519PrivateKey::from_bytes(&[8; 32]),
        };
        let mismatched = ssh_key::PrivateKey::new(KeypairData::Ed25519(pair), "").unwrap().to_openssh(LineEnding::LF).unwrap();
        let half = &good[..good.len() / 2];
        let public = ed25519().public_line().to_string();
        for bad in ["", "garbage", half, &mismatched, &public, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            fs::write(&path, bad).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(Identity::load(&path).unwrap_err().code(), Code::KeyInvalid, "{bad}");
        }
        fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        assert_eq!(Identity::load(&path).unwrap_err().code(), Code::KeyInvalid);
        fs::write(&path, vec![b'x'; MAX_KEY_FILE_BYTES as usize + 1]).unwrap();
        assert_eq!(Identity::load(&path).unwrap_err().code(), Code::KeyInvalid);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_until_mended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        Identity::create_file(&path, KeyKind::Ed25519, &SeededEntropy::new(4)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let failure = Identity::load(&path).unwrap_err();
        assert_eq!(failure.code(), Code::KeyPermissions);
        assert!(failure.message().ends_with(&format!("run: chmod 600 {}", path.display())), "{failure}");
    }

    #[test]
    fn nothing_shows_the_private_key() {
        for identity in [rsa(), ed25519()] {
            assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.fingerprint()));
        }
    }

    #[test]
    fn the_same_entropy_gives_the_same_key_and_other_entropy_another() {
        let key = |seed| Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(seed)).unwrap().fingerprint();
        assert_eq!(key(1), key(1));
        assert_ne!(key(1), key(2));
    }
}
