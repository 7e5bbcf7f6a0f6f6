//! The program on the ERP host: extracts tables, packs and signs them, pushes them to the relay and keeps them until
//! the receiver has signed for the import. The other way it fetches return files, verifies them, delivers them to the ERP and
//! signs for that.
//!
//! [`cli::run`] is the whole program. [`uplink`] and [`downlink`] hold the stages, over the [`parts::Parts`] that they touch;
//! [`engine`] drives them, and [`host::Host`] builds the real parts.

pub mod alert;
pub mod announcement;
pub mod bandwidth;
mod blocking;
pub mod chain;
pub mod cli;
pub mod config;
pub mod control;
pub mod doctor;
pub mod downlink;
pub mod engine;
pub mod enrolment;
pub mod extract;
pub mod host;
pub mod key_files;
pub mod layout;
mod network;
pub mod own_key;
pub mod parts;
pub mod pause;
pub mod planning;
pub mod reload;
pub mod room;
pub mod rotation;
pub mod routes;
pub mod schedule;
pub mod service;
pub mod setup;
mod small_file;
pub mod support;
pub mod trust;
pub mod update;
pub mod uplink;
pub mod view;
pub mod work;
