//! The receiver: takes what the relay forwards, checks it, imports it, and signs for it; and sends files back to the ERP.
//!
//! One receiver serves one tenant. [`host`] builds it on a real machine; [`service`] runs it over any [`parts::Parts`].

pub mod agent_keys;
pub mod agents;
pub mod announcement;
pub mod chain;
pub mod cli;
pub mod config;
pub mod downlink;
pub mod enrolment;
pub mod host;
pub mod import;
pub mod kept;
pub mod landing;
pub mod layout;
pub mod parts;
pub mod quarantine;
pub mod restored;
pub mod service;
#[cfg(test)]
mod testing;
pub mod tidy;
pub mod uplink;
