//! What the operator's own tools see: readiness and figures. On an address of its own, never on the public one.

mod listener;
mod metrics;

pub use listener::Admin;
pub use metrics::Metrics;
