//! Against the `sshd` of the system, started in inetd mode on one end of a socket pair: no port, no daemon, no leftovers.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use russh::keys::{PrivateKey, decode_secret_key};
use tempfile::TempDir;
use tokio::net::UnixStream;
use towpath_transfer::{RemotePath, public_key::PublicKeyLine};

use super::{ed25519, line, login, real_clock};
use crate::{
    client::SftpStore,
    store::{
        BytesSource, NoProgress, RemoteStore, StoreErrorKind, StoreResult,
        conformance::{self, Subject, pattern},
        read_remote,
    },
};

const SSHD: &str = "/usr/sbin/sshd";

/// A throw-away configuration.
struct Sshd {
    dir: TempDir,
    host_keys: Vec<PublicKeyLine>,
    user: String,
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn generate(path: &Path, kind: &str, bits: &str) {
    run(Command::new("ssh-keygen").args(["-q", "-N", "", "-t", kind, "-b", bits, "-f"]).arg(path));
}

impl Sshd {
    fn new(authorized: &[&PrivateKey], more: &str) -> Self {
        assert!(Path::new(SSHD).exists(), "{SSHD} is missing: install the package openssh-server");
        // Where sshd separates its privileges; the package's service makes it at boot.
        fs::create_dir_all("/run/sshd").unwrap();
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        for kind in ["ed25519", "ecdsa"] {
            generate(&at(kind), kind, "256");
        }
        let keys: Vec<String> = authorized.iter().map(|key| line(key.public_key()).to_string()).collect();
        fs::write(at("authorized_keys"), keys.join("\n")).unwrap();
        fs::create_dir(at("tree")).unwrap();
        let root = dir.path().display();
        let config = format!(
            "HostKey {root}/ed25519\nHostKey {root}/ecdsa\nAuthorizedKeysFile {root}/authorized_keys\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n{more}\nSubsystem sftp internal-sftp\n"
        );
        fs::write(at("config"), config).unwrap();
        let host_keys = ["ed25519.pub", "ecdsa.pub"].map(|name| fs::read_to_string(at(name)).unwrap().parse().unwrap());
        let user = run(Command::new("id").arg("-un")).trim().to_owned();
        Self { dir, host_keys: host_keys.to_vec(), user }
    }

    fn start(&self) -> (UnixStream, tokio::process::Child) {
        let (near, far) = UnixStream::pair().unwrap();
        let far = far.into_std().unwrap();
        far.set_nonblocking(false).unwrap();
        let end = |stream: &std::os::unix::net::UnixStream| Stdio::from(std::os::fd::OwnedFd::from(stream.try_clone().unwrap()));
        let child = tokio::process::Command::new(SSHD)
            .args(["-i", "-f"])
            .arg(self.dir.path().join("config"))
            .stdin(end(&far))
            .stdout(end(&far))
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        (near, child)
    }

    async fn connect(&self, key: PrivateKey, pinned: &[PublicKeyLine]) -> StoreResult<(SftpStore, tokio::process::Child)> {
        let (stream, child) = self.start();
        let store = SftpStore::connect(stream, login(&self.user, key, pinned.to_vec()), real_clock()).await?;
        Ok((store, child))
    }

    fn base(&self) -> RemotePath {
        self.dir.path().join("tree").to_str().unwrap().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let sshd = Sshd::new(&[&ed25519(1)], "");
    let (store, _child) = sshd.connect(ed25519(1), &sshd.host_keys).await.unwrap();
    conformance::all(&Subject { store: Arc::new(store), base: sshd.base() }).await.unwrap();
}

#[tokio::test]
async fn an_rsa_key_signs_with_sha2_and_either_host_key_may_be_pinned() {
    let dir = TempDir::new().unwrap();
    generate(&dir.path().join("rsa"), "rsa", "2048");
    let key = decode_secret_key(&fs::read_to_string(dir.path().join("rsa")).unwrap(), None).unwrap();
    let sshd = Sshd::new(&[&key], "");
    for pinned in &sshd.host_keys {
        let (store, _child) = sshd.connect(key.clone(), std::slice::from_ref(pinned)).await.unwrap();
        store.stat(&sshd.base()).await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_host_key_is_named_beside_the_pinned_one() {
    let sshd = Sshd::new(&[&ed25519(1)], "");
    let pinned = line(ed25519(9).public_key());
    let error = sshd.connect(ed25519(1), std::slice::from_ref(&pinned)).await.err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::HostKeyUnknown);
    let shown = sshd.host_keys[0].fingerprint().to_string();
    let said = error.to_string();
    assert!(said.contains(&shown) && said.contains(&pinned.fingerprint().to_string()), "{said}");
    assert_eq!(sshd.connect(ed25519(1), &[]).await.err().unwrap().kind(), StoreErrorKind::HostKeyUnknown);
}

#[tokio::test]
async fn a_key_that_is_not_authorized_is_refused_and_so_is_a_server_without_sftp() {
    let sshd = Sshd::new(&[&ed25519(1)], "");
    let error = sshd.connect(ed25519(2), &sshd.host_keys).await.err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::AuthenticationRefused, "{error}");
    let sshd = Sshd::new(&[&ed25519(1)], "MaxSessions 0");
    let error = sshd.connect(ed25519(1), &sshd.host_keys).await.err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Unsupported, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_travel_both_ways_at_once() {
    let sshd = Sshd::new(&[&ed25519(1)], "RekeyLimit 32M");
    let (store, _child) = sshd.connect(ed25519(1), &sshd.host_keys).await.unwrap();
    let bytes = pattern(100_000_000, 1);
    let path = |name: &str| sshd.base().join(name.parse().unwrap()).unwrap();
    let (first, second) = (path("first"), path("second"));
    store.put_new(&first, BytesSource::new(bytes.clone()), &NoProgress).await.unwrap();
    let (back, put) = tokio::join!(
        read_remote(&store, &first, 100_000_000),
        store.put_new(&second, BytesSource::new(bytes.clone()), &NoProgress)
    );
    put.unwrap();
    assert!(back.unwrap() == bytes);
    assert!(fs::read(sshd.dir.path().join("tree/second")).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_fails_everything_under_way() {
    let sshd = Sshd::new(&[&ed25519(1)], "");
    let (store, mut child) = sshd.connect(ed25519(1), &sshd.host_keys).await.unwrap();
    let path = sshd.base().join("f".parse().unwrap()).unwrap();
    store.put_new(&path, BytesSource::new(pattern(10_000_000, 1)), &NoProgress).await.unwrap();
    let mut readers = Vec::new();
    for _ in 0..5 {
        let mut reader = store.open(&path, 0).await.unwrap();
        reader.next().await.unwrap();
        readers.push(reader);
    }
    child.kill().await.unwrap();
    for mut reader in readers {
        let error = loop {
            match reader.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("ten megabytes do not fit into the line"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), StoreErrorKind::ConnectionLost);
    }
    assert!(store.is_closed());
    assert_eq!(store.stat(&path).await.unwrap_err().kind(), StoreErrorKind::ConnectionLost);
}

#[tokio::test]
async fn a_read_only_server_denies() {
    let sshd = Sshd::new(&[&ed25519(1)], "ForceCommand internal-sftp -R");
    let (store, _child) = sshd.connect(ed25519(1), &sshd.host_keys).await.unwrap();
    let path = sshd.base().join("f".parse().unwrap()).unwrap();
    let error = store.put_new(&path, BytesSource::new("x"), &NoProgress).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Denied);
    assert!(error.to_string().contains("Permission denied"), "{error}");
}
