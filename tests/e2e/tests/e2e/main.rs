//! End to end: the real programs on loopback, from a sample ERP to the app database.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must fail and say why"
)]

mod agent_key;
mod alerts;
mod crash;
mod databases;
mod disk_full;
mod doctor;
mod documented;
mod downlink;
mod duplicates;
mod flow;
mod interop;
mod kills;
mod maker;
mod network;
mod outages;
#[cfg(target_os = "linux")]
mod packages;
mod parked;
mod put_back;
mod refusals;
mod reload;
mod restored;
mod rotation;
mod seams;
mod seams_downlink;
mod setting_up;
mod silent;
mod stopping;
mod support;
#[cfg(target_os = "linux")]
mod systemd;
mod tamper;
mod tenants;
#[cfg(target_os = "linux")]
mod updates;
mod ways;
mod wine;

use std::path::Path;

/// The three programs with their failpoints.
fn executable() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_towpath-e2e-program"))
}

/// Every table of the sample ERP.
fn tables() -> Vec<&'static str> {
    towpath_samples::erp::TABLES.to_vec()
}
