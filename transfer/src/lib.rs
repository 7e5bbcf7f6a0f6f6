//! The pure domain of Towpath: what a transfer is, and nothing about how it travels.
//!
//! This room knows no network, no SQL, no async runtime and no clock of its own. Every value that comes from outside
//! is parsed here once, into a type that cannot be wrong: [`name::RemotePath`], [`manifest::Manifest`],
//! [`packed::PackedList`], [`receipt::Receipt`]. The life of a transfer is the pure function [`state::TransferState::apply`].

pub mod announcement;
pub mod api;
pub mod beside;
pub mod clock;
pub mod codec;
pub mod column;
pub mod csv;
pub mod decimal;
pub mod digest;
pub mod event;
pub mod failure;
pub mod id;
pub mod manifest;
pub mod md5sums;
pub mod name;
pub mod packed;
pub mod public_key;
pub mod receipt;
pub mod release;
pub mod secret;
pub mod stage;
pub mod state;
pub mod value;

pub use clock::{Clock, Entropy};
pub use failure::{Code, Disposition, Failure};
pub use id::{AgentName, JobName, ReturnKind, Sequence, TenantName, TransferId, TransferKey};
pub use name::{FileName, RemotePath};
pub use secret::Secret;
pub use state::{Direction, Stage, TransferEvent, TransferState};
