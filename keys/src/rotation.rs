//! The change from one key of an end to its next: named and signed by the old key, and signed by the new one too.
//!
//! Whoever believes an end's key believes the key that it names, without a person who compares fingerprints again: the holder of
//! the old key could sign in its name anyway.

use jiff::Timestamp;
use towpath_transfer::{
    Code, Failure,
    api::{KeyRotation, MAX_ROTATIONS},
    failure::Result,
    public_key::PublicKeyLine,
};

use crate::{
    enrolment::MAX_RELAY_URL_BYTES,
    identity::Identity,
    public::PublicKey,
    sshsig::{self, Namespace},
};

/// The longest user name in a rotation, in bytes.
const MAX_USER_BYTES: usize = 255;

/// Who changes its key where: the same for every rotation of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotatingEnd<'a> {
    /// The relay's URL, as the enrolment proof names it.
    pub relay_url: &'a str,
    /// `<tenant>.<name>`.
    pub user: &'a str,
}

/// The text that is signed: one field per line, so that no field can pass for another.
fn message(end: RotatingEnd<'_>, old: &PublicKeyLine, new: &PublicKeyLine, old_until: Timestamp) -> Result<String> {
    let plain = |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !plain(end.relay_url, MAX_RELAY_URL_BYTES) || !plain(end.user, MAX_USER_BYTES) {
        return Err(invalid("a relay URL and a user name are printable ASCII characters without spaces"));
    }
    let RotatingEnd { relay_url, user } = end;
    Ok(format!("towpath-key-rotation 1\nrelay {relay_url}\nuser {user}\nold {old}\nnew {new}\nold-until {old_until}\n"))
}

fn invalid(why: &str) -> Failure {
    Failure::park(Code::RotationInvalid, format!("the change of the key was refused: {why}"))
}

/// Names `new` as the follower of `old`, which is refused from `old_until` on.
///
/// # Errors
/// [`Code::RotationInvalid`] where the end cannot stand in the text; [`Code::Internal`] when signing fails.
pub fn sign_rotation(end: RotatingEnd<'_>, old: &Identity, new: &Identity, old_until: Timestamp) -> Result<KeyRotation> {
    let text = message(end, old.public_line(), new.public_line(), old_until)?;
    Ok(KeyRotation {
        old_key: old.public_line().clone(),
        new_key: new.public_line().clone(),
        old_until,
        by_old: old.sign(Namespace::Rotation, text.as_bytes())?,
        by_new: new.sign(Namespace::Rotation, text.as_bytes())?,
    })
}

/// Checks both signatures, and returns the new key.
///
/// # Errors
/// [`Code::RotationInvalid`] where one is not by its key or over something else, where both keys are the same, or where one cannot
/// be used.
pub fn verify_rotation(end: RotatingEnd<'_>, rotation: &KeyRotation) -> Result<PublicKey> {
    let usable = |line: &PublicKeyLine| PublicKey::try_from(line).map_err(|e| invalid("a key cannot be used").caused_by(e));
    let (old, new) = (usable(&rotation.old_key)?, usable(&rotation.new_key)?);
    if old == new {
        return Err(invalid("the new key is the old one"));
    }
    let text = message(end, &rotation.old_key, &rotation.new_key, rotation.old_until)?;
    let check = |signature: &str, key: &PublicKey, whose: &str| {
        let checked = sshsig::verify(signature.as_bytes(), Namespace::Rotation, text.as_bytes(), key);
        checked.map_err(|e| invalid(&format!("it is not signed by the {whose} key")).caused_by(e))
    };
    check(&rotation.by_old, &old, "old")?;
    check(&rotation.by_new, &new, "new")?;
    Ok(new)
}

