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

/// Root may ask every agent, and answer for every agent.
const ROOT: u32 = 0;

/// Whoever listens on the socket is somebody else than the agent of the state folder: what it says is not believed.
#[derive(Debug, thiserror::Error)]
#[error("user id {peer} listens on its socket, and the folder belongs to user id {owner}")]
pub(super) struct Stranger {
    peer: u32,
    owner: u32,
}

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
        Ok(Some(stream).filter(|_| admitted(self.owner, rustix::process::geteuid().as_raw()).contains(&peer)))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // One that stays is replaced by the next process, and nobody listens behind it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Who may ask the agent, and who may be it: root, the folder's owner, and whoever this process is.
fn admitted(owner: u32, own: u32) -> [u32; 3] {
    [ROOT, owner, own]
}

pub(super) async fn connect(layout: &Layout, _clock: &dyn Clock) -> io::Result<UnixStream> {
    let address = Address::of(&layout.control())?;
    let stream = UnixStream::connect(&address.path).await?;
    let owner = fs::metadata(layout.state())?.uid();
    believed(stream, owner, admitted(owner, rustix::process::geteuid().as_raw()))
}

/// The connection, where the other side is one of those who may be the agent. The path may have led to any socket of this host: in it
/// are names that the service's account has made.
fn believed(stream: UnixStream, owner: u32, admitted: [u32; 3]) -> io::Result<UnixStream> {
    let peer = stream.peer_cred()?.uid();
    if admitted.contains(&peer) { Ok(stream) } else { Err(io::Error::other(Stranger { peer, owner })) }
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
    fn the_owner_root_and_the_agents_own_user_may_ask_and_answer() {
        let may = |peer: u32, owner: u32, own: u32| admitted(owner, own).contains(&peer);
        assert!(may(1000, 1000, 1000) && may(0, 1000, 1000) && may(33, 1000, 33));
        assert!(!may(1001, 1000, 1000) && !may(1000, 0, 0) && !may(33, 1000, ROOT));
    }

    #[tokio::test]
    async fn who_listens_and_may_not_is_not_believed() {
        // Both ends are this process, so that it is also who listens.
        let own = rustix::process::geteuid().as_raw();
        let connected = || UnixStream::pair().unwrap().0;
        assert!(believed(connected(), own, [own; 3]).is_ok());
        let error = believed(connected(), 7, [own + 1; 3]).unwrap_err();
        assert!(error.get_ref().is_some_and(|why| why.is::<Stranger>()));
        assert_eq!(error.to_string(), format!("user id {own} listens on its socket, and the folder belongs to user id 7"));
        let layout = Layout::new(Path::new("/var/lib/towpath/agent"));
        let report = super::super::not_connected(&layout, error).report();
        assert!(report.starts_with("what answers on /var/lib/towpath/agent is not its agent: user id "), "{report}");
    }
}
