//! The ways to the relay, and the file in which the one that worked is remembered.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_transfer::Clock;
use towpath_transport::{
    dial::{
        Way,
        ways::{Blocked, Found, LOOK_AGAIN, Memory, Open, Ways},
    },
    files::FileStore,
    store::{Connect, RemoteStore, StoreResult},
};

use crate::small_file;

/// The largest file that is read, in bytes.
pub const MAX_WAYS_FILE_BYTES: usize = 64 * 1024;
/// The longest reason that is kept, in characters.
pub const MAX_REASON_CHARS: usize = 500;
/// The version of the file.
const VERSION: u32 = 1;

/// The ways to the relay's SFTP.
#[derive(Debug)]
pub struct Routes(Ways<Arc<dyn RemoteStore>>);

impl Routes {
    /// These ways, the best first.
    pub fn new(ways: Vec<(Way, Arc<dyn Connect>)>, memory: Arc<dyn Memory>, clock: Arc<dyn Clock>) -> Self {
        let open = |connect: Arc<dyn Connect>| -> Open<Arc<dyn RemoteStore>> {
            Box::new(move || {
                let connect = Arc::clone(&connect);
                Box::pin(async move { connect.connect().await })
            })
        };
        let ways = ways.into_iter().map(|(way, connect)| (way.to_string(), open(connect))).collect();
        Self(Ways::new("SSH to the relay", ways, memory, clock))
    }
}

#[async_trait]
impl Connect for Routes {
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        self.0.open().await
    }
}

/// What is known of the ways out of this network, as `ways.json` in the state folder says. It is a hint and no more: without it
/// the ways are found again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownWays {
    version: u32,
    /// To the relay's SFTP.
    pub ssh: Option<KnownWay>,
    /// To the relay's web service.
    pub https: Option<KnownWay>,
}

/// The way in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownWay {
    /// Its name, such as `ssh:443`.
    pub way: String,
    /// The proxy that it goes through.
    pub proxy: Option<String>,
    /// When it was found, or better ways were looked at without success.
    pub checked: Timestamp,
    /// Ways that were blocked then.
    pub blocked: Vec<BlockedWay>,
}

/// A way that is blocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedWay {
    /// Its name.
    pub way: String,
    /// Why.
    pub why: String,
}

impl KnownWays {
    /// What the file says; nothing where there is none or it cannot be read.
    #[must_use]
    pub fn read(files: &dyn FileStore, path: &std::path::Path) -> Self {
        let read = small_file::read(files, path, MAX_WAYS_FILE_BYTES).map_err(|failure| failure.report());
        let parsed = read.and_then(|bytes| match bytes {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            None => Ok(Self::default()),
        });
        match parsed {
            Ok(known) if known.version <= VERSION => known,
            Ok(_) => Self::default(),
            Err(why) => {
                tracing::warn!("{} is of no use ({why}); the ways to the relay are found anew", path.display());
                Self::default()
            }
        }
    }
}

/// Which of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// SFTP.
    Ssh,
    /// The web service.
    Https,
}

/// Keeps what is found in the file, for both connections.
#[derive(Clone)]
pub struct WaysFile {
    files: Arc<dyn FileStore>,
    path: PathBuf,
    /// Shown as it is; a way through another proxy is another way.
    proxy: Option<String>,
    clock: Arc<dyn Clock>,
    known: Arc<Mutex<KnownWays>>,
}

impl fmt::Debug for WaysFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaysFile({})", self.path.display())
    }
}

impl WaysFile {
    /// The file at `path`, for ways through `proxy`.
    pub fn new(files: Arc<dyn FileStore>, path: PathBuf, proxy: Option<String>, clock: Arc<dyn Clock>) -> Self {
        let known = Arc::new(Mutex::new(KnownWays::read(&*files, &path)));
        Self { files, path, proxy, clock, known }
    }

    /// The memory of one connection.
    #[must_use]
    pub fn of(&self, channel: Channel) -> Arc<dyn Memory> {
        Arc::new(OneOf { file: self.clone(), channel })
    }
}

#[derive(Debug)]
struct OneOf {
    file: WaysFile,
    channel: Channel,
}

impl OneOf {
    fn slot<'k>(&self, known: &'k mut KnownWays) -> &'k mut Option<KnownWay> {
        match self.channel {
            Channel::Ssh => &mut known.ssh,
            Channel::Https => &mut known.https,
        }
    }
}

impl Memory for OneOf {
    fn last(&self) -> Option<(String, Duration)> {
        let mut known = self.file.known.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.slot(&mut known).as_ref().filter(|last| last.proxy == self.file.proxy)?;
        // A clock that was set back makes the rest longer, which the caller cuts.
        let age = Duration::try_from(self.file.clock.now().duration_since(last.checked)).unwrap_or_default();
        Some((last.way.clone(), LOOK_AGAIN.saturating_sub(age)))
    }

