//! A relay's announcement of its keys: signed by the relay, believed by an end that has pinned the key that signed it.

use std::path::Path;

use towpath_transfer::{
    Code, Failure,
    announcement::{Announcement, InvalidAnnouncement, RelayKeys, SignedAnnouncement},
    failure::Result,
    public_key::PublicKeyLine,
};

use crate::{
    allowed_signers::AllowedSigners,
    chain::RELAY_PRINCIPAL,
    identity::Identity,
    public::PublicKey,
    sshsig::{self, Namespace},
};

/// Signs an announcement with the relay's present receipt key.
///
/// # Errors
/// [`Code::LimitExceeded`] where it is larger than it may be or names too many keys; [`Code::Internal`] when signing fails.
pub fn sign_announcement(key: &Identity, announcement: &Announcement) -> Result<SignedAnnouncement> {
    let failed = |e: InvalidAnnouncement| Failure::park(Code::LimitExceeded, "announce the relay's keys").caused_by(e);
    let bytes = announcement.to_bytes().map_err(failed)?;
    let signature = key.sign(Namespace::Announcement, &bytes)?;
    let announcement = String::from_utf8(bytes)
        .map_err(|e| Failure::park(Code::Internal, "write the relay's announcement as text").caused_by(e))?;
    Ok(SignedAnnouncement { announcement, signature })
}

/// Checks an announcement against what an end has pinned of the relay at `relay_url`. `None` where it is the one that was
/// pinned already.
///
/// Only the keys of the newest pinned announcement may sign the next: a key that was replaced still proves old receipts, and
/// says nothing about keys any more.
///
/// # Errors
/// [`Code::AnnouncementInvalid`] where it is not of the protocol, of another relay, older than the pinned one, of its number and with
/// other keys, not signed by one of its receipt keys, or names a key that cannot be used.
pub fn verify_announcement(signed: &SignedAnnouncement, relay_url: &str, pinned: &RelayKeys) -> Result<Option<Announcement>> {
    let refused =
        |why: &str| Failure::park(Code::AnnouncementInvalid, format!("the relay's announcement of its keys was refused: {why}"));
    let bytes = signed.announcement.as_bytes();
    let announcement = Announcement::parse(bytes).map_err(|e| refused("it is not of the protocol").caused_by(e))?;
    if bare(&announcement.relay_url) != bare(relay_url) {
        return Err(refused(&format!("it is of the relay {:?}", announcement.relay_url)));
    }
    let keys = believed(&pinned.receipt_keys).map_err(|e| refused("the pinned receipt keys cannot be used").caused_by(e))?;
    let signature = signed.signature.as_bytes();
    let signer = sshsig::signer_of(signature).map_err(|e| refused("its signature cannot be read").caused_by(e))?;
    if !keys.contains(&signer) {
        return Err(refused(&format!("it is signed by {}, which is not pinned", signer.fingerprint())));
    }
    sshsig::verify(signature, Namespace::Announcement, bytes, &signer)
        .map_err(|e| refused("its signature is not one of the pinned key").caused_by(e))?;
    if announcement.serial < pinned.serial {
        let (told, known) = (announcement.serial, pinned.serial);
        return Err(refused(&format!("it is number {told}, and number {known} is pinned already")));
    }
    if announcement.serial == pinned.serial {
        let same = announcement.receipt_keys == pinned.receipt_keys && announcement.ssh_host_keys == pinned.ssh_host_keys;
        let other = || refused(&format!("it is number {} like the pinned one, and names other keys", pinned.serial));
        return if same { Ok(None) } else { Err(other()) };
    }
    believed(&announcement.receipt_keys).map_err(|e| refused("it names a receipt key that cannot be used").caused_by(e))?;
    Ok(Some(announcement))
}

/// Checks an announcement as [`verify_announcement`] does, and trusts its receipt keys for receipts in the `allowed_signers`
/// file at `signers`, beside those that are there: what an old key has signed stays proven for ever. What is left to the caller
/// is to keep the keys that are returned, and to use them. May be repeated. Blocking.
///
/// # Errors
/// As [`verify_announcement`], and those of [`AllowedSigners::add`].
pub fn follow_announcement(
    signed: &SignedAnnouncement,
    relay_url: &str,
    pinned: &RelayKeys,
    signers: &Path,
) -> Result<Option<RelayKeys>> {
    let Some(announcement) = verify_announcement(signed, relay_url, pinned)? else { return Ok(None) };
    let mut store = AllowedSigners::load(signers)?;
    for key in believed(&pinned.receipt_keys)?.iter().chain(&believed(&announcement.receipt_keys)?) {
        store.add(RELAY_PRINCIPAL, &[Namespace::Receipt], key)?;
    }
    Ok(Some(announcement.into()))
}

fn believed(lines: &[PublicKeyLine]) -> Result<Vec<PublicKey>> {
    lines.iter().map(PublicKey::try_from).collect()
}

