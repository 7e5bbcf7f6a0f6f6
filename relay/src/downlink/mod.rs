//! The relay's part of the way from the app to the ERP: fetch, pack, queue, offer, take the acknowledgement, and remove.

pub mod acknowledge;
mod arrivals;

pub use arrivals::{Arrivals, MAX_POLLS_PER_AGENT, Waiting};

/// What the relay grants to return files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownlinkLimits {
    /// Transfers that may be on their way to one agent at once.
    pub waiting: usize,
}

impl Default for DownlinkLimits {
    fn default() -> Self {
        Self { waiting: towpath_transfer::api::MAX_OFFERS }
    }
}
