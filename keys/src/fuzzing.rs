//! For the fuzz targets: signed documents with any content, and parsers that otherwise read a file.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use towpath_transfer::failure::Result;

use crate::{
    allowed_signers::AllowedSigners,
    identity::Identity,
    sshsig::{Namespace, armour},
    token::sign_parts,
};

/// A token with these bytes as its header and its claims, and a good signature over them.
///
/// # Errors
/// As [`Identity::token`].
pub fn token(by: &Identity, header: &[u8], claims: &[u8]) -> Result<String> {
    sign_parts(by, &format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims)))
}

/// These bytes in the armour of a signature.
#[must_use]
pub fn armoured(blob: &[u8]) -> String {
    armour(blob)
}

/// The bytes within the armour of [`Identity::sign`].
///
/// # Errors
/// As [`Identity::sign`].
pub fn signature(by: &Identity, namespace: Namespace, message: &[u8]) -> Result<Vec<u8>> {
    Ok(crate::sshsig::dearmour(by.sign(namespace, message)?.as_bytes()).unwrap_or_default())
}

/// The store that these bytes are, as if they stood in a file.
///
/// # Errors
/// As [`AllowedSigners::load`].
pub fn allowed_signers(bytes: &[u8]) -> Result<AllowedSigners> {
    AllowedSigners::parse(Path::new("allowed_signers"), bytes)
}

/// What would be written to the file.
#[must_use]
pub fn text_of(store: &AllowedSigners) -> String {
    store.text()
}
