//! The program on the ERP host: extracts tables, packs and signs them, pushes them to the relay and keeps them until
//! the receiver has signed for the import.
//!
//! [`cli::run`] is the whole program. [`uplink`] holds the stages, over the [`parts::Parts`] that they touch;
//! [`host::Host`] builds the real ones.

pub mod chain;
pub mod cli;
pub mod config;
pub mod enrolment;
pub mod extract;
pub mod host;
pub mod layout;
mod network;
pub mod parts;
pub mod routes;
pub mod schedule;
mod small_file;
pub mod trust;
pub mod uplink;
pub mod view;
pub mod work;
