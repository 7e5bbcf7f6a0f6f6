//! What holds for a connection before it is known who is there.

use async_trait::async_trait;
use towpath_transfer::{
    clock::{ManualClock, SeededEntropy},
    public_key::PublicKeyLine,
};
use towpath_transport::server::{Authenticator, HostKey, Limits, Session, SshServerConfig};

use super::*;
use crate::{
    api::WebLimits,
    config::TlsSection,
    door::tls::Certificate,
    service::tests::{URL, World},
};

const PLACES: usize = 10;

struct Nobody;

#[async_trait]
impl Authenticator for Nobody {
    async fn authenticate(&self, _: &str, _: &PublicKeyLine, _: SocketAddr) -> Option<Session> {
        None
    }
}

struct Scene {
    world: World,
    clock: ManualClock,
    door: Door,
}

impl Scene {
    /// A door whose handshake may take longer than a login.
    async fn new(login_grace: Duration) -> Self {
        let world = World::new().await;
        let clock = world.clock.clone();
        let metrics = world.relay.metrics().clone();
        let web = WebService::new(world.service().clone(), WebLimits::default(), metrics.clone());
        let host_keys = vec![HostKey::ed25519_from_seed(&[7; 32])];
        let limits = Limits { login_grace, ..Limits::default() };
        let config = SshServerConfig { host_keys, limits, clock: Arc::new(clock.clone()) };
        let ssh = SshServer::new(config, Arc::new(Nobody)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let entropy = SeededEntropy::new(1);
        let certificate = Certificate::load(&TlsSection::default(), folder.path(), URL, &clock, &entropy).unwrap();
        let limits = DoorLimits { tls_connections: PLACES, handshake: login_grace * 12 };
        let door = Door::new(ssh, web, certificate.config, URL, limits, metrics, Arc::new(clock.clone()));
        Self { world, clock, door }
    }

    /// How many connections are known to be of plain HTTP, or of TLS.
    fn known(&self) -> usize {
        let figures = self.world.relay.metrics().text(&[], &crate::spool::SpoolFigures::default()).unwrap();
        let http = figures.contains("towpath_relay_connections{kind=\"http\"} 1");
        usize::from(http) + PLACES - self.door.places.available_permits()
    }
}

#[tokio::test]
async fn the_login_grace_bounds_whatever_comes_before_a_login() {
    // A peer that says nothing is looked at for longer than this.
    let grace = Duration::from_secs(1);
    assert!(grace < towpath_transport::server::first_bytes::SILENCE);
    for (what, begins) in [("silence", ""), ("TLS", "\u{16}\u{3}\u{1}"), ("plain HTTP", "GET / HTTP/1.1\r\n")] {
        let scene = Scene::new(grace).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        let mut serving = Box::pin(scene.door.clone().serve(stream, address, CancellationToken::new()));
        assert!(futures::poll!(&mut serving).is_pending());
        scene.clock.advance(grace / 2);
        peer.writable().await.unwrap();
        assert_eq!(peer.try_write(begins.as_bytes()).unwrap(), begins.len());
        while scene.known() < usize::from(!begins.is_empty()) {
            assert!(futures::poll!(&mut serving).is_pending(), "{what}");
            tokio::task::yield_now().await;
        }
        scene.clock.advance(grace / 2 - Duration::from_millis(1));
        assert!(futures::poll!(&mut serving).is_pending(), "{what}");
        scene.clock.advance(Duration::from_millis(1));
        assert!(futures::poll!(&mut serving).is_ready(), "{what}");
    }
}
