//! Against our own server over a plain directory, which offers `check-file` too.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{RemotePath, public_key::PublicKeyLine};

use super::{ed25519, login, real_clock};
use crate::{
    client::SftpStore,
    server::{AnyPath, Authenticator, HostKey, Limits, PlainDirectory, Session, SshServer, SshServerConfig, VirtualFs},
    store::{
        BytesSource, NoProgress, RemoteStore,
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

async fn connect(root: &std::path::Path) -> SftpStore {
    let host_key = HostKey::ed25519_from_seed(&[3; 32]);
    let pinned = host_key.public_key().unwrap();
    let config = SshServerConfig { host_keys: vec![host_key], limits: Limits::default(), clock: real_clock() };
    let server = SshServer::new(config, Arc::new(Everybody(PlainDirectory::new(root)))).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move { server.serve_stream(far, SocketAddr::from(([127, 0, 0, 1], 1))).await });
    SftpStore::connect(near, login("erp", ed25519(1), vec![pinned]), real_clock()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    let store = connect(dir.path()).await;
    conformance::all(&Subject { store: Arc::new(store), base: RemotePath::root(), checks_prefix: true }).await.unwrap();
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
