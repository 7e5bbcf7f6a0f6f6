//! `[ssh]` of the programs that serve SFTP: logins, also those of the relay's web service, and sessions.

use std::time::Duration;

use serde::Deserialize;
use towpath_transport::server::{FRAME_BYTES, LEAST_FRAME_BYTES, Limits};

use crate::{Bytes, Pause};

/// A mistake: the section and key, and what is wrong with them.
pub type Wrong = ([&'static str; 2], String);

/// Less time than this nobody could log in or answer.
const SHORTEST: Duration = Duration::from_secs(1);

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
    /// Connections of one user: an agent at the relay, the relay at a receiver.
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
    ///
    /// # Errors
    /// The first [`Wrong`].
    pub fn check(&self) -> Result<(), Wrong> {
        if !(LEAST_FRAME_BYTES as u64..=FRAME_BYTES as u64).contains(&self.frame.0) {
            let most = FRAME_BYTES / 1024;
            return Err((
                ["ssh", "frame"],
                format!("`frame` is {LEAST_FRAME_BYTES}B, which every client may send, to {most}KiB"),
            ));
        }
        for (key, count) in [
            ("unauthenticated", self.unauthenticated),
            ("unauthenticated_per_address", self.unauthenticated_per_address),
            ("key_offers", self.key_offers),
            ("failures_per_minute", self.failures_per_minute),
            ("sessions_per_agent", self.sessions_per_agent),
            ("open_handles", self.open_handles),
        ] {
            if count == 0 {
                return Err((["ssh", key], format!("`{key}` is at least 1")));
            }
        }
        for (key, pause) in [("login_grace", self.login_grace), ("silence", self.silence)] {
            if pause.0 < SHORTEST {
                return Err((["ssh", key], format!("`{key}` is at least {}s", SHORTEST.as_secs())));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> SshSection {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn without_a_word_the_limits_are_the_published_ones() {
        assert_eq!(parse("").limits(), Limits::default());
        assert_eq!(parse("").check(), Ok(()));
    }

    #[test]
    fn every_key_sets_its_limit() {
        let text = "login_grace = \"2s\"\nunauthenticated = 3\nunauthenticated_per_address = 4\nkey_offers = 5\n\
            failures_per_minute = 6\nrefusal = \"7s\"\nrefusal_longest = \"8s\"\nsessions_per_agent = 9\nopen_handles = 10\n\
            frame = \"64KiB\"\nsilence = \"11s\"\n";
        let section = parse(text);
        assert_eq!(section.check(), Ok(()));
        let expected = Limits {
            login_grace: Duration::from_secs(2),
            unauthenticated: 3,
            unauthenticated_per_address: 4,
            key_offers: 5,
            failures_per_minute: 6,
            refusal: Duration::from_secs(7),
            refusal_longest: Duration::from_secs(8),
            sessions_per_user: 9,
            open_handles: 10,
            frame_bytes: 64 * 1024,
            silence: Duration::from_secs(11),
            ..Limits::default()
        };
        assert_eq!(section.limits(), expected);
    }

    #[test]
    fn what_would_let_nobody_in_is_refused() {
        for (text, key) in [
            ("frame = \"33KiB\"", "frame"),
            ("frame = \"257KiB\"", "frame"),
            ("refusal = \"2h\"", "refusal"),
            ("unauthenticated = 0", "unauthenticated"),
            ("open_handles = 0", "open_handles"),
            ("sessions_per_agent = 0", "sessions_per_agent"),
            ("login_grace = \"999ms\"", "login_grace"),
            ("silence = \"0s\"", "silence"),
        ] {
            assert_eq!(parse(text).check().unwrap_err().0, ["ssh", key], "{text}");
        }
    }
}
