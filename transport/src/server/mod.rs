//! The SSH and SFTP server: an adaptor between SSH clients and a [`VirtualFs`].
//!
//! One connection is three kinds of work that never wait for each other in a circle:
//! - the SSH session of russh reads packets, hands channel data to the intake (which never waits) and sends replies;
//! - one packet loop per SFTP channel takes whole frames, calls the [`VirtualFs`] and sends replies; only it waits for the
//!   peer's window;
//! - [`SshServer::serve_stream`] watches over both: login grace, revocation, stalls, shutdown; it cuts the stream where a
//!   goodbye would hang.

mod address;
mod attempts;
mod connection;
mod extension;
pub mod first_bytes;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handles;
mod intake;
mod keys;
mod limits;
mod lobby;
mod operations;
mod outbox;
mod packet_loop;
mod path;
#[cfg(unix)]
mod plain_directory;
mod reply;
mod session;
mod ssh_server;
pub mod stored;
mod users;
mod vfs;
mod wire;

#[cfg(unix)]
pub use plain_directory::PlainDirectory;
pub use {
    address::AddressKey,
    attempts::Attempts,
    keys::{HostKey, RSA_BITS_LEAST, RSA_BITS_MOST},
    limits::{FRAME_BYTES, LEAST_FRAME_BYTES, Limits, TRANSFER_BYTES},
    lobby::{Grace, Ticket},
    path::{AnyPath, PathForm},
    session::{Authenticator, Session},
    ssh_server::{Ended, SshServer, SshServerConfig},
    vfs::{
        Attributes, Capabilities, Entry, FileKind, FsError, FsResult, Lack, OpenOptions, Replace, SetAttributes, Space,
        VirtualFile, VirtualFs, VirtualListing,
    },
};
