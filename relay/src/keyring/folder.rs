//! The keys in the relay's state folder, and every change of them.
//!
//! ```text
//! host_keys/ receipt_key tls/    the present keys
//! next/host/ next/receipt/ next/certificate/    the announced ones, each folder whole or not there
//! switching/…    the next ones on their way into place: what is here was decided and is finished at the next look
//! announcement.json    the newest announcement, signed, and since when each key is announced
//! ```
//! Every step is one rename or one file written whole, and each look first finishes what a process has left half done. A key
//! is announced from before it is used until after it is replaced, so that whatever is shown in between is pinned by the ends.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use serde::Serialize;
use towpath_keys::{HostKeys, Identity, KeyKind};
use towpath_transfer::{Clock, Code, Entropy, Failure, announcement::Announcement, digest::Sha256Digest, failure::Result};
use towpath_transport::files::{FileStore, file_failure, ignore_missing, read_whole, write_whole};

use super::{
    Announced, KeyUse, Shown,
    kept::{MAX_KEPT_BYTES, name, rows, same, strangers},
    place::{CERTIFICATE, KEY, Next},
};
use crate::{
    config::TlsSection,
    door::tls::{self, Certificate},
};

/// One key, present or next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyRow {
    /// What it is for.
    pub what: KeyUse,
    /// Whether it is announced and not used yet.
    pub next: bool,
    /// Its kind; of a certificate, `spki`.
    pub algorithm: String,
    /// Its fingerprint as `ssh-keygen -l` shows it; of a certificate, the pin.
    pub fingerprint: String,
    /// The first announcement that named it.
    pub since: u64,
}

/// The keys as they are now.
#[derive(Debug)]
pub struct Present {
    /// The SSH host keys.
    pub host_keys: HostKeys,
    /// The key that signs receipts.
    pub receipt_key: Identity,
    /// The certificate.
    pub certificate: Certificate,
    /// Why the certificate's files could not be used, where `certificate` is an earlier one.
    pub certificate_failure: Option<Failure>,
    /// What is announced.
    pub announced: Announced,
    /// When that was made.
    pub issued: Timestamp,
    /// Every key, the present ones first.
    pub rows: Vec<KeyRow>,
    /// Keys in use that the announcement before this look did not name: whoever has pinned their predecessors is lost.
    pub strangers: Vec<KeyUse>,
}

impl Present {
    /// What ends are shown.
    #[must_use]
    pub fn shown(&self) -> Shown {
        Shown {
            ssh_host_keys: self.host_keys.public_lines().to_vec(),
            receipt_key: self.receipt_key.clone(),
            announced: Some(self.announced.clone()),
        }
    }

    /// The first announcement that named the whole next key; `None` where there is none.
    #[must_use]
    pub fn next_since(&self, what: KeyUse) -> Option<u64> {
        self.rows.iter().filter(|row| row.next && row.what == what).map(|row| row.since).max()
    }
}

