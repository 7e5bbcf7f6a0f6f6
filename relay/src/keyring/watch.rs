//! The running relay takes what has become of its keys: by a command, or because the certificate's files were renewed.

use std::{sync::Arc, time::Duration};

use towpath_transfer::{Clock, Failure, digest::Sha256Digest, failure::Result};
use towpath_transport::server::{HostKey, SshServer};

use super::{KeyFolder, KeyUse, Keyring, Present};
use crate::{
    door::{Door, tls::Certificate},
    registry::Registry,
    spool::blocking,
};

/// How often the key files are looked at.
pub const WATCH_PERIOD: Duration = Duration::from_secs(1);
/// After so many looks a failure is tried again, although no file has changed.
const RETRY_LOOKS: u32 = 60;
/// The most ends that one warning names.
const MAX_NAMED: u32 = 20;

/// What a running relay does with its key folder.
#[derive(Debug)]
pub struct KeyWatch {
    folder: KeyFolder,
    keyring: Keyring,
    ssh: SshServer,
    door: Door,
    registry: Registry,
    clock: Arc<dyn Clock>,
    certificate: Certificate,
    ecdsa: bool,
    seen: Option<Sha256Digest>,
    failed: u32,
}

impl KeyWatch {
    /// Watches `folder` for these servers, which show `certificate` now, and the ECDSA host key where `ecdsa` says so.
    #[must_use]
    pub fn new(
        folder: KeyFolder,
        keyring: Keyring,
        ssh: SshServer,
        door: Door,
        registry: Registry,
        certificate: Certificate,
        ecdsa: bool,
    ) -> Self {
        let clock = Arc::clone(&folder.clock);
        Self { folder, keyring, ssh, door, registry, clock, certificate, ecdsa, seen: None, failed: 0 }
    }

    /// Looks again and again, for as long as the future lives.
    pub async fn run(mut self) {
        loop {
            if let Err(failure) = self.look().await {
                let report = failure.report();
                tracing::error!(code = %failure.code(), error = report, "the relay's keys could not be read; it uses those it has");
            }
            self.clock.sleep(WATCH_PERIOD).await;
        }
    }

    async fn look(&mut self) -> Result<()> {
        // The trace is taken first: what changes meanwhile is seen by the next look.
        let folder = self.folder.clone();
        let trace = blocking(move || folder.trace()).await?;
        self.failed = self.failed.saturating_sub(1);
        if self.seen == Some(trace) && self.failed != 1 {
            return Ok(());
        }
        self.seen = Some(trace);
        self.failed = RETRY_LOOKS;
        let (folder, keep) = (self.folder.clone(), self.certificate.clone());
        let present = blocking(move || folder.look(Some(&keep))).await??;
        if let Some(failure) = &present.certificate_failure {
            let report = failure.report();
            tracing::error!(code = %failure.code(), error = report, "the certificate's files cannot be used; the relay shows the one before");
        } else {
            self.failed = 0;
        }
        self.take(&present)?;
        warn_strangers(&self.registry, &present.strangers).await
    }

    /// Shows these keys to whoever connects from now on.
    fn take(&mut self, present: &Present) -> Result<()> {
        let before = self.keyring.shown();
        let shown = present.shown();
        if before.ssh_host_keys != shown.ssh_host_keys {
            self.ssh.set_host_keys(ssh_keys(present, self.ecdsa)?)?;
            tracing::info!(what = %KeyUse::Host, "the relay shows other keys");
        }
        if before.receipt_key.fingerprint() != shown.receipt_key.fingerprint() {
            tracing::info!(what = %KeyUse::Receipt, fingerprint = %shown.receipt_key.fingerprint(), "the relay signs with another key");
        }
        if self.certificate.bytes != present.certificate.bytes {
            self.certificate = present.certificate.clone();
            self.door.set_certificate(Arc::clone(&self.certificate.config));
            tracing::info!(what = %KeyUse::Certificate, spki = %self.certificate.spki, "the relay shows another certificate");
        }
        self.keyring.set(shown);
        Ok(())
    }
}

/// The host keys as the SSH server takes them, with the one of ECDSA where `ecdsa` says so.
pub(crate) fn ssh_keys(present: &Present, ecdsa: bool) -> Result<Vec<HostKey>, Failure> {
    present.host_keys.offered(ecdsa).into_iter().map(HostKey::try_from).collect()
}

/// Says who cannot connect any more, because a key is in use that was never announced.
pub(crate) async fn warn_strangers(registry: &Registry, strangers: &[KeyUse]) -> Result<()> {
    if strangers.is_empty() {
        return Ok(());
    }
    let ends: Vec<String> = registry.followers(MAX_NAMED).await?.iter().map(ToString::to_string).collect();
    if ends.is_empty() {
        return Ok(());
    }
    for what in strangers {
        let lost = match what {
            KeyUse::Host => "no end that has pinned the one before connects until it has taken the announcement of this one",
            KeyUse::Receipt => {
                "every end that has pinned the one before refuses receipts and announcements, and has to enrol again"
            }
            KeyUse::Certificate => "every end that has pinned the one before cannot connect any more, and has to enrol again",
        };
        tracing::error!(
            %what,
            ends = ends.join(", "),
            "the relay uses a key that it never announced: {lost}. Put the one before back, and first run: \
             towpath-relay key announce {what}"
        );
    }
    Ok(())
}
