//! The comms server between the ERP hosts and the apps: it enrols both ends, takes uplinks over SFTP, checks that they
//! are whole, forwards them, and carries the receipts back. It judges no content: trust runs between the ends.
//!
//! [`relay::Relay`] is everything without a network; [`host`] gives it disk and ports; [`cli`] is the command line.

pub mod access;
pub mod admin;
pub mod api;
pub mod app_servers;
pub mod audit;
pub mod cli;
pub mod config;
pub mod door;
pub mod downlink;
pub mod host;
pub mod keyring;
pub mod late;
pub mod limits;
pub mod registry;
pub mod relay;
pub mod release;
pub mod remove;
pub mod scope;
pub mod service;
mod settle;
pub mod sftpd;
mod signer;
pub mod spool;
pub mod uplink;
