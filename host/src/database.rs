//! What the configuration of every program says of a database server in the same words.

use std::{ops::Range, path::Path};

use serde::{Deserialize, Serialize};
use toml::Spanned;
use towpath_transfer::Secret;

use crate::ConfigMistake;

/// The port of PostgreSQL.
pub const POSTGRES_PORT: u16 = 5432;

/// Whether a connection to a database is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Never.
    Off,
    /// Where the server can; its certificate is not checked.
    #[default]
    Prefer,
    /// Always, with a certificate that is checked and names the host.
    Verify,
}

/// Makes a mistake at a place.
pub type At<'a> = &'a dyn Fn(Option<Range<usize>>, String) -> ConfigMistake;

/// Reads where a password is; a relative path counts from `folder`.
///
/// # Errors
/// Where it is neither of a [`Secret`]'s two forms: a password does not stand in a configuration file.
pub fn secret(password: Option<Spanned<String>>, folder: &Path, at: At<'_>) -> Result<Option<Secret>, ConfigMistake> {
    let Some(password) = password else { return Ok(None) };
    let form = "a password is \"file:PATH\" or \"env:VARIABLE\", so that it does not stand here";
    let secret = Secret::parse(password.get_ref(), folder).ok_or_else(|| at(Some(password.span()), form.to_owned()))?;
    Ok(Some(secret))
}
