//! Public keys that can be checked against: RSA of 2048 to 4096 bits, and Ed25519.

use std::{fmt, str::FromStr};

use ring::signature::{
    ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};
use towpath_transfer::{
    Code, Failure,
    failure::Result,
    public_key::{Fingerprint, PublicKeyLine},
};

use crate::wire::{self, Reader};

/// The shortest accepted RSA modulus, in bits.
pub const MIN_RSA_BITS: usize = 2048;
/// The longest accepted RSA modulus, in bits.
pub const MAX_RSA_BITS: usize = 4096;
/// The smallest accepted public exponent; smaller ones weaken sloppy verifiers, and `ring` refuses them for its own keys.
pub const MIN_RSA_EXPONENT: u32 = 65_537;

const RSA: &str = "ssh-rsa";
const ED25519_NAME: &str = "ssh-ed25519";

/// A public key that signatures can be checked against.
///
/// Two keys are equal when all of them is equal: algorithm, modulus and exponent. Parsing admits one encoding per key, so
/// that this is the same as comparing the encoded forms.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    line: PublicKeyLine,
    material: Material,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ed25519([u8; 32]),
}

/// How a signature was made (RFC 8332, RFC 8709). SHA-1 is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignatureAlgorithm {
    RsaSha256,
    RsaSha512,
    Ed25519,
}

impl SignatureAlgorithm {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha2-256",
            Self::RsaSha512 => "rsa-sha2-512",
            Self::Ed25519 => ED25519_NAME,
        }
    }

    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        [Self::RsaSha256, Self::RsaSha512, Self::Ed25519].into_iter().find(|a| a.as_str().as_bytes() == name)
    }
}

impl PublicKey {
    /// The key in OpenSSH's one-line form.
    #[must_use]
    pub fn line(&self) -> &PublicKeyLine {
        &self.line
    }

    /// The fingerprint that `ssh-keygen -l` shows.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.line.fingerprint()
    }

    /// Takes the key that an SSH library offers.
    ///
    /// # Errors
    /// [`Code::KeyInvalid`] when it is of a kind or size that is not accepted.
    pub fn from_ssh(key: &russh::keys::PublicKey) -> Result<Self> {
        let blob = key.to_bytes().map_err(|e| refused("it cannot be encoded").caused_by(e))?;
        Self::from_blob(&blob)
    }

    /// The key as the SSH library takes it.
    ///
    /// # Errors
    /// [`Code::Internal`] when the SSH library does not accept what this room accepted.
    pub fn to_ssh(&self) -> Result<russh::keys::PublicKey> {
        russh::keys::PublicKey::from_bytes(self.line.blob()).map_err(|e| {
            Failure::park(Code::Internal, format!("handing the key {} to the SSH library failed", self.fingerprint()))
                .caused_by(e)
        })
    }

    /// Takes a key blob as SSH carries it (RFC 4253 section 6.6, RFC 8709 section 4).
    ///
    /// # Errors
    /// [`Code::KeyInvalid`] when it is of a kind or size that is not accepted, or not in its one shortest encoding.
    pub fn from_blob(blob: &[u8]) -> Result<Self> {
        let line = PublicKeyLine::from_blob(blob).map_err(|e| refused("it is not an SSH key").caused_by(e))?;
        Self::try_from(line)
    }

    pub(crate) fn from_rsa_parts(modulus: &[u8], exponent: &[u8]) -> Result<Self> {
        let mut blob = Vec::new();
        wire::put_string(&mut blob, RSA.as_bytes());
        wire::put_mpint(&mut blob, exponent);
        wire::put_mpint(&mut blob, modulus);
        Self::from_blob(&blob)
    }

    pub(crate) fn from_ed25519(key: &[u8]) -> Result<Self> {
        let mut blob = Vec::new();
        wire::put_string(&mut blob, ED25519_NAME.as_bytes());
        wire::put_string(&mut blob, key);
        Self::from_blob(&blob)
    }

    pub(crate) fn is_rsa(&self) -> bool {
        matches!(self.material, Material::Rsa { .. })
    }

    /// Whether `signature` is one of this key over `message`, by an algorithm that belongs to this kind of key.
    pub(crate) fn accepts(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.material, algorithm) {
            (Material::Rsa { modulus, exponent }, SignatureAlgorithm::RsaSha256 | SignatureAlgorithm::RsaSha512) => {
                let parameters = match algorithm {
                    SignatureAlgorithm::RsaSha256 => &RSA_PKCS1_2048_8192_SHA256,
                    _ => &RSA_PKCS1_2048_8192_SHA512,
                };
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, signature).is_ok()
            }
            (Material::Ed25519(key), SignatureAlgorithm::Ed25519) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn refused(why: &str) -> Failure {
    Failure::park(Code::KeyInvalid, format!("a public key was not accepted: {why}"))
}

fn bits(digits: &[u8]) -> usize {
    let leading = digits.first().map_or(0, |byte| byte.leading_zeros() as usize);
    digits.len().saturating_mul(8).saturating_sub(leading)
}

