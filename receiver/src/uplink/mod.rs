//! The uplink, as the receiver does it: verify, import, receipt.

pub mod check;
pub mod content;
pub mod decide;
pub mod import;
pub mod receipt;
pub mod scan;
pub mod verify;

#[cfg(test)]
mod tests;
