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
}

/// Text that is not a [`Namespace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a signature namespace of Towpath")]
pub struct UnknownNamespace;

impl Namespace {
    /// Every namespace there is.
    pub const ALL: &[Self] = &[Self::Manifest, Self::Receipt, Self::Enrol];

    /// The namespace as it stands in signatures and in `allowed_signers`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => "towpath-manifest@1",
            Self::Receipt => "towpath-receipt@1",
            Self::Enrol => "towpath-enrol@1",
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

fn armour(blob: &[u8]) -> String {
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

fn dearmour(armoured: &[u8]) -> Option<Vec<u8>> {
    // Line ends may have become CRLF on their way through tools of the ERP host.
    let text = str::from_utf8(armoured).ok()?.replace("\r\n", "\n");
    let body = text.strip_prefix(BEGIN)?;
    let body = body.strip_suffix('\n').unwrap_or(body).strip_suffix(END)?;
    STANDARD.decode(body.replace('\n', "")).ok()
}
