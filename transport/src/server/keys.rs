//! The server's own keys, and which keys users may log in with.

use russh::keys::{
    Algorithm, EcdsaCurve, HashAlg, PrivateKey, PublicKey,
    ssh_key::{private::Ed25519Keypair, public::KeyData},
};
use towpath_transfer::{Code, Failure, public_key::PublicKeyLine};

/// The shortest RSA modulus of a user key, in bits.
pub const RSA_BITS_LEAST: u32 = 2048;
/// The longest RSA modulus of a user key, in bits.
pub const RSA_BITS_MOST: u32 = 4096;

/// A host key: Ed25519 or ECDSA P-256.
#[derive(Clone)]
pub struct HostKey(PrivateKey);

impl HostKey {
    /// Reads an unencrypted private key in OpenSSH's form (`-----BEGIN OPENSSH PRIVATE KEY-----`).
    ///
    /// # Errors
    /// Parks with [`Code::KeyInvalid`] when the text is not such a key, is encrypted, or is of another kind: an RSA key
    /// cannot sign here without code that leaks it through its timing (RUSTSEC-2023-0071).
    pub fn from_openssh(text: &str) -> Result<Self, Failure> {
        let unreadable = "reading an SSH host key failed: it is not an unencrypted private key in OpenSSH form";
        let key = PrivateKey::from_openssh(text).map_err(|error| Failure::park(Code::KeyInvalid, unreadable).caused_by(error))?;
        if key.is_encrypted() {
            return Err(Failure::park(Code::KeyInvalid, unreadable));
        }
        Self::try_from(key)
    }

    /// The Ed25519 key of a secret seed.
    #[must_use]
    pub fn ed25519_from_seed(seed: &[u8; 32]) -> Self {
        Self(PrivateKey::from(Ed25519Keypair::from_seed(seed)))
    }

    /// The public half, as peers pin it.
    ///
    /// # Errors
    /// [`Code::Internal`] when the key cannot be encoded.
    pub fn public_key(&self) -> Result<PublicKeyLine, Failure> {
        line_of(self.0.public_key()).ok_or_else(|| Failure::park(Code::Internal, "encoding an SSH host key failed"))
    }

    pub(super) fn into_private(self) -> PrivateKey {
        self.0
    }
}

impl TryFrom<PrivateKey> for HostKey {
    type Error = Failure;

    /// Takes a key that was read elsewhere, such as those of `towpath_keys::HostKeys`.
    fn try_from(key: PrivateKey) -> Result<Self, Failure> {
        match key.algorithm() {
            Algorithm::Ed25519 | Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 } => Ok(Self(key)),
            other => Err(Failure::park(
                Code::KeyInvalid,
                format!("an SSH host key is Ed25519 or ECDSA P-256, and this one is {}", other.as_str()),
            )),
        }
    }
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HostKey").field(&self.0.algorithm()).finish()
    }
}

fn line_of(key: &PublicKey) -> Option<PublicKeyLine> {
    PublicKeyLine::from_blob(&key.to_bytes().ok()?).ok()
}

/// The key as the rest of the program knows it; `None` for a kind, size or signature that is not accepted. `ssh-rsa` as a
/// signature means SHA-1, which is refused; RSA keys sign with `rsa-sha2-256` or `rsa-sha2-512` (RFC 8332).
pub(super) fn acceptable(key: &PublicKey, signature: &Algorithm) -> Option<PublicKeyLine> {
    match (key.key_data(), signature) {
        (KeyData::Ed25519(_), Algorithm::Ed25519) => line_of(key),
        (KeyData::Rsa(rsa), Algorithm::Rsa { hash: Some(HashAlg::Sha256 | HashAlg::Sha512) }) => {
            let bits = rsa.n().as_positive_bytes().and_then(|modulus| {
                let first = modulus.first()?;
                Some(u32::try_from(modulus.len()).ok()?.checked_mul(8)?.saturating_sub(first.leading_zeros()))
            })?;
            (RSA_BITS_LEAST..=RSA_BITS_MOST).contains(&bits).then(|| line_of(key)).flatten()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(arguments: &[&str], passphrase: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let mut keygen = std::process::Command::new("ssh-keygen");
        assert!(keygen.args(arguments).args(["-q", "-C", "", "-N", passphrase, "-f"]).arg(&path).status().unwrap().success());
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn only_plain_ed25519_and_p256_are_host_keys() {
        for good in [&["-t", "ed25519"][..], &["-t", "ecdsa", "-b", "256"]] {
            let key = HostKey::from_openssh(&made(good, "")).unwrap();
            assert!(key.public_key().is_ok());
        }
        for (bad, passphrase) in [(&["-t", "rsa"][..], ""), (&["-t", "ecdsa", "-b", "384"], ""), (&["-t", "ed25519"], "secret")] {
            assert_eq!(HostKey::from_openssh(&made(bad, passphrase)).unwrap_err().code(), Code::KeyInvalid, "{bad:?}");
        }
        assert_eq!(HostKey::from_openssh("nonsense").unwrap_err().code(), Code::KeyInvalid);
    }
}
