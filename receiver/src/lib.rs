//! Placeholder.
pub mod import;
pub mod uplink;
