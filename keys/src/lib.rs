//! Keys: the identity on disk, what it signs, and which other keys are trusted.
//!
//! Every operation with a private key goes through `ring`; the `rsa` crate only makes RSA key pairs. Files have the
//! forms that OpenSSH reads, so that `ssh-keygen` can check everything made here: private keys ([`Identity`]), signatures
//! in the SSHSIG format ([`sshsig`]), pinned keys in an `allowed_signers` file ([`AllowedSigners`]). The web service's
//! tokens ([`token`]) and the proof of possession at enrolment ([`enrolment`]) are signed by the same key.

pub mod allowed_signers;
pub mod announcement;
pub mod chain;
pub mod enrolment;
mod file;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod host_keys;
pub mod identity;
pub mod kind;
pub mod pseudonym;
pub mod public;
mod random;
pub mod release;
pub mod rotation;
pub mod secrets;
pub mod ssh_auth;
pub mod sshsig;
#[cfg(test)]
mod testing;
pub mod token;
mod wire;

pub use allowed_signers::{AllowedSigners, Pin};
pub use announcement::{follow_announcement, sign_announcement, verify_announcement};
pub use enrolment::{sign_enrolment, verify_enrolment};
pub use file::{shell_quoted, write_secret};
pub use host_keys::HostKeys;
pub use identity::Identity;
pub use kind::KeyKind;
pub use pseudonym::PseudonymKey;
pub use public::PublicKey;
pub use release::ReleaseKeys;
pub use rotation::{RotatingEnd, follow_rotations, sign_rotation, verify_rotation};
pub use secrets::{SystemSecrets, read as read_secret};
pub use ssh_auth::SshSigner;
pub use sshsig::{Namespace, signer_of, verify};
pub use token::{TokenClaims, TokenRefused, unverified_issuer, verify_token};
