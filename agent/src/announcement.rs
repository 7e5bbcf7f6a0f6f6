//! The relay's announcements of its keys: what it will show next is pinned in the enrolment before it does.

use std::{path::PathBuf, sync::Arc};

use towpath_keys::follow_announcement;
use towpath_transfer::{Code, Failure, announcement::SignedAnnouncement, failure::Result};
use towpath_transport::{
    files::FileStore,
    relay_api::{Keeper, RelayPins},
};

use crate::enrolment::Enrolment;

/// Keeps the relay's keys in `enrolment.json`, and its receipt keys among the pinned signers as well. One process at a time, the
/// one that holds the state folder's lock.
#[derive(Debug, Clone)]
pub struct EnrolmentKeeper {
    /// The disk.
    pub files: Arc<dyn FileStore>,
    /// `enrolment.json`.
    pub enrolment: PathBuf,
    /// `allowed_signers`.
    pub signers: PathBuf,
    /// What the connections of this process believe.
    pub pins: RelayPins,
}

impl EnrolmentKeeper {
    fn read(&self) -> Result<Enrolment> {
        let missing = || Failure::park(Code::NotEnrolled, format!("{} is gone", self.enrolment.display()));
        Enrolment::read(&*self.files, &self.enrolment)?.ok_or_else(missing)
    }
}

impl Keeper for EnrolmentKeeper {
    fn pinned(&self) -> Result<u64> {
        Ok(self.read()?.relay_keys().serial)
    }

    fn take(&self, signed: &SignedAnnouncement) -> Result<u64> {
        let mut enrolment = self.read()?;
        let known = enrolment.relay_keys();
        if let Some(announced) = follow_announcement(signed, &enrolment.relay_url, &known, &self.signers)? {
            enrolment.announced = Some(announced);
            enrolment.write(&*self.files, &self.enrolment)?;
        }
        let keys = enrolment.relay_keys();
        self.pins.set(&keys);
        Ok(keys.serial)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use towpath_keys::{AllowedSigners, Identity, KeyKind, Namespace, chain::RELAY_PRINCIPAL, sign_announcement};
    use towpath_transfer::{announcement::Announcement, clock::SeededEntropy, digest::Sha256Digest};
    use towpath_transport::{
        dial::Trust,
        files::{Disk, FaultFiles, FileFault, FileOp},
    };

    use super::*;

    /// What earlier versions wrote, without any announcement.
    const BEFORE: &str =
        r#"{"version":1,"relay_url":"https://relay.example","tenant":"acme","name":"erp","sftp_user":"acme.erp","#;

    fn key(seed: u64) -> Identity {
        Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(seed)).unwrap()
    }

    fn signed(by: &Identity, serial: u64, next: &Identity) -> SignedAnnouncement {
        let announcement = Announcement {
            version: 1,
            serial,
            relay_url: "https://relay.example".into(),
            issued: Timestamp::UNIX_EPOCH,
            ssh_host_keys: vec![next.public_line().clone()],
            receipt_keys: vec![by.public_line().clone(), next.public_line().clone()],
            spki_pins: vec![Sha256Digest::of(b"next")],
        };
        sign_announcement(by, &announcement).unwrap()
    }

    fn keeper(folder: &tempfile::TempDir, pin: &str) -> EnrolmentKeeper {
        let line = key(1).public_line().to_string();
        let enrolment = folder.path().join("enrolment.json");
        std::fs::write(&enrolment, format!("{BEFORE}{pin}\"ssh_host_keys\":[\"{line}\"],\"receipt_key\":\"{line}\"}}")).unwrap();
        let keys = Enrolment::read(&Disk, &enrolment).unwrap().unwrap().relay_keys();
        let (signers, pins) = (folder.path().join("allowed_signers"), RelayPins::new(&keys));
        EnrolmentKeeper { files: Arc::new(Disk), enrolment, signers, pins }
    }

    #[test]
    fn an_announcement_is_kept_used_at_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let pin = format!("\"spki_pin\":\"{}\",", Sha256Digest::of(b"old"));
        let keeper = keeper(&folder, &pin);
        assert_eq!(keeper.pinned().unwrap(), 0);
        for _ in 0..2 {
            assert_eq!(keeper.take(&signed(&key(1), 3, &key(2))).unwrap(), 3);
        }
        assert_eq!(*keeper.pins.host_keys().get(), [key(2).public_line().clone()]);
        assert_eq!(keeper.pins.trust(), Trust::Following(vec![Sha256Digest::of(b"next")].into()));
        assert_eq!(keeper.pinned().unwrap(), 3);
        let signers = AllowedSigners::load(&keeper.signers).unwrap();
        assert_eq!(signers.lookup(RELAY_PRINCIPAL, Namespace::Receipt).count(), 2);
        let kept = Enrolment::read(&Disk, &keeper.enrolment).unwrap().unwrap();
        assert_eq!(RelayPins::new(&kept.relay_keys()).trust(), keeper.pins.trust());
    }

    #[test]
    fn a_bad_one_changes_nothing_and_a_disk_that_fails_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let keeper = keeper(&folder, "");
        let before = std::fs::read(&keeper.enrolment).unwrap();
        let forged = keeper.take(&signed(&key(9), 3, &key(2))).unwrap_err();
        assert_eq!(forged.code(), Code::AnnouncementInvalid);
        assert!(!keeper.signers.exists());
        let plan = |op: FileOp, _: &std::path::Path| {
            (op == FileOp::Rename).then_some(FileFault::Before(std::io::ErrorKind::StorageFull))
        };
        let full = EnrolmentKeeper { files: Arc::new(FaultFiles::new(Arc::new(Disk), Box::new(plan))), ..keeper.clone() };
        assert_eq!(full.take(&signed(&key(1), 3, &key(2))).unwrap_err().code(), Code::DiskFull);
        assert_eq!(std::fs::read(&keeper.enrolment).unwrap(), before);
        assert_eq!(*keeper.pins.host_keys().get(), [key(1).public_line().clone()]);
        keeper.take(&signed(&key(1), 3, &key(2))).unwrap();
        // The relay's certificate is publicly trusted, and stays so.
        assert_eq!(keeper.pins.trust(), Trust::Public);
        let kept = Enrolment::read(&Disk, &keeper.enrolment).unwrap().unwrap();
        assert!(kept.relay_keys().spki_pins.is_empty());
        std::fs::remove_file(&keeper.enrolment).unwrap();
        assert_eq!(keeper.pinned().unwrap_err().code(), Code::NotEnrolled);
    }
}
