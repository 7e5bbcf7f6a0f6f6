//! A new key in the place of an enrolled one.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::public_key::PublicKeyLine;

/// The longest time for which an old key is good beside the new one: 30 days.
pub const MAX_KEY_OVERLAP: Duration = Duration::from_hours(30 * 24);
/// The most rotations of one end: one a month for eight years. Whoever has come so far enrols anew.
pub const MAX_ROTATIONS: usize = 100;
/// The most keys of one end that are good at a time.
pub const MAX_LIVE_KEYS: usize = 4;

/// `POST /v1/keys`, its answer, and a link in the chain of an end's keys: the old key says which key follows it.
///
/// Both signatures are over the same text; see [`towpath_keys::rotation`](../../towpath_keys/rotation/index.html).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRotation {
    /// The key that is replaced: the newest of the end.
    pub old_key: PublicKeyLine,
    /// The key that follows it. It must never have been enrolled anywhere at this relay.
    pub new_key: PublicKeyLine,
    /// From then on the old key is refused; at most [`MAX_KEY_OVERLAP`] ahead.
    #[schema(value_type = String, format = DateTime)]
    pub old_until: Timestamp,
    /// Armoured SSHSIG by the old key, namespace `towpath-rotate@1`: it names its follower.
    #[schema(max_length = 4096)]
    pub by_old: String,
    /// The same by the new key: whoever asks holds it.
    #[schema(max_length = 4096)]
    pub by_new: String,
}
