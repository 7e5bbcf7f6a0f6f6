//! The host keys of the SSH servers: Ed25519 and ECDSA P-256, never RSA.
//!
//! The SSH library signs with these itself; it has no seam for another signer, and its RSA implementation is not to be used
//! with a private key.

use std::{fmt, io, path::Path};

use russh::keys::{Algorithm, EcdsaCurve, PrivateKey};
use ssh_key::{
    LineEnding,
    private::{EcdsaKeypair, Ed25519PrivateKey, KeypairData},
};
use towpath_transfer::{Code, Entropy, Failure, failure::Result, public_key::PublicKeyLine};
use zeroize::Zeroizing;

use crate::{
    file::{self, Access, Existing},
    identity::{MAX_KEY_FILE_BYTES, ed25519_pem},
    random::{self, EntropyRng},
};

/// The names of the key files, as OpenSSH calls them, in the order in which the keys are offered.
const FILES: [(&str, Algorithm); 2] =
    [("ssh_host_ed25519_key", Algorithm::Ed25519), ("ssh_host_ecdsa_key", Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 })];

/// The host keys of one SSH server.
#[derive(Clone)]
pub struct HostKeys {
    keys: Vec<PrivateKey>,
    lines: Vec<PublicKeyLine>,
}

impl HostKeys {
    /// Reads the host keys in the folder `dir`, and makes those that are missing (OpenSSH form, mode 0600, each with its
    /// `.pub` file).
    ///
    /// # Errors
    /// [`Code::KeyPermissions`] when others can read one; [`Code::KeyInvalid`] when one is of another kind or cannot be parsed;
    /// [`Code::FileFailed`] and [`Code::DiskFull`] when a new one cannot be written.
    pub fn load_or_generate(dir: &Path, entropy: &dyn Entropy) -> Result<Self> {
        let mut found = Self { keys: Vec::new(), lines: Vec::new() };
        for (name, algorithm) in FILES {
            let path = dir.join(name);
            let key = match load(&path, &algorithm)? {
                Some(key) => key,
                None => generate(&path, &algorithm, entropy)?,
            };
            found.lines.push(public_line(&key, &path)?);
            found.keys.push(key);
        }
        Ok(found)
    }

    /// The private keys that an SSH server offers: Ed25519, and ECDSA P-256 with `ecdsa` alone, because the curve's origin is
    /// doubted and its signatures give the key away where a random number is bad (ADR 22).
    #[must_use]
    pub fn offered(&self, ecdsa: bool) -> Vec<PrivateKey> {
        self.keys.iter().filter(|key| ecdsa || key.algorithm() == Algorithm::Ed25519).cloned().collect()
    }

    /// The public keys, for the peers to pin; all of them, whatever is offered.
    #[must_use]
    pub fn public_lines(&self) -> &[PublicKeyLine] {
        &self.lines
    }
}

impl fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostKeys").field(&self.lines).finish()
    }
}

fn load(path: &Path, algorithm: &Algorithm) -> Result<Option<PrivateKey>> {
    let Some(bytes) = file::read(path, Access::Private, MAX_KEY_FILE_BYTES)? else { return Ok(None) };
    let invalid = || Failure::park(Code::KeyInvalid, format!("the host key {} cannot be used", path.display()));
    let key = PrivateKey::from_openssh(bytes.as_slice()).map_err(|e| invalid().caused_by(e))?;
    if key.is_encrypted() || key.algorithm() != *algorithm {
        let why = format!("it is not a {algorithm} key without passphrase");
        return Err(invalid().caused_by(why));
    }
    Ok(Some(key))
}