/// The keys that follow `first`, in order, as far as each is named by the one before it.
///
/// # Errors
/// [`Code::RotationInvalid`] where a link does not follow from the one before, is not proven, comes back to an earlier key, or
/// where there are more than [`MAX_ROTATIONS`].
pub fn follow_rotations(end: RotatingEnd<'_>, first: &PublicKeyLine, rotations: &[KeyRotation]) -> Result<Vec<PublicKey>> {
    if rotations.len() > MAX_ROTATIONS {
        return Err(invalid(&format!("an end changes its key at most {MAX_ROTATIONS} times")));
    }
    let mut seen = vec![first];
    let mut keys = Vec::with_capacity(rotations.len());
    for rotation in rotations {
        if seen.last().is_none_or(|newest| **newest != rotation.old_key) {
            return Err(invalid("it does not follow from the key before it"));
        }
        if seen.contains(&&rotation.new_key) {
            return Err(invalid("it comes back to an earlier key"));
        }
        keys.push(verify_rotation(end, rotation)?);
        seen.push(&rotation.new_key);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ed25519, other, rsa, ssh_keygen};

    const END: RotatingEnd<'static> = RotatingEnd { relay_url: "https://relay.example", user: "acme.erp" };

    fn until() -> Timestamp {
        "2026-12-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_chain_leads_from_the_first_key_to_the_newest() {
        let first = sign_rotation(END, rsa(), ed25519(), until()).unwrap();
        let second = sign_rotation(END, ed25519(), other(), until()).unwrap();
        let chain = [first.clone(), second.clone()];
        let keys = follow_rotations(END, rsa().public_line(), &chain).unwrap();
        assert_eq!(keys, [ed25519().public_key().clone(), other().public_key().clone()]);
        assert!(follow_rotations(END, rsa().public_line(), &[]).unwrap().is_empty());
        let back = sign_rotation(END, other(), rsa(), until()).unwrap();
        for broken in [vec![second.clone()], vec![first.clone(), first.clone()], vec![first.clone(), second, back]] {
            let failure = follow_rotations(END, rsa().public_line(), &broken).unwrap_err();
            assert_eq!(failure.code(), Code::RotationInvalid);
        }
        let many = vec![first; MAX_ROTATIONS + 1];
        assert!(follow_rotations(END, rsa().public_line(), &many).unwrap_err().report().contains("at most 100"));
    }

    #[test]
    fn whatever_is_changed_is_refused() {
        let good = sign_rotation(END, rsa(), ed25519(), until()).unwrap();
        assert_eq!(verify_rotation(END, &good).unwrap(), *ed25519().public_key());
        let text = message(END, rsa().public_line(), ed25519().public_line(), until()).unwrap();
        let as_receipt = rsa().sign(Namespace::Receipt, text.as_bytes()).unwrap();
        let alone = other().sign(Namespace::Rotation, text.as_bytes()).unwrap();
        let same = sign_rotation(END, rsa(), rsa(), until()).unwrap();
        for bad in [
            KeyRotation { old_key: other().public_line().clone(), ..good.clone() },
            KeyRotation { new_key: other().public_line().clone(), ..good.clone() },
            KeyRotation { old_until: until() + jiff::SignedDuration::from_secs(1), ..good.clone() },
            KeyRotation { by_old: as_receipt, ..good.clone() },
            KeyRotation { by_old: alone.clone(), ..good.clone() },
            KeyRotation { by_new: alone, ..good.clone() },
            KeyRotation { by_new: good.by_old.clone(), ..good.clone() },
            KeyRotation { by_old: String::new(), ..good.clone() },
            same,
        ] {
            assert_eq!(verify_rotation(END, &bad).unwrap_err().code(), Code::RotationInvalid, "{bad:?}");
        }
        for end in [RotatingEnd { user: "acme.other", ..END }, RotatingEnd { relay_url: "https://other.example", ..END }] {
            assert_eq!(verify_rotation(end, &good).unwrap_err().code(), Code::RotationInvalid);
        }
        for end in [RotatingEnd { user: "acme.erp\nold x", ..END }, RotatingEnd { relay_url: "", ..END }] {
            assert_eq!(sign_rotation(end, rsa(), ed25519(), until()).unwrap_err().code(), Code::RotationInvalid);
        }
    }

    #[test]
    fn openssh_checks_the_documented_text() {
        let folder = tempfile::tempdir().unwrap();
        let rotation = sign_rotation(END, rsa(), ed25519(), until()).unwrap();
        let text = format!(
            "towpath-key-rotation 1\nrelay https://relay.example\nuser acme.erp\nold {}\nnew {}\nold-until 2026-12-01T00:00:00Z\n",
            rsa().public_line(),
            ed25519().public_line()
        );
        let (signers, signature) = (folder.path().join("signers"), folder.path().join("rotation.sig"));
        std::fs::write(&signers, format!("acme.erp {}\n", rsa().public_line())).unwrap();
        std::fs::write(&signature, &rotation.by_old).unwrap();
        let (signers, signature) = (signers.to_str().unwrap(), signature.to_str().unwrap());
        let arguments = ["-Y", "verify", "-f", signers, "-I", "acme.erp", "-n", "towpath-rotate@1", "-s", signature];
        ssh_keygen(&arguments, text.as_bytes());
    }
}
