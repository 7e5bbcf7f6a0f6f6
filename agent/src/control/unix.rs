//! A Unix socket in the state folder.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};
use towpath_transfer::Clock;

use crate::layout::Layout;

/// The longest path that a socket's address holds on every system, in bytes; Linux has 108 and others less (`sun_path`, unix(7)).
const MAX_ADDRESS_BYTES: usize = 100;
/// What the socket's name gets appended until only its owner can use it.
const NEW_SUFFIX: &str = ".new";

/// Root may ask every agent.
const ROOT: u32 = 0;

#[derive(Debug)]
pub(super) struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Whose agent this is.
    owner: u32,
}

impl Listener {
    pub(super) fn new(layout: &Layout) -> io::Result<Self> {
        let path = layout.control();
        let mut new = path.clone().into_os_string();
        new.push(NEW_SUFFIX);
        let new = PathBuf::from(new);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let owner = fs::metadata(layout.state())?.uid();
        let address = Address::of(&new)?;
        let listener = UnixListener::bind(&address.path)?;
        fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        // Also over the socket of a process that was killed.
        fs::rename(&new, &path)?;
        Ok(Self { listener, path, owner })
    }

    /// The next connection; `None` for one of a user who may not ask.
    pub(super) async fn accept(&mut self) -> io::Result<Option<UnixStream>> {
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred()?.uid();
        Ok(Some(stream).filter(|_| may_ask(peer, self.owner, rustix::process::geteuid().as_raw())))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // One that stays is replaced by the next process, and nobody listens behind it.
        let _ = fs::remove_file(&self.path);
    }
}

fn may_ask(peer: u32, owner: u32, own: u32) -> bool {
    [ROOT, owner, own].contains(&peer)
}

pub(super) async fn connect(layout: &Layout, _clock: &dyn Clock) -> io::Result<UnixStream> {
    let address = Address::of(&layout.control())?;
    UnixStream::connect(&address.path).await
}

/// A path that fits into a socket's address.
struct Address {
    path: PathBuf,
    /// Open as long as `path` goes through it.
    _folder: Option<File>,
}

impl Address {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= MAX_ADDRESS_BYTES {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let folder = File::open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_root_and_the_agents_own_user_may_ask() {
        assert!(may_ask(1000, 1000, 1000) && may_ask(0, 1000, 1000) && may_ask(33, 1000, 33));
        assert!(!may_ask(1001, 1000, 1000) && !may_ask(1000, 0, 0));
    }
}
