//! What a relay will show of itself: the keys its ends are to pin, present and next, signed by a key they have pinned already.
//!
//! Pins are for years, keys are not: a relay announces its next SSH host key, certificate key and receipt key before it uses
//! them. Each announcement names every key to pin from now on, so that the newest alone counts.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{digest::Sha256Digest, public_key::PublicKeyLine};

/// The largest accepted announcement, in bytes.
pub const MAX_ANNOUNCEMENT_BYTES: usize = 64 * 1024;
/// The most keys of one use an announcement may name.
pub const MAX_ANNOUNCED_KEYS: usize = 8;

/// The header of every answer of a relay that says the serial of its newest announcement, so that an end that is behind asks
/// for it at once.
pub const SERIAL_HEADER: &str = "towpath-announcement";

/// The keys of a relay, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Always 1.
    pub version: u32,
    /// Counts the relay's announcements from 1: an end never goes back to an earlier one.
    pub serial: u64,
    /// The relay's URL, so that the announcement of one relay is none of another.
    pub relay_url: String,
    /// When it was made, by the relay's clock.
    pub issued: Timestamp,
    /// The SSH host keys to pin.
    pub ssh_host_keys: Vec<PublicKeyLine>,
    /// The keys that may sign receipts and announcements.
    pub receipt_keys: Vec<PublicKeyLine>,
    /// SHA-256 of the SubjectPublicKeyInfo of the certificates to pin, where an end pins one at all.
    pub spki_pins: Vec<Sha256Digest>,
}

/// The keys that an end pins of its relay: what it was told when it enrolled, or what it was announced since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayKeys {
    /// The announcement that named them; 0 where enrolment did.
    pub serial: u64,
    /// The SSH host keys to believe.
    pub ssh_host_keys: Vec<PublicKeyLine>,
    /// The keys that sign receipts and announcements from now on.
    pub receipt_keys: Vec<PublicKeyLine>,
    /// SHA-256 of the SubjectPublicKeyInfo of the certificates to believe; where an end pins none, empty.
    pub spki_pins: Vec<Sha256Digest>,
}

impl RelayKeys {
    /// What an end believes that has enrolled with these keys and was announced others since. Whoever pins no certificate, because
    /// the relay's is publicly trusted, goes on to pin none.
    #[must_use]
    pub fn believed(
        spki_pin: Option<Sha256Digest>,
        ssh_host_keys: &[PublicKeyLine],
        receipt_key: &PublicKeyLine,
        announced: Option<&Self>,
    ) -> Self {
        let enrolled = || Self {
            serial: 0,
            ssh_host_keys: ssh_host_keys.to_vec(),
            receipt_keys: vec![receipt_key.clone()],
            spki_pins: spki_pin.into_iter().collect(),
        };
        let keys = announced.cloned().unwrap_or_else(enrolled);
        if spki_pin.is_some() { keys } else { Self { spki_pins: Vec::new(), ..keys } }
    }
}

impl From<Announcement> for RelayKeys {
    fn from(announcement: Announcement) -> Self {
        Self {
            serial: announcement.serial,
            ssh_host_keys: announcement.ssh_host_keys,
            receipt_keys: announcement.receipt_keys,
            spki_pins: announcement.spki_pins,
        }
    }
}

