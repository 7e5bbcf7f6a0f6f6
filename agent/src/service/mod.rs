//! The agent as a service: what the service manager is told, and how it is installed.

#[cfg(windows)]
pub mod before;
pub mod heart;
pub mod installation;
#[cfg(unix)]
pub mod systemd;
#[cfg(any(windows, test))]
pub mod tasks;
pub mod unit;
pub mod watch;
#[cfg(windows)]
pub mod windows;

pub use towpath_host::notify;
