//! Against our own server over a plain directory, which offers `check-file` too.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{io::AsyncReadExt, net::TcpListener};
use tokio_util::sync::CancellationToken;
use towpath_transfer::{RemotePath, clock::SeededEntropy, public_key::PublicKeyLine};

use super::{ed25519, login, real_clock};
use crate::{
    client::{SftpConnect, SftpStore},
    dial::{ALPN_SSH, Dialer, Route, Trust, tls::spki_pin},
    server::{AnyPath, Authenticator, HostKey, Limits, PlainDirectory, Session, SshServer, SshServerConfig, VirtualFs},
    store::{
        BytesSource, Connect, NoProgress, RemoteStore, Retry, RetryPolicy,
        conformance::{self, Subject, pattern},
        read_remote,
    },
};

struct Everybody(PlainDirectory);

#[async_trait]
impl Authenticator for Everybody {
    async fn authenticate(&self, _user: &str, _key: &PublicKeyLine, _peer: SocketAddr) -> Option<Session> {
        let view: Arc<dyn VirtualFs<AnyPath>> = Arc::new(self.0.clone());
        Some(Session::general(view, CancellationToken::new()))
    }
}

pub(super) fn server(root: &Path) -> (SshServer, PublicKeyLine) {
    let host_key = HostKey::ed25519_from_seed(&[3; 32]);
    let pinned = host_key.public_key().unwrap();
    let config = SshServerConfig { host_keys: vec![host_key], limits: Limits::default(), clock: real_clock() };
    (SshServer::new(config, Arc::new(Everybody(PlainDirectory::new(root)))).unwrap(), pinned)
}

pub(super) fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

async fn connect(root: &Path) -> SftpStore {
    let (server, pinned) = server(root);
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move { server.serve_stream(far, peer()).await });
    SftpStore::connect(near, login("erp", ed25519(1), vec![pinned]), real_clock()).await.unwrap()
}

/// Carries bytes to the server, and breaks each of the first `cuts` connections after `limit` bytes from the client.
async fn brittle(server: SshServer, cuts: usize, limit: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for made in 0.. {
            let (tcp, _) = listener.accept().await.unwrap();
            let (near, far) = tokio::io::duplex(64 * 1024);
            let server = server.clone();
            tokio::spawn(async move { server.serve_stream(far, peer()).await });
            tokio::spawn(async move {
                let (mut from, mut to) = tcp.into_split();
                let (mut answers, mut requests) = tokio::io::split(near);
                let limit = if made < cuts { limit } else { u64::MAX };
                let up = async { tokio::io::copy(&mut (&mut from).take(limit), &mut requests).await };
                let down = async { tokio::io::copy(&mut answers, &mut to).await };
                tokio::select! {
                    _ = up => {}
                    _ = down => {}
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_arrives_whole_over_a_line_that_breaks_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let (server, pinned) = server(dir.path());
    let port = brittle(server, 4, 4_000_000).await;
    let clock = real_clock();
    let dialer = Dialer::new(&Trust::Pinned(vec![]), Arc::clone(&clock)).unwrap();
    let login = login("erp", ed25519(1), vec![pinned]);
    let line = SftpConnect::new(dialer, Route::Ssh, "127.0.0.1", port, login, Arc::clone(&clock));
    let policy = RetryPolicy { first_pause: Duration::from_millis(1), ..RetryPolicy::default() };
    let store = Retry::new(Arc::new(line), policy, clock, Arc::new(SeededEntropy::new(1)));
    let bytes = pattern(20_000_000, 1);
    let (part, name): (RemotePath, RemotePath) = ("/f.part".parse().unwrap(), "/f".parse().unwrap());
    let put = store.put_new(&part, BytesSource::new(bytes.clone()), &NoProgress).await.unwrap();
    assert!(put.resumed_from > 5_000_000, "what arrived was kept: {}", put.resumed_from);
    store.publish(&part, &name).await.unwrap();
    assert!(std::fs::read(dir.path().join("f")).unwrap() == bytes);
}

#[tokio::test]
async fn ssh_inside_tls_carries_files_too() {
    let made = rcgen::generate_simple_self_signed(vec!["relay".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![ALPN_SSH.to_vec()];
    let dir = tempfile::tempdir().unwrap();
    let (server, pinned) = server(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let tcp = listener.accept().await.unwrap().0;
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(tcp).await.unwrap();
        server.serve_stream(tls, peer()).await
    });
    let clock = real_clock();
    let trust = Trust::Pinned(vec![spki_pin(made.cert.der()).unwrap()]);
    let dialer = Dialer::new(&trust, Arc::clone(&clock)).unwrap();
    let login = login("erp", ed25519(1), vec![pinned]);
    let store = SftpConnect::new(dialer, Route::SshInTls, "127.0.0.1", port, login, clock).connect().await.unwrap();
    let (path, bytes) = ("/f".parse().unwrap(), pattern(3_000_000, 1));
    store.put_new(&path, BytesSource::new(bytes.clone()), &NoProgress).await.unwrap();
    assert!(read_remote(store.as_ref(), &path, 3_000_000).await.unwrap() == bytes);
}

#[tokio::test]
async fn new_connections_see_another_host_key_and_believe_other_pins_while_old_ones_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (server, first) = server(dir.path());
    let next = HostKey::ed25519_from_seed(&[4; 32]);
    let second = next.public_key().unwrap();
    let login = login("erp", ed25519(1), vec![first]);
    let connect = async || {
        let ((near, far), server, login) = (tokio::io::duplex(64 * 1024), server.clone(), login.clone());
        tokio::spawn(async move { server.serve_stream(far, peer()).await });
        SftpStore::connect(near, login, real_clock()).await
    };
    let old = connect().await.unwrap();
    assert_eq!(server.set_host_keys(vec![]).unwrap_err().code(), towpath_transfer::Code::ConfigInvalid);
    server.set_host_keys(vec![next]).unwrap();
    assert_eq!(connect().await.unwrap_err().kind(), crate::store::StoreErrorKind::HostKeyUnknown);
    login.host_keys.set(vec![second]);
    let new = connect().await.unwrap();
    for (store, name) in [(old, "/old"), (new, "/new")] {
        store.put_new(&name.parse().unwrap(), BytesSource::new(vec![1]), &NoProgress).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    let store = connect(dir.path()).await;
    conformance::all(&Subject { store: Arc::new(store), base: RemotePath::root() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_travel_both_ways_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = connect(dir.path()).await;
    let bytes = pattern(100_000_000, 1);
    let (first, second): (RemotePath, RemotePath) = ("/first".parse().unwrap(), "/second".parse().unwrap());
    store.put_new(&first, BytesSource::new(bytes.clone()), &NoProgress).await.unwrap();
    let (back, put) = tokio::join!(
        read_remote(&store, &first, 100_000_000),
        store.put_new(&second, BytesSource::new(bytes.clone()), &NoProgress)
    );
    put.unwrap();
    assert!(back.unwrap() == bytes);
    let again = store.put_new(&second, BytesSource::new(bytes), &NoProgress).await.unwrap();
    assert_eq!(again.resumed_from, 100_000_000, "the whole of it is compared in several pieces, and kept");
}
