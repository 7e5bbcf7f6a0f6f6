//! Limits of the whole relay, on real sockets: who has not logged in, and who may no longer.

use std::{
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{io::AsyncReadExt as _, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use towpath_keys::KeyKind;
use towpath_transfer::{TransferId, api::Role, clock::Sleep};
use towpath_transport::{
    dial::{Route, tls::client_config},
    files::ReadFile,
    relay_api::RelayApi as _,
    server::Limits,
    store::{Progress, RemoteStore as _, Source, StoreErrorKind},
};

use crate::flow::{Running, asked, at, clock, entropy, within};

/// By when a revocation has ended the sessions.
const REVOKED: Duration = Duration::from_secs(5);
/// More than anybody sends here.
const HUGE: u64 = 1 << 40;
/// What has gone by the time of the revocation, in bytes.
const UNDER_WAY: u64 = 4 * 1024 * 1024;
/// The rest before each chunk, so that the upload does not fill the disk while it lasts.
const PACE: Duration = Duration::from_millis(5);

async fn tls(relay: &Running) -> TlsStream<TcpStream> {
    let config = client_config(&relay.trust()).unwrap();
    let stream = TcpStream::connect(relay.address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_https_connections_push_themselves_out_and_agents_work_on() {
    let state = tempfile::tempdir().unwrap();
    let relay = Running::start(state.path()).await;
    relay.registry().await.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    let agent = relay.enrol(Role::Agent, KeyKind::Ed25519).await;
    agent.api.peers().await.unwrap();
    let mut oldest = tls(&relay).await;
    let mut flood = Vec::new();
    for _ in 0..Limits::default().unauthenticated_per_address {
        flood.push(tls(&relay).await);
    }
    let read = within(oldest.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    agent.api.peers().await.unwrap();
    let sftp = within(relay.sftp(&agent, Route::SshInTls)).await.unwrap();
    sftp.list(&at("/uplink"), 10).await.unwrap();
    drop(flood);
    relay.stop().await;
}

/// A file without an end.
#[derive(Debug, Clone, Copy)]
struct Endless;

impl Source for Endless {
    fn open(&self) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(*self))
    }
}

impl Read for Endless {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        buf.fill(0x5a);
        Ok(buf.len())
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Start(at) => Ok(at),
            _ => Ok(0),
        }
    }
}

impl ReadFile for Endless {
    fn len(&self) -> io::Result<u64> {
        Ok(HUGE)
    }
}

/// How far an upload is, and its pace.
#[derive(Debug, Default)]
struct Watched(AtomicU64);

impl Progress for Watched {
    fn advanced(&self, done: u64, _: u64) {
        self.0.store(done, SeqCst);
    }

    fn pause(&self, _: u64) -> Option<Sleep> {
        Some(clock().sleep(PACE))
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.path().is_dir() { bytes_below(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

/// Revokes an agent in the middle of a large upload, and says how long its session has lasted after that.
async fn revoked_in_mid_upload() -> Duration {
    let state = tempfile::tempdir().unwrap();
    let relay = Running::start(state.path()).await;
    let registry = relay.registry().await;
    let scope = registry.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    let agent = relay.enrol(Role::Agent, KeyKind::Ed25519).await;
    let (uploading, idle) = (relay.sftp(&agent, Route::SshInTls).await.unwrap(), relay.sftp(&agent, Route::Ssh).await.unwrap());
    let folder = format!("/uplink/{}", TransferId::new(&*clock(), &*entropy()));
    uploading.make_dir_all(&at(&folder)).await.unwrap();
    let (part, watched) = (at(&format!("{folder}/items.csv.bz2.part")), Arc::new(Watched::default()));
    let (to, progress) = (part.clone(), Arc::clone(&watched));
    let upload = tokio::spawn(async move {
        let ended = uploading.put_new(&to, Arc::new(Endless), &*progress).await;
        (uploading, ended)
    });
    within(async {
        while watched.0.load(SeqCst) < UNDER_WAY {
            clock().sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    registry.revoke(&scope, &agent.answer.name).await.unwrap();
    // One clock, because each counts from its own beginning.
    let watch = clock();
    let revoked = watch.monotonic();
    let (uploading, ended) = within(upload).await.unwrap();
    ended.unwrap_err();
    within(async {
        while idle.list(&at("/uplink"), 10).await.is_ok() {
            clock().sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let lasted = watch.monotonic().saturating_sub(revoked);

    // The relay has done with the connections, so that nothing is on its way to the disk any more.
    within(async {
        while !asked(relay.admin, "/metrics").await.contains("towpath_relay_connections{kind=\"ssh\"} 0") {
            clock().sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let there = bytes_below(&state.path().join("spool"));
    assert!(there > 0, "the upload was under way");
    let later = uploading.put_new(&part, Arc::new(Endless), &Watched::default()).await;
    assert!(later.is_err() && uploading.publish(&part, &at(&format!("{folder}/items.csv.bz2"))).await.is_err());
    let again = relay.sftp(&agent, Route::Ssh).await.unwrap_err();
    assert_eq!(again.kind(), StoreErrorKind::AuthenticationRefused);
    relay.stop().await;
    assert_eq!(bytes_below(&state.path().join("spool")), there, "no later write has landed");
    lasted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_a_large_upload_and_no_later_write_lands() {
    let lasted = revoked_in_mid_upload().await;
    assert!(lasted > Duration::ZERO && lasted < REVOKED, "{lasted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_a_revocation_bites_within_five_seconds() {
    let mut slowest = Duration::ZERO;
    for _ in 0..5 {
        slowest = slowest.max(revoked_in_mid_upload().await);
    }
    println!("the slowest of 5 revocations in the middle of an upload has taken {slowest:?}");
    assert!(slowest < REVOKED, "{slowest:?}");
}