/// A URL is the same with and without the slash at its end.
fn bare(url: &str) -> &str {
    url.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use towpath_transfer::digest::Sha256Digest;

    use super::*;
    use crate::testing::{ed25519, other, rsa, ssh_keygen};

    const URL: &str = "https://relay.example";

    fn announcement(serial: u64, receipt_keys: &[&Identity]) -> Announcement {
        Announcement {
            version: 1,
            serial,
            relay_url: URL.into(),
            issued: Timestamp::UNIX_EPOCH,
            ssh_host_keys: vec![other().public_line().clone()],
            receipt_keys: receipt_keys.iter().map(|key| key.public_line().clone()).collect(),
            spki_pins: vec![Sha256Digest::of(b"next")],
        }
    }

    fn pinned(serial: u64, receipt_keys: &[&Identity]) -> RelayKeys {
        announcement(serial, receipt_keys).into()
    }

    #[test]
    fn the_present_key_names_the_next_and_the_next_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed_signers");
        let both = sign_announcement(ed25519(), &announcement(1, &[ed25519(), rsa()])).unwrap();
        let first = pinned(0, &[ed25519()]);
        let second = follow_announcement(&both, &format!("{URL}/"), &first, &path).unwrap().unwrap();
        assert_eq!(second, pinned(1, &[ed25519(), rsa()]));
        assert_eq!(follow_announcement(&both, URL, &second, &path).unwrap(), None);
        // Two of one number: a relay that was put back has given it a second time.
        let twice = sign_announcement(ed25519(), &announcement(1, &[ed25519(), other()])).unwrap();
        let refused = follow_announcement(&twice, URL, &second, &path).unwrap_err();
        assert_eq!(refused.code(), Code::AnnouncementInvalid);
        assert!(refused.report().contains("names other keys"), "{}", refused.report());
        let next = sign_announcement(rsa(), &announcement(2, &[rsa()])).unwrap();
        let third = follow_announcement(&next, URL, &second, &path).unwrap().unwrap();
        // The old key still proves receipts, and nothing else.
        let signers = AllowedSigners::load(&path).unwrap();
        assert_eq!(signers.lookup(RELAY_PRINCIPAL, Namespace::Receipt).count(), 2);
        assert_eq!(signers.lookup(RELAY_PRINCIPAL, Namespace::Announcement).count(), 0);
        let late = sign_announcement(ed25519(), &announcement(3, &[other()])).unwrap();
        assert_eq!(verify_announcement(&late, URL, &third).unwrap_err().code(), Code::AnnouncementInvalid);
    }

    #[test]
    fn forged_replayed_and_foreign_announcements_are_refused_and_pin_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("allowed_signers");
        let known = pinned(5, &[ed25519()]);
        let good = sign_announcement(ed25519(), &announcement(6, &[rsa()])).unwrap();
        let foreign = Announcement { relay_url: "https://other.example".into(), ..announcement(6, &[rsa()]) };
        let as_receipt = ed25519().sign(Namespace::Receipt, good.announcement.as_bytes()).unwrap();
        let curve = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU=";
        let unusable = Announcement { receipt_keys: vec![curve.parse().unwrap()], ..announcement(6, &[rsa()]) };
        for bad in [
            sign_announcement(other(), &announcement(6, &[other()])).unwrap(),
            sign_announcement(ed25519(), &announcement(4, &[rsa()])).unwrap(),
            sign_announcement(ed25519(), &foreign).unwrap(),
            sign_announcement(ed25519(), &unusable).unwrap(),
            SignedAnnouncement { signature: as_receipt, ..good.clone() },
            SignedAnnouncement { announcement: good.announcement.replace('6', "7"), ..good.clone() },
            SignedAnnouncement { announcement: "{}".into(), ..good.clone() },
            SignedAnnouncement { signature: "nothing".into(), ..good.clone() },
        ] {
            let failure = follow_announcement(&bad, URL, &known, &path).unwrap_err();
            assert_eq!(failure.code(), Code::AnnouncementInvalid, "{bad:?}");
            assert!(!path.exists());
        }
        assert!(follow_announcement(&good, URL, &known, &path).unwrap().is_some());
    }

    #[test]
    fn what_is_not_of_the_protocol_is_not_signed() {
        let many = Announcement { receipt_keys: vec![rsa().public_line().clone(); 9], ..announcement(1, &[]) };
        assert_eq!(sign_announcement(ed25519(), &many).unwrap_err().code(), Code::LimitExceeded);
    }

    #[test]
    fn openssh_checks_an_announcement_too() {
        let folder = tempfile::tempdir().unwrap();
        let signed = sign_announcement(ed25519(), &announcement(1, &[ed25519()])).unwrap();
        let (signers, signature) = (folder.path().join("signers"), folder.path().join("announcement.sig"));
        std::fs::write(&signers, format!("relay {}\n", ed25519().public_line())).unwrap();
        std::fs::write(&signature, &signed.signature).unwrap();
        let (signers, signature) = (signers.to_str().unwrap(), signature.to_str().unwrap());
        let arguments = ["-Y", "verify", "-f", signers, "-I", "relay", "-n", "towpath-announcement@1", "-s", signature];
        ssh_keygen(&arguments, signed.announcement.as_bytes());
    }
}
