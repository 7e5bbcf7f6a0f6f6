//! What every program does at its edge, on the machine it runs on: read its configuration file, find its folders, hold its
//! state folder alone, write its log, and say a result or a failure.
//!
//! Nothing here knows what a transfer is; nothing behind the edge knows this room.

pub mod config;
pub mod folders;
pub mod lock;
pub mod output;
pub mod units;

pub use config::ConfigMistake;
pub use lock::StateLock;
pub use units::{Bytes, Pause};
