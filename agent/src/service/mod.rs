//! The agent as a service: what the service manager is told, and how it is installed.

pub mod heart;
pub mod installation;
#[cfg(unix)]
pub mod systemd;
pub mod unit;
pub mod watch;
#[cfg(windows)]
pub mod windows;

pub use towpath_host::notify;