fn parse(line: &PublicKeyLine) -> Result<Material> {
    let malformed = || refused("its encoding is malformed");
    let mut reader = Reader::new(line.blob());
    reader.string().ok_or_else(malformed)?;
    match line.algorithm() {
        RSA => {
            let exponent = reader.positive_mpint().ok_or_else(malformed)?;
            let modulus = reader.positive_mpint().ok_or_else(malformed)?;
            reader.finish().ok_or_else(malformed)?;
            let size = bits(modulus);
            if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&size) {
                return Err(refused(&format!("RSA of {size} bits, where {MIN_RSA_BITS} to {MAX_RSA_BITS} bits are accepted")));
            }
            if modulus.last().is_none_or(|byte| byte % 2 == 0) {
                return Err(refused("an RSA modulus must be odd"));
            }
            let value = exponent.iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
            let range = u64::from(MIN_RSA_EXPONENT)..=u64::from(u32::MAX);
            if exponent.len() > 4 || !range.contains(&value) || value % 2 == 0 {
                return Err(refused("an RSA exponent must be odd, at least 65537 and below 2^32"));
            }
            Ok(Material::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
        }
        ED25519_NAME => {
            let key = reader.string().ok_or_else(malformed)?;
            reader.finish().ok_or_else(malformed)?;
            Ok(Material::Ed25519(key.try_into().map_err(|_| malformed())?))
        }
        other => Err(refused(&format!("{other} is neither RSA nor Ed25519"))),
    }
}

impl TryFrom<PublicKeyLine> for PublicKey {
    type Error = Failure;

    fn try_from(line: PublicKeyLine) -> Result<Self> {
        let material = parse(&line)?;
        Ok(Self { line, material })
    }
}

impl TryFrom<&PublicKeyLine> for PublicKey {
    type Error = Failure;

    fn try_from(line: &PublicKeyLine) -> Result<Self> {
        Self::try_from(line.clone())
    }
}

impl FromStr for PublicKey {
    type Err = Failure;

    fn from_str(line: &str) -> Result<Self> {
        let line: PublicKeyLine = line.parse().map_err(|e| refused("it is not an SSH key").caused_by(e))?;
        Self::try_from(line)
    }
}

impl From<PublicKey> for PublicKeyLine {
    fn from(key: PublicKey) -> Self {
        key.line
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.line, f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.line.algorithm(), self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modulus(bits: usize) -> Vec<u8> {
        let mut digits = vec![0x55; bits.div_ceil(8)];
        digits[0] = 1 << ((bits + 7) % 8);
        digits
    }

    fn code(result: Result<PublicKey>) -> Code {
        result.unwrap_err().code()
    }

    #[test]
    fn sizes_and_exponents_have_limits() {
        let f4 = [1, 0, 1];
        for good in [2048, 2049, 3072, 4096] {
            let key = PublicKey::from_rsa_parts(&modulus(good), &f4).unwrap();
            assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
        }
        for bad in [512, 1024, 2047, 4097, 8192] {
            assert_eq!(code(PublicKey::from_rsa_parts(&modulus(bad), &f4)), Code::KeyInvalid, "{bad}");
        }
        let mut even = modulus(2048);
        *even.last_mut().unwrap() = 0;
        assert_eq!(code(PublicKey::from_rsa_parts(&even, &f4)), Code::KeyInvalid);
        for bad in [&[1][..], &[3], &[35], &[0xff, 0xff], &[1, 0, 0], &[1, 0, 2], &[1, 0, 0, 0, 1], &[0]] {
            assert_eq!(code(PublicKey::from_rsa_parts(&modulus(2048), bad)), Code::KeyInvalid, "{bad:?}");
        }
        assert!(PublicKey::from_rsa_parts(&modulus(2048), &[0xff, 0xff, 0xff, 0xff]).is_ok());
    }

    #[test]
    fn equality_includes_the_exponent() {
        let key = |e: &[u8]| PublicKey::from_rsa_parts(&modulus(2048), e).unwrap();
        assert_eq!(key(&[1, 0, 1]), key(&[1, 0, 1]));
        assert_ne!(key(&[1, 0, 1]), key(&[1, 0, 3]));
    }

    #[test]
    fn other_kinds_and_encodings_are_refused() {
        // An ECDSA key of ssh-keygen's making, an Ed25519 key of 31 bytes, and one with a byte after its end.
        let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNj\
            GVPYLSNfwlHjQ8dpJcOUhH/NVCSdlOjCPYQfi7QWS1JmHAGEgR2hSEg=";
        assert_eq!(code(ecdsa.parse()), Code::KeyInvalid);
        assert_eq!(code(PublicKey::from_ed25519(&[7; 31])), Code::KeyInvalid);
        let good = PublicKey::from_ed25519(&[7; 32]).unwrap();
        let mut blob = good.line().blob().to_vec();
        blob.push(0);
        assert_eq!(code(PublicKey::from_blob(&blob)), Code::KeyInvalid);
        assert_eq!(code("ssh-ed25519".parse()), Code::KeyInvalid);
        // The same modulus with a superfluous leading zero would be a second name for the same key.
        let mut blob = Vec::new();
        wire::put_string(&mut blob, RSA.as_bytes());
        wire::put_mpint(&mut blob, &[1, 0, 1]);
        let mut padded = vec![0, 0];
        padded.extend(modulus(2048));
        wire::put_string(&mut blob, &padded);
        assert_eq!(code(PublicKey::from_blob(&blob)), Code::KeyInvalid);
    }

    #[test]
    fn the_ssh_library_agrees() {
        for key in [PublicKey::from_ed25519(&[7; 32]).unwrap(), PublicKey::from_rsa_parts(&modulus(3072), &[1, 0, 1]).unwrap()] {
            assert_eq!(PublicKey::from_ssh(&key.to_ssh().unwrap()).unwrap(), key);
        }
    }
}
