//! The uplink on the ERP host: plan, then extract → pack → push → receipt. One file for each stage.

pub mod archive;
mod eager;
pub mod extract;
pub mod folder;
mod origins;
pub mod pack;
pub mod plan;
pub mod prune;
pub mod push;
pub mod receipt;
pub mod replan;

pub use plan::{Plan, plan};

#[cfg(test)]
pub(crate) mod tests;
