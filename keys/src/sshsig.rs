//! Signatures in the SSHSIG format (OpenSSH's PROTOCOL.sshsig): what `ssh-keygen -Y sign` makes and `-Y verify` checks.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::digest::{Algorithm, SHA256, SHA512, digest};
use thiserror::Error;
use towpath_transfer::{Code, Failure, failure::Result};

use crate::{
    identity::Identity,
    public::{PublicKey, SignatureAlgorithm},
    wire::{self, Reader},
};

/// The longest accepted signature in its armoured form, in bytes; RSA with 4096 bits needs about 1,700.
pub const MAX_SIGNATURE_BYTES: usize = 4096;

const MAGIC: &[u8] = b"SSHSIG";
const VERSION: u32 = 1;
const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "-----END SSH SIGNATURE-----";
/// The width of `ssh-keygen`'s own lines.
const LINE_WIDTH: usize = 70;

/// What a signature is for. A signature made for one purpose never passes for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// A transfer's manifest.
    Manifest,
    /// A receipt.
    Receipt,
    /// The proof of possession at enrolment.
    Enrol,
    /// A relay's announcement of its keys.
    Announcement,
    /// The change from one key of an end to its next.
    Rotation,
    /// The document of a release.
    Release,
}

/// Text that is not a [`Namespace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a signature namespace of Towpath")]
pub struct UnknownNamespace;

impl Namespace {
    /// Every namespace there is.
    pub const ALL: &[Self] = &[Self::Manifest, Self::Receipt, Self::Enrol, Self::Announcement, Self::Rotation, Self::Release];

    /// The namespace as it stands in signatures and in `allowed_signers`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "towpath-manifest@1",
            Self::Receipt => "towpath-receipt@1",
            Self::Enrol => "towpath-enrol@1",
            Self::Announcement => "towpath-announcement@1",
            Self::Rotation => "towpath-rotate@1",
            Self::Release => "towpath-release@1",
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Namespace {
    type Err = UnknownNamespace;

    fn from_str(text: &str) -> Result<Self, UnknownNamespace> {
        Self::ALL.iter().find(|n| n.as_str() == text).copied().ok_or(UnknownNamespace)
    }
}

impl Identity {
    /// Signs `message` for one purpose: the armoured form, ending in a line feed. RSA signs by rsa-sha2-512 (RFC 8332).
    ///
    /// # Errors
    /// [`Code::Internal`] when the key pair is inconsistent.
    pub fn sign(&self, namespace: Namespace, message: &[u8]) -> Result<String> {
        let algorithm = self.preferred_algorithm();
        let signed = signed_data(namespace.as_str().as_bytes(), HashName::Sha512, message);
        let raw = self.sign_raw(algorithm, &signed)?;
        let mut signature = Vec::new();
        wire::put_string(&mut signature, algorithm.as_str().as_bytes());
        wire::put_string(&mut signature, &raw);

        let mut blob = Vec::from(MAGIC);
        blob.extend_from_slice(&VERSION.to_be_bytes());
        wire::put_string(&mut blob, self.public_line().blob());
        wire::put_string(&mut blob, namespace.as_str().as_bytes());
        wire::put_string(&mut blob, b"");
        wire::put_string(&mut blob, HashName::Sha512.as_str().as_bytes());
        wire::put_string(&mut blob, &signature);
        Ok(armour(&blob))
    }
}

/// Checks that `signature` is one by `expected` over `message` for this purpose.
///
/// # Errors
/// [`Code::SignatureInvalid`] when it is malformed, larger than [`MAX_SIGNATURE_BYTES`], for another purpose, by another key,
/// by SHA-1, or over other bytes.
pub fn verify(signature: &[u8], namespace: Namespace, message: &[u8], expected: &PublicKey) -> Result<()> {
    let parsed = Parsed::from_armour(signature)?;
    if parsed.key != *expected {
        let (by, wanted) = (parsed.key.fingerprint(), expected.fingerprint());
        return Err(refused(&format!("it is by the key {by}, not by the expected {wanted}")));
    }
    parsed.check(namespace, message)
}

/// The key that `signature` claims to be by; nothing is proven until [`verify`] accepts that key.
///
/// # Errors
/// [`Code::SignatureInvalid`] when the signature is malformed or too large.
pub fn signer_of(signature: &[u8]) -> Result<PublicKey> {
    Parsed::from_armour(signature).map(|parsed| parsed.key)
}

fn refused(why: &str) -> Failure {
    Failure::park(Code::SignatureInvalid, format!("a signature was not accepted: {why}"))
}

/// The hash between message and signature; the two that PROTOCOL.sshsig allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HashName {
    Sha256,
    Sha512,
}

