//! The proof of possession at enrolment: this key, with this one-time secret, wants to enrol with this relay.
//!
//! The proof names the SHA-256 of the secret, not the secret, so that the other end can check it later too without ever
//! learning the secret.

use towpath_transfer::{Code, Failure, digest::Sha256Digest, failure::Result};

use crate::{
    identity::Identity,
    public::PublicKey,
    sshsig::{self, Namespace},
};

/// The longest relay URL in a proof, in bytes.
pub const MAX_RELAY_URL_BYTES: usize = 1024;

/// The text that is signed: one field per line, so that no field can pass for another.
fn message(secret_sha256: &Sha256Digest, relay_url: &str, key: &PublicKey) -> Result<String> {
    let plain = relay_url.bytes().all(|b| b.is_ascii_graphic());
    if relay_url.is_empty() || relay_url.len() > MAX_RELAY_URL_BYTES || !plain {
        let message = format!("a relay URL is 1 to {MAX_RELAY_URL_BYTES} printable ASCII characters without spaces");
        return Err(Failure::park(Code::EnrolmentProofInvalid, message));
    }
    Ok(format!("towpath-enrolment-proof 1\nsecret-sha256 {secret_sha256}\nrelay {relay_url}\nkey {}\n", key.line()))
}

/// Proves that the holder of `identity` knows `secret` and means the relay at `relay_url`, exactly as the enrolment code
/// writes it. The answer is an armoured SSHSIG for [`Namespace::Enrol`].
///
/// # Errors
/// [`Code::EnrolmentProofInvalid`] when the URL cannot stand in a proof; [`Code::Internal`] when signing fails.
pub fn sign_enrolment(identity: &Identity, secret: &[u8], relay_url: &str) -> Result<String> {
    let text = message(&Sha256Digest::of(secret), relay_url, identity.public_key())?;
    identity.sign(Namespace::Enrol, text.as_bytes())
}

/// Checks a proof of [`sign_enrolment`].
///
/// # Errors
/// [`Code::EnrolmentProofInvalid`] when it is not by `key`, or over another secret, URL or key.
pub fn verify_enrolment(key: &PublicKey, secret_sha256: &Sha256Digest, relay_url: &str, signature: &[u8]) -> Result<()> {
    let text = message(secret_sha256, relay_url, key)?;
    sshsig::verify(signature, Namespace::Enrol, text.as_bytes(), key).map_err(|e| {
        let message = format!("the enrolment proof of the key {} was not accepted", key.fingerprint());
        Failure::park(Code::EnrolmentProofInvalid, message).caused_by(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ed25519, other, rsa};

    const SECRET: &[u8] = b"one-time-secret";
    const URL: &str = "https://relay.example";

    #[test]
    fn the_signed_text_is_the_documented_one() {
        let key = ed25519();
        let text = format!(
            "towpath-enrolment-proof 1\nsecret-sha256 {}\nrelay {URL}\nkey {}\n",
            Sha256Digest::of(SECRET),
            key.public_line()
        );
        let proof = sign_enrolment(key, SECRET, URL).unwrap();
        assert!(!text.contains("one-time-secret"));
        sshsig::verify(proof.as_bytes(), Namespace::Enrol, text.as_bytes(), key.public_key()).unwrap();
    }

    #[test]
    fn secret_relay_and_key_must_agree() {
        let secret = Sha256Digest::of(SECRET);
        for key in [rsa(), ed25519()] {
            let proof = sign_enrolment(key, SECRET, URL).unwrap();
            let check = |public: &PublicKey, secret: &Sha256Digest, url: &str, proof: &str| {
                verify_enrolment(public, secret, url, proof.as_bytes()).err().map(|failure| failure.code())
            };
            let wrong = Some(Code::EnrolmentProofInvalid);
            assert_eq!(check(key.public_key(), &secret, URL, &proof), None);
            assert_eq!(check(key.public_key(), &Sha256Digest::of(b"other"), URL, &proof), wrong);
            assert_eq!(check(key.public_key(), &secret, "https://relay.example/", &proof), wrong);
            assert_eq!(check(other().public_key(), &secret, URL, &proof), wrong);
            assert_eq!(check(key.public_key(), &secret, URL, "nothing"), wrong);
            let text = message(&secret, URL, key.public_key()).unwrap();
            let receipt = key.sign(Namespace::Receipt, text.as_bytes()).unwrap();
            assert_eq!(check(key.public_key(), &secret, URL, &receipt), wrong);
        }
    }

    #[test]
    fn a_url_cannot_smuggle_another_field() {
        let long = format!("https://{}", "r".repeat(MAX_RELAY_URL_BYTES));
        for bad in ["", "https://relay.example\nkey x", "https://relay example", "https://rélay.example", &long] {
            assert_eq!(sign_enrolment(ed25519(), SECRET, bad).unwrap_err().code(), Code::EnrolmentProofInvalid, "{bad:?}");
        }
    }
}
