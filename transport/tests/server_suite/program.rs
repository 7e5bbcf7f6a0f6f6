//! The server as a process of its own, as the clients of other projects meet it.

use std::{net::SocketAddr, path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};
use towpath_transfer::public_key::PublicKeyLine;

use crate::support::{UserKey, soon};

/// The example `plain_sftp_server`, which lets `key` in. It ends when this is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) host_key: PublicKeyLine,
    pub(crate) key: UserKey,
    /// Holds `authorized_keys` and `known_hosts`.
    pub(crate) folder: tempfile::TempDir,
    _child: Child,
}

impl Server {
    /// Starts the example that was built with the tests, over `root`.
    pub(crate) async fn start(root: &Path) -> Self {
        let profile = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
        let program = profile.join("examples").join(format!("plain_sftp_server{}", std::env::consts::EXE_SUFFIX));
        assert!(program.exists(), "{} is missing: run cargo build -p towpath-transport --examples", program.display());
        let (key, folder) = (UserKey::ed25519(), tempfile::tempdir().unwrap());
        let authorized = folder.path().join("authorized_keys");
        std::fs::write(&authorized, format!("{}\n", key.public)).unwrap();
        let mut child = Command::new(program)
            .arg("--root")
            .arg(root)
            .arg("--authorized")
            .arg(authorized)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = soon(lines.next_line()).await.unwrap().expect("the server says where it listens");
        let (address, host_key) = first.strip_prefix("listening on ").unwrap().split_once(", host key ").unwrap();
        let (address, host_key): (SocketAddr, PublicKeyLine) = (address.parse().unwrap(), host_key.parse().unwrap());
        let known = format!("[{}]:{} {host_key}\n", address.ip(), address.port());
        std::fs::write(folder.path().join("known_hosts"), known).unwrap();
        // A pipe that nobody reads would stop the server.
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                println!("server: {line}");
            }
        });
        Self { address, host_key, key, folder, _child: child }
    }
}