fn generate(path: &Path, algorithm: &Algorithm, entropy: &dyn Entropy) -> Result<PrivateKey> {
    let failed = || Failure::park(Code::Internal, format!("making the host key {} failed", path.display()));
    let pem = match algorithm {
        Algorithm::Ed25519 => {
            let mut seed = Zeroizing::new([0; Ed25519PrivateKey::BYTE_SIZE]);
            entropy.fill(&mut *seed);
            ed25519_pem(&seed)?
        }
        _ => {
            let pair = EcdsaKeypair::random(&mut EntropyRng(entropy), EcdsaCurve::NistP256).map_err(|e| failed().caused_by(e))?;
            let key = PrivateKey::new(KeypairData::Ecdsa(pair), "").map_err(|e| failed().caused_by(e))?;
            key.to_openssh(LineEnding::LF).map_err(|e| failed().caused_by(e))?
        }
    };
    let tag = random::hex::<8>(entropy);
    match file::write(path, pem.as_bytes(), Access::Private, Existing::Keep, &tag) {
        // Another process was faster; its key is the one that peers will see.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(|e| file::write_failed(path, e))?,
    }
    // What is on disk now is what the next start will use, so that is what this one uses too.
    let key = load(path, algorithm)?.ok_or_else(failed)?;
    let public = path.with_extension("pub");
    let line = format!("{}\n", public_line(&key, path)?);
    file::write(&public, line.as_bytes(), Access::Pinned, Existing::Replace, &tag).map_err(|e| file::write_failed(&public, e))?;
    Ok(key)
}

fn public_line(key: &PrivateKey, path: &Path) -> Result<PublicKeyLine> {
    let failed = || Failure::park(Code::KeyInvalid, format!("the public half of the host key {} cannot be told", path.display()));
    let blob = key.public_key().to_bytes().map_err(|e| failed().caused_by(e))?;
    PublicKeyLine::from_blob(&blob).map_err(|e| failed().caused_by(e))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use towpath_transfer::clock::SeededEntropy;

    use super::*;
    use crate::testing::ssh_keygen;

    #[test]
    fn keys_are_made_once_and_openssh_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let first = HostKeys::load_or_generate(folder.path(), &SeededEntropy::new(1)).unwrap();
        let again = HostKeys::load_or_generate(folder.path(), &SeededEntropy::new(2)).unwrap();
        assert_eq!(first.public_lines(), again.public_lines());
        let names: Vec<_> = first.public_lines().iter().map(PublicKeyLine::algorithm).collect();
        assert_eq!(names, ["ssh-ed25519", "ecdsa-sha2-nistp256"]);
        for ((name, _), (line, key)) in FILES.iter().zip(first.public_lines().iter().zip(again.offered(true))) {
            let path = folder.path().join(name);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
            let shown = ssh_keygen(&["-y", "-f", path.to_str().unwrap()], b"");
            assert_eq!(shown.trim_end(), line.to_string());
            assert_eq!(fs::read_to_string(path.with_extension("pub")).unwrap().trim_end(), line.to_string());
            assert_eq!(key.public_key().to_bytes().unwrap(), line.blob());
        }
        let offered: Vec<_> = again.offered(false).iter().map(|key| key.public_key().to_bytes().unwrap()).collect();
        assert_eq!(offered, [first.public_lines()[0].blob()]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
        let shown = format!("{first:?}");
        assert!(shown.contains("SHA256:") && !shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn open_damaged_and_swapped_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let load = || HostKeys::load_or_generate(folder.path(), &SeededEntropy::new(1)).map_err(|failure| failure.code());
        load().unwrap();
        let path = folder.path().join(FILES[0].0);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load().unwrap_err(), Code::KeyPermissions);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        load().unwrap();
        fs::write(&path, fs::read(folder.path().join(FILES[1].0)).unwrap()).unwrap();
        assert_eq!(load().unwrap_err(), Code::KeyInvalid);
        fs::write(&path, "garbage").unwrap();
        assert_eq!(load().unwrap_err(), Code::KeyInvalid);
    }

    #[test]
    fn a_missing_folder_is_a_clear_failure() {
        let folder = tempfile::tempdir().unwrap();
        let failure = HostKeys::load_or_generate(&folder.path().join("none"), &SeededEntropy::new(1)).unwrap_err();
        assert_eq!(failure.code(), Code::FileFailed);
    }
}
