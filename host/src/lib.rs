//! What every program does at its edge, on the machine it runs on: read its command line and configuration file, find its
//! folders, hold its state folder alone, write its log, say a result or a failure, and stop when it is asked to.
//!
//! Nothing here knows what a transfer is; nothing behind the edge knows this room.

pub mod config;
pub mod database;
pub mod folders;
pub mod listen;
pub mod lock;
pub mod logs;
pub mod manual;
pub mod notify;
pub mod output;
pub mod owner;
pub mod process;
pub mod program;
pub mod schema;
pub mod secret;
pub mod spanned;
pub mod ssh;
pub mod units;

pub use config::ConfigMistake;
pub use database::Tls;
pub use lock::StateLock;
pub use logs::LogConfig;
pub use notify::Notifier;
pub use secret::SecretText;
pub use spanned::Spanned;
pub use ssh::SshSection;
pub use units::{Bytes, Pause, counted};
