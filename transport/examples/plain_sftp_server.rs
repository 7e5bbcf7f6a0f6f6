//! Serves a directory over SFTP on loopback: `plain_sftp_server --root DIR --port P --authorized KEYFILE`.
//!
//! For interoperability and endurance tests that need the server as a process. Any user name may log in with a key of
//! `KEYFILE` (lines as in `authorized_keys`, without options). `--host-key FILE` takes an OpenSSH private key; without it
//! one is made for the life of the process. Port 0 takes a free one. The first line of the output is
//! `listening on ADDRESS, host key LINE`; each connection's end is a further line. With `--root /`, paths mean the same on both sides.

use std::{error::Error, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, clock::Sleep, public_key::PublicKeyLine};
use towpath_transport::server::{
    AnyPath, Authenticator, HostKey, Limits, PlainDirectory, Session, SshServer, SshServerConfig, VirtualFs,
};

#[derive(Debug)]
struct SystemClock {
    start: std::time::Instant,
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "a program's own clock")]
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

struct KeyFile {
    keys: Vec<PublicKeyLine>,
    root: PlainDirectory,
}

#[async_trait]
impl Authenticator for KeyFile {
    async fn authenticate(&self, _user: &str, key: &PublicKeyLine, _peer: SocketAddr) -> Option<Session> {
        let view: Arc<dyn VirtualFs<AnyPath>> = Arc::new(self.root.clone());
        self.keys.contains(key).then(|| Session::general(view, CancellationToken::new()))
    }
}

struct Arguments {
    root: PathBuf,
    port: u16,
    authorized: PathBuf,
    host_key: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, Box<dyn Error>> {
    let (mut root, mut port, mut authorized, mut host_key) = (None, 0, None, None);
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--root" => root = Some(PathBuf::from(value)),
            "--port" => port = value.parse()?,
            "--authorized" => authorized = Some(PathBuf::from(value)),
            "--host-key" => host_key = Some(PathBuf::from(value)),
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(Arguments {
        root: root.ok_or("--root is missing")?,
        port,
        authorized: authorized.ok_or("--authorized is missing")?,
        host_key,
    })
}

fn host_key(path: Option<PathBuf>) -> Result<HostKey, Box<dyn Error>> {
    if let Some(path) = path {
        return Ok(HostKey::from_openssh(&std::fs::read_to_string(path)?)?);
    }
    let mut seed = [0u8; 32];
    #[expect(clippy::disallowed_types, reason = "a program's own randomness")]
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed).map_err(|_| "no randomness")?;
    Ok(HostKey::ed25519_from_seed(&seed))
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a program's own output")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { root, port, authorized, host_key: path } = arguments()?;
    let authorized = std::fs::read_to_string(authorized)?;
    let keys = authorized.lines().filter(|line| !line.trim().is_empty()).map(str::parse).collect::<Result<_, _>>()?;
    let host_key = host_key(path)?;
    let public = host_key.public_key()?;
    #[expect(clippy::disallowed_methods, reason = "a program's own clock")]
    let clock = Arc::new(SystemClock { start: std::time::Instant::now() });
    // Tests log in from one address many times a second, on purpose also with wrong keys.
    let limits = Limits { failures_per_minute: usize::MAX, ..Limits::default() };
    let config = SshServerConfig { host_keys: vec![host_key], limits, clock };
    let server = SshServer::new(config, Arc::new(KeyFile { keys, root: PlainDirectory::new(root) }))?;
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).await?;
    println!("listening on {}, host key {public}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let serving = server.serve_stream(stream, peer);
        tokio::spawn(async move { println!("{peer} ended: {:?}", serving.await) });
    }
}