/// The keys in a state folder. Everything here blocks.
#[derive(Debug, Clone)]
pub struct KeyFolder {
    /// The disk.
    pub files: Arc<dyn FileStore>,
    /// The state folder.
    pub state: PathBuf,
    /// Where the certificate is, where it is not the relay's own.
    pub tls: TlsSection,
    /// The relay's URL.
    pub public_url: String,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl KeyFolder {
    /// Finishes what was left half done, makes keys that are missing, announces what is not announced, and reads it all.
    /// Where the certificate's files cannot be used, `keep` is used on.
    ///
    /// # Errors
    /// Those of the key files; [`Code::FileFailed`], [`Code::DiskFull`].
    pub fn look(&self, keep: Option<&Certificate>) -> Result<Present> {
        let _lock = self.lock()?;
        self.settle(keep)
    }

    /// Announces a next key: makes it, or takes the certificate and its key from these files. Repeating changes nothing.
    ///
    /// # Errors
    /// [`Code::RequestInvalid`] where another certificate is announced already; [`Code::KeyInvalid`] where these files cannot be
    /// used together; those of [`KeyFolder::look`].
    pub fn announce(&self, what: KeyUse, certificate: Option<(&Path, &Path)>) -> Result<Present> {
        let _lock = self.lock()?;
        self.finish()?;
        let folder = self.next_folder(what);
        if !self.exists(&folder)? {
            self.make_next(what, certificate, &folder)?;
        } else if certificate.is_some() {
            let message = format!("another {what} is announced already: first run towpath-relay key withdraw {what}");
            return Err(Failure::park(Code::RequestInvalid, message));
        }
        self.settle(None)
    }

    /// Makes the next key the present one, and announces the one before no more.
    ///
    /// # Errors
    /// [`Code::NotFound`] where there is no next one; [`Code::FileFailed`] where the certificate's configured files cannot be
    /// written: nothing has changed then; those of [`KeyFolder::look`].
    pub fn switch(&self, what: KeyUse) -> Result<Present> {
        let _lock = self.lock()?;
        self.finish()?;
        let (from, to) = (self.next_folder(what), self.switching_folder(what));
        if !self.exists(&from)? {
            return Err(no_next(what));
        }
        if what == KeyUse::Certificate {
            self.next()?;
            self.check_writable()?;
        }
        self.make_folder(&self.state.join("switching"))?;
        // From here on it is decided.
        self.move_over(&from, &to)?;
        self.settle(None)
    }

    /// Takes a next key back, and announces it no more.
    ///
    /// # Errors
    /// [`Code::NotFound`] where there is no next one; those of [`KeyFolder::look`].
    pub fn withdraw(&self, what: KeyUse) -> Result<Present> {
        let _lock = self.lock()?;
        self.finish()?;
        if !self.exists(&self.next_folder(what))? {
            return Err(no_next(what));
        }
        self.drop_next(what)?;
        self.settle(None)
    }

    /// A digest of every file that is looked at: where it is the same as before, nothing has changed.
    #[must_use]
    pub fn trace(&self) -> Sha256Digest {
        let (certificate, key, _) = tls::files(&self.tls, &self.tls_folder());
        let mut read = vec![certificate, key, self.state.join("receipt_key"), self.kept_path()];
        read.extend(self.names(&self.host_folder()).unwrap_or_default().iter().map(|name| self.host_folder().join(name)));
        let mut all = Vec::new();
        for path in read {
            match read_whole(&*self.files, &path, MAX_KEPT_BYTES) {
                Ok(bytes) => all.extend_from_slice(Sha256Digest::of(&bytes).to_string().as_bytes()),
                Err(error) => all.extend_from_slice(error.kind().to_string().as_bytes()),
            }
            all.push(0);
        }
        for what in KeyUse::ALL {
            let there =
                [self.next_folder(what), self.switching_folder(what)].map(|folder| u8::from(self.files.stat(&folder).is_ok()));
            all.extend_from_slice(&there);
        }
        Sha256Digest::of(&all)
    }

    fn settle(&self, keep: Option<&Certificate>) -> Result<Present> {
        self.finish()?;
        let host_keys = HostKeys::load_or_generate(&self.host_folder(), &*self.entropy)?;
        let receipt_key = Identity::load_or_create(&self.state.join("receipt_key"), KeyKind::Ed25519, &*self.entropy)?;
        let (certificate, certificate_failure) = match (self.certificate(), keep) {
            (Err(failure), Some(keep)) => (keep.clone(), Some(failure)),
            (loaded, _) => (loaded?, None),
        };
        let mut next = self.next()?;
        if next.certificate.as_ref().is_some_and(|next| next.spki == certificate.spki) {
            // Somebody has put the announced certificate in place by hand.
            self.drop_next(KeyUse::Certificate)?;
            next.certificate = None;
        }
        let rows = rows(&host_keys, &receipt_key, &certificate, &next);
        let kept = self.kept()?;
        let strangers = kept.as_ref().map(|kept| strangers(&rows, kept)).unwrap_or_default();
        let body = self.body(&host_keys, &receipt_key, &certificate, &next);
        let pinned = certificate.pin.is_some() || kept.as_ref().is_some_and(|kept| kept.pinned);
        let before = kept.as_ref().map(super::kept::Kept::announcement).transpose()?;
        let (kept, announcement) = match (kept, before) {
            (Some(kept), Some(before)) if same(&before, &body) => (kept, before),
            (kept, before) => {
                let announcement = Announcement { serial: before.map_or(1, |before| self.following(before.serial)), ..body };
                (self.keep(&announcement, &receipt_key, &rows, kept, pinned)?, announcement)
            }
        };
        let since = |row: KeyRow| KeyRow { since: kept.since.get(&name(&row)).copied().unwrap_or(announcement.serial), ..row };
        Ok(Present {
            host_keys,
            receipt_key,
            certificate,
            certificate_failure,
            announced: Announced { serial: announcement.serial, signed: kept.signed.clone() },
            issued: announcement.issued,
            rows: rows.into_iter().map(since).collect(),
            strangers,
        })
    }

    /// The number of the announcement after this one: the second in which it is made, and always a greater one. A relay whose state was
    /// put back does not know the numbers that it has given since, and must not give one of them to other keys.
    fn following(&self, serial: u64) -> u64 {
        let now = u64::try_from(self.clock.now().as_second()).unwrap_or_default();
        serial.saturating_add(1).max(now)
    }

    fn certificate(&self) -> Result<Certificate> {
        Certificate::load(&self.tls, &self.tls_folder(), &self.public_url, &*self.clock, &*self.entropy)
    }

    /// The announcement of these keys, not numbered yet.
    fn body(&self, host: &HostKeys, receipt: &Identity, certificate: &Certificate, next: &Next) -> Announcement {
        let mut ssh_host_keys = host.public_lines().to_vec();
        ssh_host_keys.extend(next.host.iter().flat_map(HostKeys::public_lines).cloned());
        let receipt_keys = std::iter::once(receipt).chain(&next.receipt).map(|key| key.public_line().clone()).collect();
        let spki_pins = std::iter::once(certificate).chain(&next.certificate).map(|one| one.spki).collect();
        let (relay_url, issued) = (self.public_url.clone(), self.clock.now());
        Announcement { version: 1, serial: 0, relay_url, issued, ssh_host_keys, receipt_keys, spki_pins }
    }

    /// Makes a next key under a hidden name, and then shows it whole.
    fn make_next(&self, what: KeyUse, certificate: Option<(&Path, &Path)>, folder: &Path) -> Result<()> {
        let hidden = self.state.join("next").join(".making");
        ignore_missing(self.files.remove_dir_all(&hidden)).map_err(|e| file_failure("clearing", &hidden, e))?;
        self.make_folder(&hidden)?;
        match what {
            KeyUse::Host => drop(HostKeys::load_or_generate(&hidden, &*self.entropy)?),
            KeyUse::Receipt => drop(Identity::create_file(&hidden.join("receipt_key"), KeyKind::Ed25519, &*self.entropy)?),
            KeyUse::Certificate => {
                let (chain, key) = match certificate {
                    Some((chain, key)) => (tls::read(chain)?, tls::read(key)?),
                    None => {
                        let (chain, key) = tls::self_signed(&self.public_url, &*self.clock)?;
                        (chain.into_bytes(), key.into_bytes())
                    }
                };
                for (name, bytes) in [(CERTIFICATE, chain), (KEY, key)] {
                    let path = hidden.join(name);
                    write_whole(&*self.files, &path, &bytes).map_err(|e| file_failure("writing", &path, e))?;
                }
                Certificate::read(&hidden.join(CERTIFICATE), &hidden.join(KEY), true)?;
            }
        }
        self.move_over(&hidden, folder)
    }
}

fn no_next(what: KeyUse) -> Failure {
    Failure::park(Code::NotFound, format!("there is no next {what}: first run towpath-relay key announce {what}"))
}
