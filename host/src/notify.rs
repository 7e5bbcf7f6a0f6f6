//! What systemd is told of a service: that it works, what it does, that it reads its configuration again, that it stops, and that
//! its loops still turn (`sd_notify(3)`: datagrams of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names).
//!
//! Outside systemd there is nobody to tell, and nothing happens.

use std::{
    env,
    ffi::{OsStr, OsString},
    time::Duration,
};

#[cfg(unix)]
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use towpath_transfer::Clock;

/// The longest text of a status, in bytes; longer ones are cut. systemd reads at most 4 KiB of a message.
pub const MAX_STATUS_BYTES: usize = 1_000;
/// How long a message may take: systemd reads at once unless the host is in trouble.
pub const SEND_LIMIT: Duration = Duration::from_secs(1);
/// How often the watchdog is answered within its time (`sd_watchdog_enabled(3)` recommends half of it).
const ANSWERS: u32 = 2;

/// Tells systemd. Clones tell the same one.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    #[cfg(unix)]
    to: Option<Arc<unix::Socket>>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`, and of the watchdog `WATCHDOG_USEC` and `WATCHDOG_PID`. A socket that cannot be
    /// used is told to the log, and then there is nobody to tell.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_values(&|name| env::var_os(name))
    }

    fn from_values(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let number = |name| variable(name).and_then(|value| value.to_str()?.parse::<u64>().ok());
        // A service's child inherits the variables; the watchdog is not meant for it.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|microseconds| *microseconds > 0 && ours).map(Duration::from_micros);
        match variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) {
            Some(name) => Self::to(&name, watchdog),
            None => Self::default(),
        }
    }

    /// Tells the socket of this name, a path, or `@` and an abstract name; and how often the watchdog wants to hear.
    #[must_use]
    pub fn to(socket: &OsStr, watchdog: Option<Duration>) -> Self {
        #[cfg(unix)]
        match unix::Socket::open(socket) {
            Ok(socket) => return Self { to: Some(Arc::new(socket)), watchdog },
            Err(error) => tracing::warn!(%error, "systemd's socket {} cannot be used", socket.display()),
        }
        #[cfg(not(unix))]
        let _ = (socket, watchdog);
        Self::default()
    }

    /// Whether there is somebody to tell.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        #[cfg(unix)]
        let heard = self.to.is_some();
        #[cfg(not(unix))]
        let heard = false;
        heard
    }

    /// How often [`Notifier::alive`] is to be said; `None` where nobody waits for it.
    #[must_use]
    pub fn watchdog_pause(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / ANSWERS)
    }

    /// The service works now; also the end of [`Notifier::reloading`].
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// What the service does, on one line for people.
    pub fn status(&self, text: &str) {
        let line = text.lines().next().unwrap_or_default();
        let end = (0..=line.len().min(MAX_STATUS_BYTES)).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        self.send(&format!("STATUS={}", line.get(..end).unwrap_or_default()));
    }

    /// The configuration is read again; [`Notifier::ready`] follows, also where the old one stays in force.
    pub fn reloading(&self) {
        #[cfg(unix)]
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", unix::monotonic_microseconds()));
    }

    /// The service has been told to stop and does so.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The service still turns.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Does `work`, and meanwhile says that the service lives, as often as the watchdog wants to hear it, and that it stops once
    /// `stop` is cancelled. A task that hangs in a poll of `work` keeps the signs of life from being given.
    pub async fn beside<T>(&self, clock: &dyn Clock, stop: &CancellationToken, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                () = clock.sleep(self.watchdog_pause().unwrap_or(Duration::MAX)), if self.watchdog.is_some() => self.alive(),
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.stopping();
                }
                done = &mut work => return done,
            }
        }
    }

    fn send(&self, message: &str) {
        #[cfg(unix)]
        if let Some(to) = &self.to
            && let Err(error) = to.send(message)
        {
            tracing::warn!(%error, "systemd was not told {message:?}");
        }
        #[cfg(not(unix))]
        let _ = message;
    }
}

#[cfg(unix)]
mod unix {
    use std::{
        ffi::OsStr,
        io,
        os::unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    };

    use super::SEND_LIMIT;

    /// systemd's end.
    #[derive(Debug)]
    pub(super) struct Socket {
        socket: UnixDatagram,
        address: SocketAddr,
    }

    impl Socket {
        /// A path, or `@` and an abstract name.
        pub(super) fn open(name: &OsStr) -> io::Result<Self> {
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(name) => abstract_address(name)?,
                None => SocketAddr::from_pathname(name)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(SEND_LIMIT))?;
            Ok(Self { socket, address })
        }

        pub(super) fn send(&self, message: &str) -> io::Result<()> {
            self.socket.send_to_addr(message.as_bytes(), &self.address).map(drop)
        }
    }

    #[cfg(target_os = "linux")]
    fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
        <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
    }

    #[cfg(not(target_os = "linux"))]
    fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// `CLOCK_MONOTONIC`, by which systemd tells a reload that it has asked for from one before.
    pub(super) fn monotonic_microseconds() -> i128 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        i128::from(time.tv_sec) * 1_000_000 + i128::from(time.tv_nsec) / 1_000
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    };

    use towpath_transfer::clock::ManualClock;

    use super::*;

    fn notifier(socket: &str, more: &[(&str, String)]) -> Notifier {
        Notifier::from_values(&|name| {
            let more = || more.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            if name == "NOTIFY_SOCKET" { Some(socket.into()) } else { more() }
        })
    }

    fn heard(by: &UnixDatagram) -> String {
        let mut bytes = [0; 4_096];
        by.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = by.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn everything_that_is_told_arrives_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("towpath-notify-{}", std::process::id());
        let listeners = [
            (UnixDatagram::bind(&path).unwrap(), path.display().to_string()),
            (UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(), format!("@{name}")),
        ];
        for (listener, address) in listeners {
            let notifier = notifier(&address, &[]);
            assert!(notifier.is_heard());
            notifier.ready();
            assert_eq!(heard(&listener), "READY=1");
            notifier.status("next run at two\nREADY=1");
            assert_eq!(heard(&listener), "STATUS=next run at two", "a second line would be another message");
            notifier.status(&"ä".repeat(MAX_STATUS_BYTES));
            assert_eq!(heard(&listener).len(), "STATUS=".len() + MAX_STATUS_BYTES);
            let before = unix::monotonic_microseconds();
            notifier.reloading();
            let told = heard(&listener);
            let told: i128 = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
            assert!((before..=unix::monotonic_microseconds()).contains(&told));
            notifier.alive();
            assert_eq!(heard(&listener), "WATCHDOG=1");
            notifier.stopping();
            assert_eq!(heard(&listener), "STOPPING=1");
        }
    }

    #[test]
    fn the_watchdog_is_answered_at_half_of_its_time_by_the_process_it_is_meant_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let _listener = UnixDatagram::bind(&path).unwrap();
        let path = path.display().to_string();
        let pause = |microseconds: &str, pid: Option<u32>| {
            let mut values = vec![("WATCHDOG_USEC", microseconds.to_owned())];
            values.extend(pid.map(|pid| ("WATCHDOG_PID", pid.to_string())));
            notifier(&path, &values).watchdog_pause()
        };
        assert_eq!(pause("60000000", None), Some(Duration::from_secs(30)));
        assert_eq!(pause("60000000", Some(std::process::id())), Some(Duration::from_secs(30)));
        assert_eq!(pause("60000000", Some(std::process::id() + 1)), None);
        assert_eq!((pause("0", None), pause("soon", None)), (None, None));
    }

    #[tokio::test]
    async fn signs_of_life_are_given_while_something_works_and_its_end_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&path.display().to_string(), &[("WATCHDOG_USEC", "60000000".to_owned())]);
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let stop = CancellationToken::new();
        let work = async {
            for _ in 0..2 {
                while clock.sleepers() == 0 {
                    tokio::task::yield_now().await;
                }
                clock.advance(Duration::from_secs(30));
                tokio::task::yield_now().await;
            }
            stop.cancel();
            tokio::task::yield_now().await;
            7
        };
        assert_eq!(notifier.beside(&clock, &stop, work).await, 7);
        assert_eq!([heard(&listener), heard(&listener), heard(&listener)], ["WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]);
    }

    #[test]
    fn where_nobody_listens_nothing_happens() {
        for notifier in [Notifier::from_values(&|_| None), notifier("", &[]), notifier(&"x".repeat(500), &[])] {
            assert!(!notifier.is_heard() && notifier.watchdog_pause().is_none());
            notifier.ready();
            notifier.reloading();
        }
        let folder = tempfile::tempdir().unwrap();
        let gone = notifier(&folder.path().join("gone").display().to_string(), &[]);
        assert!(gone.is_heard());
        gone.ready();
    }
}
