//! The uplink, as the receiver does it: verify, import, receipt.

pub mod check;
pub mod content;