impl HashName {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn from_name(name: &[u8]) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|hash| hash.as_str().as_bytes() == name)
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Sha256 => &SHA256,
            Self::Sha512 => &SHA512,
        }
    }
}

fn signed_data(namespace: &[u8], hash: HashName, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::from(MAGIC);
    wire::put_string(&mut out, namespace);
    wire::put_string(&mut out, b"");
    wire::put_string(&mut out, hash.as_str().as_bytes());
    wire::put_string(&mut out, digest(hash.algorithm(), message).as_ref());
    out
}

struct Parsed {
    key: PublicKey,
    namespace: Vec<u8>,
    hash: HashName,
    algorithm: SignatureAlgorithm,
    raw: Vec<u8>,
}

impl Parsed {
    fn from_armour(armoured: &[u8]) -> Result<Self> {
        if armoured.len() > MAX_SIGNATURE_BYTES {
            return Err(refused(&format!("it is larger than {MAX_SIGNATURE_BYTES} bytes")));
        }
        let blob = dearmour(armoured).ok_or_else(|| refused("it is not one armoured SSH signature"))?;
        let fields = Fields::read(&blob).ok_or_else(|| refused("its content is malformed"))?;
        if fields.version != VERSION || !fields.reserved.is_empty() {
            return Err(refused("it is of another version of the format"));
        }
        let key = PublicKey::from_blob(fields.key).map_err(|e| refused("its key is not accepted").caused_by(e))?;
        let hash = HashName::from_name(fields.hash).ok_or_else(|| refused("its hash is neither sha512 nor sha256"))?;
        let algorithm = SignatureAlgorithm::from_name(fields.algorithm)
            .ok_or_else(|| refused("its algorithm is none of rsa-sha2-512, rsa-sha2-256 and ssh-ed25519"))?;
        Ok(Self { key, namespace: fields.namespace.to_vec(), hash, algorithm, raw: fields.raw.to_vec() })
    }

    fn check(&self, namespace: Namespace, message: &[u8]) -> Result<()> {
        if self.namespace != namespace.as_str().as_bytes() {
            return Err(refused(&format!("it was not made for {namespace}")));
        }
        let signed = signed_data(&self.namespace, self.hash, message);
        if self.key.accepts(self.algorithm, &signed, &self.raw) {
            return Ok(());
        }
        Err(refused(&format!("the key {} did not sign these bytes", self.key.fingerprint())))
    }
}

/// The fields as they lie in the blob, in their order.
struct Fields<'a> {
    version: u32,
    key: &'a [u8],
    namespace: &'a [u8],
    reserved: &'a [u8],
    hash: &'a [u8],
    algorithm: &'a [u8],
    raw: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(blob: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(blob);
        reader.literal(MAGIC)?;
        let version = reader.uint32()?;
        let (key, namespace) = (reader.string()?, reader.string()?);
        let (reserved, hash) = (reader.string()?, reader.string()?);
        let mut signature = Reader::new(reader.string()?);
        reader.finish()?;
        let (algorithm, raw) = (signature.string()?, signature.string()?);
        signature.finish()?;
        Some(Self { version, key, namespace, reserved, hash, algorithm, raw })
    }
}

