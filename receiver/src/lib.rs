//! The receiver: takes what the relay forwards, checks it, imports it, and signs for it.
//!
//! One receiver serves one tenant.

pub mod import;
pub mod layout;
pub mod parts;
pub mod uplink;
