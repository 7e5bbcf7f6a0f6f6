//! Every limit of the server, by name.

use std::time::Duration;

/// The longest SFTP frame, in bytes without its length field (the limit of OpenSSH's own server).
pub const FRAME_BYTES: usize = 256 * 1024;
/// The least that a frame must be allowed, in bytes: what every server should take (draft-ietf-secsh-filexfer-02 section 3).
pub const LEAST_FRAME_BYTES: usize = 34_000;
/// The most bytes that one READ returns or one WRITE carries: a frame less the room for its header, as OpenSSH has it.
pub const TRANSFER_BYTES: usize = FRAME_BYTES - 1024;

/// What one server grants. The defaults are the published figures; a program changes them from its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From the first byte to a successful login, also when the bytes come in drops.
    pub login_grace: Duration,
    /// Connections that have not logged in yet, over all addresses; one more drops the oldest.
    pub unauthenticated: usize,
    /// Connections that have not logged in yet, from one address; one more drops that address's oldest.
    pub unauthenticated_per_address: usize,
    /// Key offers on one connection before it has logged in.
    pub key_offers: usize,
    /// Failed attempts of one address within a minute before unknown keys are refused at once.
    pub failures_per_minute: usize,
    /// How long unknown keys are refused at first; each further time doubles it.
    pub refusal: Duration,
    /// The longest such refusal.
    pub refusal_longest: Duration,
    /// Addresses whose failures are remembered; the longest quiet one is forgotten first.
    pub remembered_addresses: usize,
    /// Logged-in connections of one user.
    pub sessions_per_user: usize,
    /// SFTP channels of one connection.
    pub channels: usize,
    /// SFTP channels that one connection may open one after the other.
    pub channels_in_all: usize,
    /// A logged-in peer that sends nothing, or takes nothing, for this long is gone.
    pub silence: Duration,
    /// An SFTP frame longer than this closes its channel unread, in bytes. At most [`FRAME_BYTES`].
    pub frame_bytes: usize,
    /// Files and listings open at once in one connection.
    pub open_handles: usize,
    /// Bytes of requests waiting in one connection from which on nothing more is read from the network, unless replies
    /// wait for the peer (its window adjustments arrive on the same stream).
    pub queue_pause_bytes: usize,
    /// Bytes of requests waiting in one connection over which it ends.
    pub queue_bytes: usize,
    /// Bytes of requests waiting in all connections together, beyond `queue_pause_bytes` in each, over which the one ends that has sent
    /// the last, where more than 1 MiB of them are its own: each key may open many connections and take no reply in any.
    pub queue_bytes_in_all: usize,
    /// Entries in one page of a listing.
    pub page_entries: usize,
    /// How long a connection may take to say goodbye before it is cut.
    pub goodbye: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            login_grace: Duration::from_secs(30),
            unauthenticated: 100,
            unauthenticated_per_address: 20,
            key_offers: 6,
            failures_per_minute: 10,
            refusal: Duration::from_mins(1),
            refusal_longest: Duration::from_hours(1),
            remembered_addresses: 10_000,
            sessions_per_user: 32,
            channels: 4,
            channels_in_all: 1000,
            silence: Duration::from_secs(90),
            frame_bytes: FRAME_BYTES,
            open_handles: 100,
            queue_pause_bytes: 2 * 1024 * 1024,
            queue_bytes: 32 * 1024 * 1024,
            queue_bytes_in_all: 256 * 1024 * 1024,
            page_entries: 100,
            goodbye: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_published_figures() {
        let limits = Limits::default();
        assert_eq!(limits.login_grace, Duration::from_secs(30));
        assert_eq!((limits.unauthenticated, limits.unauthenticated_per_address), (100, 20));
        assert_eq!((limits.key_offers, limits.failures_per_minute), (6, 10));
        assert_eq!(limits.silence, Duration::from_secs(90));
        assert_eq!((limits.frame_bytes, limits.open_handles), (262_144, 100));
        // A frame that is still arriving on every channel must not keep the network from being read.
        assert!(limits.channels * limits.frame_bytes < limits.queue_pause_bytes);
        assert!(limits.queue_pause_bytes < limits.queue_bytes && limits.queue_bytes < limits.queue_bytes_in_all);
    }
}