pub(crate) fn armour(blob: &[u8]) -> String {
    let encoded = STANDARD.encode(blob);
    let mut text = String::from(BEGIN);
    let mut rest = encoded.as_str();
    while let Some((line, after)) = rest.split_at_checked(LINE_WIDTH) {
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    if !rest.is_empty() {
        text.push_str(rest);
        text.push('\n');
    }
    text.push_str(END);
    text.push('\n');
    text
}

pub(crate) fn dearmour(armoured: &[u8]) -> Option<Vec<u8>> {
    // Line ends may have become CRLF on their way through tools of the ERP host.
    let text = str::from_utf8(armoured).ok()?.replace("\r\n", "\n");
    let body = text.strip_prefix(BEGIN)?;
    let body = body.strip_suffix('\n').unwrap_or(body).strip_suffix(END)?;
    STANDARD.decode(body.replace('\n', "")).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{ed25519, other, rsa, ssh_keygen};

    const MESSAGE: &[u8] = b"{\"rows\":3}\n";

    fn code(result: Result<()>) -> Option<Code> {
        result.err().map(|failure| failure.code())
    }

    /// What a test changes about an otherwise good signature.
    struct Recipe {
        version: u32,
        reserved: &'static [u8],
        hash: &'static [u8],
        algorithm: &'static [u8],
        tail: &'static [u8],
    }

    const GOOD: Recipe = Recipe { version: 1, reserved: b"", hash: b"sha512", algorithm: b"rsa-sha2-512", tail: b"" };

    fn build(recipe: &Recipe) -> String {
        let namespace = Namespace::Manifest.as_str().as_bytes();
        let hash = HashName::from_name(recipe.hash).unwrap_or(HashName::Sha512);
        let algorithm = SignatureAlgorithm::from_name(recipe.algorithm).unwrap_or(SignatureAlgorithm::RsaSha512);
        let mut signed = Vec::from(MAGIC);
        for part in [namespace, recipe.reserved, recipe.hash, digest(hash.algorithm(), MESSAGE).as_ref()] {
            wire::put_string(&mut signed, part);
        }
        let mut signature = Vec::new();
        wire::put_string(&mut signature, recipe.algorithm);
        wire::put_string(&mut signature, &rsa().sign_raw(algorithm, &signed).unwrap());
        let mut blob = Vec::from(MAGIC);
        blob.extend(recipe.version.to_be_bytes());
        for part in [rsa().public_line().blob(), namespace, recipe.reserved, recipe.hash, &signature] {
            wire::put_string(&mut blob, part);
        }
        blob.extend(recipe.tail);
        armour(&blob)
    }

    fn check(signature: &[u8]) -> Option<Code> {
        code(verify(signature, Namespace::Manifest, MESSAGE, rsa().public_key()))
    }

    #[test]
    fn ssh_keygen_accepts_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for (identity, namespace) in [(rsa(), Namespace::Manifest), (ed25519(), Namespace::Receipt)] {
            let signature = identity.sign(namespace, MESSAGE).unwrap();
            fs::write(path("sig"), &signature).unwrap();
            fs::write(path("signers"), format!("acme.erp1 {}\n", identity.public_line())).unwrap();
            let said = ssh_keygen(
                &["-Y", "verify", "-f", &path("signers"), "-I", "acme.erp1", "-n", namespace.as_str(), "-s", &path("sig")],
                MESSAGE,
            );
            assert!(said.contains(&identity.fingerprint().to_string()), "{said}");
            assert_eq!(code(verify(signature.as_bytes(), namespace, MESSAGE, identity.public_key())), None);
            assert_eq!(signer_of(signature.as_bytes()).unwrap(), *identity.public_key());
        }
    }

    #[cfg(unix)]
    #[test]
    fn we_accept_those_of_ssh_keygen() {
        use crate::kind::KeyKind;

        let folder = tempfile::tempdir().unwrap();
        for kind in [KeyKind::Rsa2048, KeyKind::Ed25519] {
            let path = folder.path().join(kind.as_str());
            let entropy = towpath_transfer::clock::SeededEntropy::new(11);
            let identity = Identity::create_file(&path, kind, &entropy).unwrap();
            for hash in ["hashalg=sha512", "hashalg=sha256"] {
                let namespace = Namespace::Manifest;
                let arguments = ["-Y", "sign", "-f", path.to_str().unwrap(), "-n", namespace.as_str(), "-O", hash];
                let signature = ssh_keygen(&arguments, MESSAGE);
                assert_eq!(code(verify(signature.as_bytes(), namespace, MESSAGE, identity.public_key())), None, "{kind} {hash}");
                if hash == "hashalg=sha512" {
                    assert_eq!(signature, identity.sign(namespace, MESSAGE).unwrap(), "both schemes are deterministic");
                }
            }
        }
    }

    #[test]
    fn purpose_key_and_bytes_must_agree() {
        for identity in [rsa(), ed25519()] {
            let signature = identity.sign(Namespace::Manifest, MESSAGE).unwrap();
            let check = |namespace, message: &[u8], key: &PublicKey| code(verify(signature.as_bytes(), namespace, message, key));
            assert_eq!(check(Namespace::Manifest, MESSAGE, identity.public_key()), None);
            assert_eq!(check(Namespace::Receipt, MESSAGE, identity.public_key()), Some(Code::SignatureInvalid));
            assert_eq!(check(Namespace::Enrol, MESSAGE, identity.public_key()), Some(Code::SignatureInvalid));
            assert_eq!(check(Namespace::Manifest, b"", identity.public_key()), Some(Code::SignatureInvalid));
            assert_eq!(check(Namespace::Manifest, MESSAGE, other().public_key()), Some(Code::SignatureInvalid));
        }
    }

    #[test]
    fn every_changed_byte_is_found() {
        for identity in [rsa(), ed25519()] {
            let signature = identity.sign(Namespace::Manifest, MESSAGE).unwrap().into_bytes();
            // The line feed at the end is optional; everything before it counts.
            for place in 0..signature.len() - 1 {
                let mut changed = signature.clone();
                changed[place] ^= 1;
                let result = verify(&changed, Namespace::Manifest, MESSAGE, identity.public_key());
                assert_eq!(code(result), Some(Code::SignatureInvalid), "byte {place}");
            }
        }
    }

    #[test]
    fn only_strong_algorithms_and_this_version_are_accepted() {
        assert_eq!(check(build(&GOOD).as_bytes()), None);
        assert_eq!(check(build(&Recipe { hash: b"sha256", ..GOOD }).as_bytes()), None);
        assert_eq!(check(build(&Recipe { algorithm: b"rsa-sha2-256", ..GOOD }).as_bytes()), None);
        for bad in [
            Recipe { algorithm: b"ssh-rsa", ..GOOD },
            Recipe { algorithm: b"ssh-ed25519", ..GOOD },
            Recipe { algorithm: b"", ..GOOD },
            Recipe { hash: b"sha1", ..GOOD },
            Recipe { hash: b"md5", ..GOOD },
            Recipe { version: 0, ..GOOD },
            Recipe { version: 2, ..GOOD },
            Recipe { reserved: b"x", ..GOOD },
            Recipe { tail: b"x", ..GOOD },
        ] {
            // The wrong kind of raw signature cannot be made with this key, so the name alone is changed there.
            let signature = match bad.algorithm {
                b"ssh-ed25519" => rename_algorithm(&build(&GOOD), b"ssh-ed25519"),
                _ => build(&bad),
            };
            assert_eq!(check(signature.as_bytes()), Some(Code::SignatureInvalid), "{:?}", bad.algorithm);
        }
    }

    fn rename_algorithm(signature: &str, name: &[u8]) -> String {
        let blob = dearmour(signature.as_bytes()).unwrap();
        let fields = Fields::read(&blob).unwrap();
        let mut inner = Vec::new();
        wire::put_string(&mut inner, name);
        wire::put_string(&mut inner, fields.raw);
        let mut out = Vec::from(MAGIC);
        out.extend(VERSION.to_be_bytes());
        for part in [fields.key, fields.namespace, fields.reserved, fields.hash, &inner] {
            wire::put_string(&mut out, part);
        }
        armour(&out)
    }

    #[test]
    fn the_armour_is_strict_and_limited() {
        let good = rsa().sign(Namespace::Manifest, MESSAGE).unwrap();
        assert_eq!(check(good.as_bytes()), None);
        assert_eq!(check(good.trim_end().as_bytes()), None);
        assert_eq!(check(good.replace('\n', "\r\n").as_bytes()), None);
        let padded = format!("{good}{}", " ".repeat(MAX_SIGNATURE_BYTES));
        let unended = good.replace(END, "");
        for bad in [
            "",
            &format!(" {good}"),
            &format!("x\n{good}"),
            &format!("{good}\n"),
            &format!("{good}x"),
            &format!("{good}{good}"),
            &good.replace("SSH SIGNATURE", "PGP SIGNATURE"),
            &padded,
            &unended,
        ] {
            assert_eq!(check(bad.as_bytes()), Some(Code::SignatureInvalid), "{bad}");
        }
        assert!(
            verify(padded.as_bytes(), Namespace::Manifest, MESSAGE, rsa().public_key()).unwrap_err().message().contains("4096")
        );
    }

    #[test]
    fn the_largest_key_fits_the_limit() {
        let blob = vec![0xff; 4096 / 8 * 2 + 200];
        assert!(armour(&blob).len() < MAX_SIGNATURE_BYTES / 2);
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(signer_of(&bytes).is_err());
            prop_assert_eq!(dearmour(armour(&bytes).as_bytes()), Some(bytes.clone()));
            let mut blob = Vec::from(MAGIC);
            blob.extend(&bytes);
            prop_assert!(signer_of(armour(&blob).as_bytes()).is_err());
        }
    }
}
