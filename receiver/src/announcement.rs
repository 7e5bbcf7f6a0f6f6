//! The relay's announcements of its keys: what it will show next is pinned in the enrolment before it does.

use std::{path::PathBuf, sync::Arc};

use towpath_keys::follow_announcement;
use towpath_transfer::{announcement::SignedAnnouncement, failure::Result};
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
        Enrolment::load(&*self.files, &self.enrolment)
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
    use towpath_keys::{AllowedSigners, Namespace, chain::RELAY_PRINCIPAL, sign_announcement};
    use towpath_transfer::{Code, announcement::Announcement, digest::Sha256Digest};
    use towpath_transport::{dial::Trust, files::Disk};

    use super::*;
    use crate::testing::{identity, key_line};

    #[test]
    fn an_enrolment_of_before_follows_and_believes_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let (enrolment, signers) = (folder.path().join("enrolment.json"), folder.path().join("allowed_signers"));
        let (line, pin) = (key_line(1), Sha256Digest::of(b"old"));
        let before = format!(
            r#"{{"version":1,"relay_url":"https://relay.example","spki_pin":"{pin}","tenant":"acme","name":"app",
                "sftp_user":"acme.app","ssh_host_keys":["{line}"],"receipt_key":"{line}","forward_key":"{line}"}}"#
        );
        std::fs::write(&enrolment, &before).unwrap();
        let pins = RelayPins::new(&Enrolment::load(&Disk, &enrolment).unwrap().relay_keys());
        let keeper = EnrolmentKeeper { files: Arc::new(Disk), enrolment, signers, pins };
        let announcement = Announcement {
            version: 1,
            serial: 2,
            relay_url: "https://relay.example/".into(),
            issued: Timestamp::UNIX_EPOCH,
            ssh_host_keys: vec![key_line(2)],
            receipt_keys: vec![key_line(1), key_line(2)],
            spki_pins: vec![pin, Sha256Digest::of(b"next")],
        };
        let forged = sign_announcement(&identity(9), &announcement).unwrap();
        assert_eq!(keeper.take(&forged).unwrap_err().code(), Code::AnnouncementInvalid);
        assert_eq!(std::fs::read_to_string(&keeper.enrolment).unwrap(), before);
        assert_eq!(keeper.take(&sign_announcement(&identity(1), &announcement).unwrap()).unwrap(), 2);
        assert_eq!(keeper.pinned().unwrap(), 2);
        assert_eq!(keeper.pins.trust(), Trust::Following(vec![pin, Sha256Digest::of(b"next")].into()));
        let signers = AllowedSigners::load(&keeper.signers).unwrap();
        assert_eq!(signers.lookup(RELAY_PRINCIPAL, Namespace::Receipt).count(), 2);
        let older = Announcement { serial: 1, ..announcement };
        let replayed = keeper.take(&sign_announcement(&identity(1), &older).unwrap()).unwrap_err();
        assert_eq!(replayed.code(), Code::AnnouncementInvalid);
    }
}
