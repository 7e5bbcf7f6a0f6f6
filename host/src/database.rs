//! What the configuration of every program says of a database server in the same words.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use towpath_transfer::{Code, Failure};

/// The port of PostgreSQL.
pub const POSTGRES_PORT: u16 = 5432;
/// The largest file of certificate authorities, in bytes.
pub const MAX_CA_BYTES: u64 = 4 * 1024 * 1024;

/// Whether a connection to a database is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum, JsonSchema)]
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

impl Tls {
    /// As configuration files name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Prefer => "prefer",
            Self::Verify => "verify",
        }
    }
}

/// The certificate authorities in a file, in PEM form. Blocking.
///
/// # Errors
/// `config-invalid` where it cannot be read, is larger than [`MAX_CA_BYTES`] or holds no certificate: the system's authorities alone
/// would decide then.
pub fn certificate_authority(path: &Path) -> Result<Vec<u8>, Failure> {
    let unusable = |why: &str| Failure::park(Code::ConfigInvalid, format!("the `ca` file {} {why}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| unusable("cannot be read").caused_by(error))?.len();
    if length > MAX_CA_BYTES {
        return Err(unusable(&format!("has more than {MAX_CA_BYTES} bytes")));
    }
    let pem = std::fs::read(path).map_err(|error| unusable("cannot be read").caused_by(error))?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if !pem.windows(begin.len()).any(|window| window == begin) {
        return Err(unusable("has no certificate in PEM form"));
    }
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_authorities_holds_certificates_and_is_small() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let refused = || {
            let failure = certificate_authority(&path).unwrap_err();
            assert_eq!(failure.code(), Code::ConfigInvalid);
            failure.message().to_owned()
        };
        assert!(refused().contains("cannot be read"));
        std::fs::write(&path, "no certificate").unwrap();
        assert!(refused().contains("has no certificate in PEM form"));
        std::fs::File::create(&path).unwrap().set_len(MAX_CA_BYTES + 1).unwrap();
        assert!(refused().contains("has more than 4194304 bytes"));
        let pem = b"-----BEGIN CERTIFICATE-----\n";
        std::fs::write(&path, pem).unwrap();
        assert_eq!(certificate_authority(&path).unwrap(), pem);
    }
}