/// Why an announcement was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InvalidAnnouncement {
    /// Over [`MAX_ANNOUNCEMENT_BYTES`].
    #[error("the announcement is larger than {MAX_ANNOUNCEMENT_BYTES} bytes")]
    TooLarge,
    /// Not JSON of this form.
    #[error("the announcement is not of the form of version 1")]
    Json(#[from] serde_json::Error),
    /// Fields that contradict each other, or a limit exceeded.
    #[error("the announcement contradicts itself: {0}")]
    Inconsistent(&'static str),
}

impl Announcement {
    /// Reads and checks an announcement. The signature is the caller's affair.
    ///
    /// # Errors
    /// [`InvalidAnnouncement`].
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidAnnouncement> {
        if bytes.len() > MAX_ANNOUNCEMENT_BYTES {
            return Err(InvalidAnnouncement::TooLarge);
        }
        let announcement: Self = serde_json::from_slice(bytes)?;
        announcement.check()?;
        Ok(announcement)
    }

    /// The bytes that are signed and sent.
    ///
    /// # Errors
    /// [`InvalidAnnouncement`] where it is not one that [`Announcement::parse`] would accept.
    pub fn to_bytes(&self) -> Result<Vec<u8>, InvalidAnnouncement> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        if bytes.len() > MAX_ANNOUNCEMENT_BYTES { Err(InvalidAnnouncement::TooLarge) } else { Ok(bytes) }
    }

    fn check(&self) -> Result<(), InvalidAnnouncement> {
        let inconsistent = |problem| Err(InvalidAnnouncement::Inconsistent(problem));
        if self.version != 1 {
            return inconsistent("its version is not 1");
        }
        if self.serial == 0 {
            return inconsistent("its serial is not counted from 1");
        }
        let counts = 1..=MAX_ANNOUNCED_KEYS;
        if !counts.contains(&self.ssh_host_keys.len()) || !counts.contains(&self.receipt_keys.len()) {
            return inconsistent("it must name 1 to 8 host keys and receipt keys");
        }
        if self.spki_pins.len() > MAX_ANNOUNCED_KEYS {
            return inconsistent("it names more than 8 certificates");
        }
        Ok(())
    }
}

/// `GET /v1/announcement`: an announcement's exact bytes and the armoured SSHSIG (namespace `towpath-announcement@1`) over
/// them by the relay's present receipt key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedAnnouncement {
    /// The announcement's JSON, byte for byte as signed.
    #[schema(max_length = 65536)]
    pub announcement: String,
    /// The armoured signature.
    #[schema(max_length = 8192)]
    pub signature: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Announcement {
        let key: PublicKeyLine =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUyPJ7lMYqgNsOsYjNNEgNqzQ4sVfTGYkNzMZ4zHcdT".parse().unwrap();
        Announcement {
            version: 1,
            serial: 1,
            relay_url: "https://relay.example".into(),
            issued: Timestamp::UNIX_EPOCH,
            ssh_host_keys: vec![key.clone()],
            receipt_keys: vec![key],
            spki_pins: vec![Sha256Digest::of(b"spki")],
        }
    }

    #[test]
    fn what_was_announced_last_is_believed_and_nobody_begins_to_pin_certificates() {
        let key = &sample().receipt_keys[0];
        let announced = RelayKeys { serial: 4, ..sample().into() };
        let believed = |pin, announced| RelayKeys::believed(pin, std::slice::from_ref(key), key, announced);
        let pin = Sha256Digest::of(b"old");
        assert_eq!(believed(Some(pin), None), RelayKeys { serial: 0, spki_pins: vec![pin], ..announced.clone() });
        assert_eq!(believed(Some(pin), Some(&announced)), announced);
        assert_eq!(believed(None, Some(&announced)), RelayKeys { spki_pins: vec![], ..announced.clone() });
        assert!(believed(None, None).spki_pins.is_empty());
    }

    #[test]
    fn an_announcement_survives_its_bytes_and_contradictions_are_refused() {
        assert_eq!(Announcement::parse(&sample().to_bytes().unwrap()).unwrap(), sample());
        let many = vec![sample().receipt_keys[0].clone(); MAX_ANNOUNCED_KEYS + 1];
        for bad in [
            Announcement { version: 2, ..sample() },
            Announcement { serial: 0, ..sample() },
            Announcement { ssh_host_keys: Vec::new(), ..sample() },
            Announcement { receipt_keys: many.clone(), ..sample() },
            Announcement { ssh_host_keys: many, ..sample() },
            Announcement { spki_pins: vec![Sha256Digest::of(b"x"); MAX_ANNOUNCED_KEYS + 1], ..sample() },
        ] {
            assert!(bad.to_bytes().is_err(), "{bad:?}");
            assert!(Announcement::parse(&serde_json::to_vec(&bad).unwrap()).is_err(), "{bad:?}");
        }
        assert!(Announcement::parse(&vec![b' '; MAX_ANNOUNCEMENT_BYTES + 1]).is_err());
    }
}
