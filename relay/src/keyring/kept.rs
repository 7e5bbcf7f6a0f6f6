//! The newest announcement as it is kept, and how it follows from the keys.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_keys::{HostKeys, Identity, sign_announcement};
use towpath_transfer::{
    Code, Failure,
    announcement::{Announcement, SignedAnnouncement},
    failure::Result,
};
use towpath_transport::files::{file_failure, read_if_there, write_whole};

use super::{
    KeyUse,
    folder::{KeyFolder, KeyRow},
    place::Next,
};
use crate::door::tls::Certificate;

/// The largest `announcement.json`, in bytes.
pub(super) const MAX_KEPT_BYTES: u64 = 512 * 1024;

/// `announcement.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// Always 1.
    version: u32,
    /// Whether an enrolment code has ever carried a certificate's pin, as far as this file remembers.
    pub(super) pinned: bool,
    /// The first announcement that named each key.
    pub(super) since: BTreeMap<String, u64>,
    pub(super) signed: SignedAnnouncement,
}

impl Kept {
    /// What is announced.
    pub(super) fn announcement(&self) -> Result<Announcement> {
        let damaged = "the relay's announcement in announcement.json is damaged: put it back from a backup";
        let parsed = Announcement::parse(self.signed.announcement.as_bytes());
        parsed.map_err(|e| Failure::park(Code::FileFailed, damaged).caused_by(e))
    }
}

impl KeyFolder {
    pub(super) fn keep(
        &self,
        announcement: &Announcement,
        key: &Identity,
        rows: &[KeyRow],
        kept: Option<Kept>,
        pinned: bool,
    ) -> Result<Kept> {
        let before = kept.map(|kept| kept.since).unwrap_or_default();
        let known = |row: &KeyRow| (name(row), before.get(&name(row)).copied().unwrap_or(announcement.serial));
        let since = rows.iter().map(known).collect();
        let kept = Kept { version: 1, pinned, since, signed: sign_announcement(key, announcement)? };
        let path = self.kept_path();
        let mut json = serde_json::to_vec_pretty(&kept)
            .map_err(|e| Failure::park(Code::Internal, "write the announcement of the relay's keys").caused_by(e))?;
        json.push(b'\n');
        write_whole(&*self.files, &path, &json).map_err(|e| file_failure("writing", &path, e))?;
        tracing::info!(announcement = announcement.serial, "the relay's keys are announced");
        Ok(kept)
    }

    pub(super) fn kept(&self) -> Result<Option<Kept>> {
        let path = self.kept_path();
        let bytes = read_if_there(&*self.files, &path, MAX_KEPT_BYTES).map_err(|e| file_failure("reading", &path, e))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let damaged = |e: serde_json::Error| {
            let message = format!("{} is damaged: put it back from a backup", path.display());
            Failure::park(Code::FileFailed, message).caused_by(e)
        };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }
}

/// Whether two announcements say the same, whenever and as whatever number.
pub(super) fn same(one: &Announcement, other: &Announcement) -> bool {
    let body = |a: &Announcement| Announcement { serial: 0, issued: Timestamp::UNIX_EPOCH, ..a.clone() };
    body(one) == body(other)
}

/// Every key, not yet with the announcement that named it first.
pub(super) fn rows(host: &HostKeys, receipt: &Identity, certificate: &Certificate, next: &Next) -> Vec<KeyRow> {
    let mut rows = Vec::new();
    let mut add = |what, next, algorithm: &str, fingerprint: String| {
        rows.push(KeyRow { what, next, algorithm: algorithm.to_owned(), fingerprint, since: 0 });
    };
    for (is_next, host) in [(false, Some(host)), (true, next.host.as_ref())] {
        for line in host.iter().flat_map(|host| host.public_lines()) {
            add(KeyUse::Host, is_next, line.algorithm(), line.fingerprint().to_string());
        }
    }
    for (is_next, key) in [(false, Some(receipt)), (true, next.receipt.as_ref())] {
        if let Some(key) = key {
            add(KeyUse::Receipt, is_next, key.public_line().algorithm(), key.fingerprint().to_string());
        }
    }
    for (is_next, certificate) in [(false, Some(certificate)), (true, next.certificate.as_ref())] {
        if let Some(certificate) = certificate {
            add(KeyUse::Certificate, is_next, "spki", certificate.spki.to_string());
        }
    }
    rows.sort_by_key(|row| row.next);
    rows
}

pub(super) fn name(row: &KeyRow) -> String {
    format!("{} {}", row.what, row.fingerprint)
}

/// What is in use and was not announced before. A certificate that nobody pins needs no announcement.
pub(super) fn strangers(rows: &[KeyRow], kept: &Kept) -> Vec<KeyUse> {
    let strange = |row: &&KeyRow| !row.next && !kept.since.contains_key(&name(row));
    let mut found: Vec<KeyUse> = rows.iter().filter(strange).map(|row| row.what).collect();
    found.retain(|what| *what != KeyUse::Certificate || kept.pinned);
    found.dedup();
    found
}
