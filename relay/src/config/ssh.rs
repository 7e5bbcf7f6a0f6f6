//! `[ssh]`: logins, also those of the web service, and sessions.

use serde::Deserialize;
use towpath_host::{Bytes, Pause};
use towpath_transport::server::{FRAME_BYTES, LEAST_FRAME_BYTES, Limits};

use super::Wrong;

/// `[ssh]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SshSection {
    /// From the first byte to the login.
    pub login_grace: Pause,
    /// Connections that have not logged in.
    pub unauthenticated: usize,
    /// Of these, from one address.
    pub unauthenticated_per_address: usize,
    /// Keys offered, or tokens and codes refused, on one connection.
    pub key_offers: usize,
    /// Failed logins of one address in a minute.
    pub failures_per_minute: usize,
    /// How long an address with more is refused what is unknown, at first.
    pub refusal: Pause,
    /// The longest such time.
    pub refusal_longest: Pause,
    /// Connections of one agent.
    pub sessions_per_agent: usize,
    /// Open files of one connection.
    pub open_handles: usize,
    /// The longest SFTP frame.
    pub frame: Bytes,
    /// A peer that is silent for this long is gone.
    pub silence: Pause,
    /// Whether the ECDSA P-256 host key is offered beside the Ed25519 one, for clients that know no Ed25519.
    pub ecdsa_host_key: bool,
}

impl Default for SshSection {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            login_grace: Pause(limits.login_grace),
            unauthenticated: limits.unauthenticated,
            unauthenticated_per_address: limits.unauthenticated_per_address,
            key_offers: limits.key_offers,
            failures_per_minute: limits.failures_per_minute,
            refusal: Pause(limits.refusal),
            refusal_longest: Pause(limits.refusal_longest),
            sessions_per_agent: limits.sessions_per_user,
            open_handles: limits.open_handles,
            frame: Bytes(limits.frame_bytes as u64),
            silence: Pause(limits.silence),
            ecdsa_host_key: false,
        }
    }
}

impl SshSection {
    /// What the form alone does not say.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        if !(LEAST_FRAME_BYTES as u64..=FRAME_BYTES as u64).contains(&self.frame.0) {
            let most = FRAME_BYTES / 1024;
            return Err((
                ["ssh", "frame"],
                format!("`frame` is {LEAST_FRAME_BYTES}B, which every client may send, to {most}KiB"),
            ));
        }
        if self.refusal.0 > self.refusal_longest.0 {
            return Err((["ssh", "refusal"], "`refusal` is at most `refusal_longest`".to_owned()));
        }
        Ok(())
    }

    /// What the SSH server grants.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            login_grace: self.login_grace.0,
            unauthenticated: self.unauthenticated,
            unauthenticated_per_address: self.unauthenticated_per_address,
            key_offers: self.key_offers,
            failures_per_minute: self.failures_per_minute,
            refusal: self.refusal.0,
            refusal_longest: self.refusal_longest.0,
            sessions_per_user: self.sessions_per_agent,
            open_handles: self.open_handles,
            frame_bytes: usize::try_from(self.frame.0).unwrap_or(FRAME_BYTES),
            silence: self.silence.0,
            ..Limits::default()
        }
    }
}
