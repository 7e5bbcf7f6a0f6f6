//! The downlink on the ERP host: poll, then pull → verify → deliver → acknowledge. One file for each stage.

pub mod acknowledge;
pub mod action;
pub mod decide;
pub mod deliver;
pub mod delivering;
pub mod describe;
pub mod download;
pub mod names;
pub mod poll;
pub mod pull;
pub mod stage_files;
pub mod verify;

#[cfg(test)]
pub(crate) mod tests;