    fn found(&self, found: &Found) {
        let file = &self.file;
        let mut known = file.known.lock().unwrap_or_else(PoisonError::into_inner);
        let shortened = |blocked: &Blocked| BlockedWay {
            way: blocked.way.clone(),
            why: blocked.why.chars().take(MAX_REASON_CHARS).collect(),
        };
        *self.slot(&mut known) = Some(KnownWay {
            way: found.way.clone(),
            proxy: file.proxy.clone(),
            checked: file.clock.now(),
            blocked: found.blocked.iter().map(shortened).collect(),
        });
        known.version = VERSION;
        let written = serde_json::to_vec_pretty(&*known).map_err(|error| error.to_string());
        let written = written.and_then(|json| small_file::write(&*file.files, &file.path, &json).map_err(|e| e.report()));
        if let Err(why) = written {
            tracing::warn!("the way to the relay is not remembered: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use towpath_transfer::clock::ManualClock;
    use towpath_transport::{
        dial::ways::NoMemory,
        files::{MemoryFiles, write_whole},
        store::{MemoryStore, StoreError, StoreErrorKind},
    };

    use super::*;

    const PATH: &str = "/state/ways.json";

    fn clock() -> ManualClock {
        ManualClock::new("2025-06-01T12:00:00Z".parse().unwrap())
    }

    fn file(files: &Arc<MemoryFiles>, proxy: Option<&str>, clock: &ManualClock) -> WaysFile {
        WaysFile::new(files.clone(), PATH.into(), proxy.map(str::to_owned), Arc::new(clock.clone()))
    }

    fn found(way: &str, why: &str) -> Found {
        Found { way: way.into(), blocked: vec![Blocked { way: "ssh:443".into(), why: why.into() }] }
    }

    #[derive(Debug)]
    struct Line(Option<StoreErrorKind>);

    #[async_trait]
    impl Connect for Line {
        async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
            match self.0 {
                Some(kind) => Err(StoreError::new(kind, "on purpose")),
                None => Ok(Arc::new(MemoryStore::new())),
            }
        }
    }

    #[tokio::test]
    async fn the_way_that_worked_is_remembered_over_a_restart() {
        let (files, clock) = (Arc::new(MemoryFiles::new()), clock());
        let ways = |first: Option<StoreErrorKind>| -> Vec<(Way, Arc<dyn Connect>)> {
            vec![("ssh:443".parse().unwrap(), Arc::new(Line(first))), ("tls:443".parse().unwrap(), Arc::new(Line(None)))]
        };
        let memory = file(&files, None, &clock).of(Channel::Ssh);
        let routes = Routes::new(ways(Some(StoreErrorKind::TimedOut)), memory, Arc::new(clock.clone()));
        routes.connect().await.unwrap();
        let known = KnownWays::read(&*files, Path::new(PATH)).ssh.unwrap();
        assert_eq!((known.way.as_str(), known.blocked[0].why.as_str()), ("tls:443", "on purpose"));
        clock.advance(Duration::from_secs(60));
        let last = file(&files, None, &clock).of(Channel::Ssh).last();
        assert_eq!(last, Some(("tls:443".to_owned(), LOOK_AGAIN - Duration::from_secs(60))));
        clock.advance(LOOK_AGAIN);
        assert_eq!(file(&files, None, &clock).of(Channel::Ssh).last().unwrap().1, Duration::ZERO);
        // The other connection has a memory of its own, and another proxy is another way.
        assert_eq!(file(&files, None, &clock).of(Channel::Https).last(), None);
        assert_eq!(file(&files, Some("http://p:1"), &clock).of(Channel::Ssh).last(), None);
    }

    #[tokio::test]
    async fn what_the_server_refuses_stays_its_word() {
        let ways: Vec<(Way, Arc<dyn Connect>)> = vec![
            ("ssh:443".parse().unwrap(), Arc::new(Line(Some(StoreErrorKind::HostKeyUnknown)))),
            ("tls:443".parse().unwrap(), Arc::new(Line(None))),
        ];
        let error = Routes::new(ways, Arc::new(NoMemory), Arc::new(clock())).connect().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::HostKeyUnknown);
    }

    #[test]
    fn both_connections_share_the_file() {
        let (files, clock) = (Arc::new(MemoryFiles::new()), clock());
        let both = file(&files, Some("http://p:1"), &clock);
        both.of(Channel::Ssh).found(&found("ssh:80", &"x".repeat(10_000)));
        both.of(Channel::Https).found(&found("https:443", "y"));
        let known = KnownWays::read(&*files, Path::new(PATH));
        let (ssh, https) = (known.ssh.unwrap(), known.https.unwrap());
        assert_eq!((ssh.way.as_str(), https.way.as_str()), ("ssh:80", "https:443"));
        assert_eq!(ssh.proxy.as_deref(), Some("http://p:1"));
        assert_eq!(ssh.blocked[0].why.len(), MAX_REASON_CHARS);
    }

    #[test]
    fn a_file_that_is_damaged_or_of_a_later_version_is_as_good_as_none() {
        let files = MemoryFiles::new();
        files.create_dir_all(Path::new("/state")).unwrap();
        for content in ["", "{", "{\"version\":1}x", "{\"version\":2,\"ssh\":null,\"https\":null}"] {
            write_whole(&files, Path::new(PATH), content.as_bytes()).unwrap();
            assert_eq!(KnownWays::read(&files, Path::new(PATH)), KnownWays::default(), "{content:?}");
        }
        write_whole(&files, Path::new(PATH), &vec![b' '; MAX_WAYS_FILE_BYTES + 1]).unwrap();
        assert_eq!(KnownWays::read(&files, Path::new(PATH)), KnownWays::default());
    }
}
