//! Over loopback, with certificates made for the test.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use towpath_transfer::{clock::ManualClock, digest::Sha256Digest};

use super::{
    ALPN_SSH, Block, CONNECT_TIMEOUT, Dialer, InvalidWay, PROXY_TIMEOUT, Proxies, Proxy, Route, TLS_TIMEOUT, Trust, Way,
    tls::spki_pin,
};
use crate::{
    pins::Pins,
    store::{StoreErrorKind, StoreResult},
};

struct Made {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

fn make() -> Made {
    let made = rcgen::generate_simple_self_signed(vec!["relay".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    Made { certificate: made.cert.der().clone(), key }
}

/// Shows a certificate whatever key it has.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesServerCert for Shows {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A server that echoes, inside TLS with this certificate and key.
async fn serve(certificate: &CertificateDer<'static>, key: &PrivateKeyDer<'static>, alpn: Option<&[u8]>) -> u16 {
    let key = ring::sign::any_supported_type(key).unwrap();
    let shows = Shows(Arc::new(CertifiedKey::new(vec![certificate.clone()], key)));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shows));
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(stream) = TlsAcceptor::from(Arc::new(config.clone())).accept(tcp).await {
                let (mut reader, mut writer) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            }
        }
    });
    port
}

async fn echoed(trust: Trust, port: u16) -> StoreResult<String> {
    let dialer = Dialer::new(&trust, Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH))).unwrap();
    let mut stream = dialer.dial(Route::SshInTls, "127.0.0.1", port).await?;
    stream.write_all(b"SSH-").await.unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).await.unwrap();
    Ok(String::from_utf8(back.to_vec()).unwrap())
}

#[tokio::test]
async fn a_pinned_server_is_reached_inside_tls() {
    let made = make();
    let port = serve(&made.certificate, &made.key, Some(ALPN_SSH)).await;
    let pin = spki_pin(&made.certificate).unwrap();
    assert_eq!(echoed(Trust::Pinned(vec![Sha256Digest::of(b"next"), pin]), port).await.unwrap(), "SSH-");
}

#[tokio::test]
async fn pins_that_change_count_from_the_next_connection() {
    let (old, new) = (make(), make());
    let ports =
        (serve(&old.certificate, &old.key, Some(ALPN_SSH)).await, serve(&new.certificate, &new.key, Some(ALPN_SSH)).await);
    let pins = Pins::new(vec![spki_pin(&old.certificate).unwrap()]);
    let dialer = Dialer::new(&Trust::Following(pins.clone()), Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH))).unwrap();
    let dialled = async |port| dialer.dial(Route::SshInTls, "127.0.0.1", port).await.map(|_| ()).map_err(|error| error.kind());
    assert_eq!(dialled(ports.0).await, Ok(()));
    assert_eq!(dialled(ports.1).await, Err(StoreErrorKind::Certificate));
    pins.set(vec![spki_pin(&new.certificate).unwrap()]);
    // A session with the old server could have been resumed, without a look at its certificate.
    assert_eq!(dialled(ports.0).await, Err(StoreErrorKind::Certificate));
    assert_eq!(dialled(ports.1).await, Ok(()));
}

#[tokio::test]
async fn another_key_is_refused_and_named() {
    let made = make();
    let port = serve(&made.certificate, &made.key, Some(ALPN_SSH)).await;
    let pin = Sha256Digest::of(b"another");
    let error = echoed(Trust::Pinned(vec![pin]), port).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Certificate);
    let report = error.into_failure(crate::store::Far::Relay).report();
    assert!(report.contains(&pin.to_string()) && report.contains(&spki_pin(&made.certificate).unwrap().to_string()), "{report}");
    assert!(!report.contains("Other") && !report.contains('{') && !report.contains("PinMismatch"), "{report}");
    assert_eq!(echoed(Trust::Public, port).await.unwrap_err().kind(), StoreErrorKind::Certificate);
}

#[tokio::test]
async fn a_certificate_that_is_not_believed_is_told_with_its_issuer() {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.distinguished_name.push(rcgen::DnType::CommonName, "Inspecting\u{1b}Proxy CA");
    let authority = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "relay.example");
    let certificate = params.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let port = serve(certificate.der(), &key, Some(ALPN_SSH)).await;
    for trust in [Trust::Pinned(vec![Sha256Digest::of(b"the relay's own")]), Trust::Public] {
        let error = echoed(trust, port).await.unwrap_err();
        let Block::Certificate(Some(shown)) = Block::of(&error) else { panic!("{}", error.report()) };
        assert_eq!(
            (shown.subject.as_str(), shown.issuer.as_str(), shown.is_self_signed()),
            ("CN=relay.example", "CN=InspectingProxy CA", false)
        );
        assert!(error.report().contains("CN=InspectingProxy CA"), "{}", error.report());
        assert!(!error.report().contains("Other"), "{}", error.report());
    }
}

#[tokio::test]
async fn a_name_without_an_address_is_told_by_its_type() {
    let dialer = Dialer::new(&Trust::Public, Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH))).unwrap();
    // No name has a part of more than 63 characters (RFC 1035 section 2.3.4), and none ends so (RFC 6761 section 6.4).
    let name = format!("{}.invalid", "x".repeat(64));
    let Err(error) = dialer.dial(Route::Ssh, &name, 443).await else { panic!("there is such a name") };
    assert_eq!((error.kind(), Block::of(&error)), (StoreErrorKind::Unreachable, Block::Name), "{}", error.report());
}

#[tokio::test]
async fn the_pinned_certificate_without_its_key_is_no_proof() {
    let (pinned, thief) = (make(), make());
    let port = serve(&pinned.certificate, &thief.key, Some(ALPN_SSH)).await;
    let pin = spki_pin(&pinned.certificate).unwrap();
    let error = echoed(Trust::Pinned(vec![pin]), port).await.unwrap_err();
    assert!(matches!(error.kind(), StoreErrorKind::Certificate | StoreErrorKind::Unreachable), "{error:?}");
}

#[tokio::test]
async fn a_server_that_does_not_know_ssh_in_tls_is_left() {
    let made = make();
    let port = serve(&made.certificate, &made.key, None).await;
    let pin = spki_pin(&made.certificate).unwrap();
    let error = echoed(Trust::Pinned(vec![pin]), port).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable);
}

#[tokio::test]
async fn silence_has_a_limit_and_a_closed_port_is_unreachable() {
    let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
    let dialer = Dialer::new(&Trust::Pinned(vec![]), Arc::new(clock.clone())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dialing = tokio::spawn({
        let dialer = dialer.clone();
        async move { dialer.dial(Route::SshInTls, "127.0.0.1", port).await }
    });
    let (mut silent, _) = listener.accept().await.unwrap();
    // The greeting is here, so the second wait has begun.
    silent.read_exact(&mut [0; 16]).await.unwrap();
    clock.advance(CONNECT_TIMEOUT.max(TLS_TIMEOUT));
    assert_eq!(dialing.await.unwrap().err().unwrap().kind(), StoreErrorKind::TimedOut);
    drop(listener);
    assert_eq!(dialer.dial(Route::Ssh, "127.0.0.1", port).await.err().unwrap().kind(), StoreErrorKind::Unreachable);
}

#[tokio::test]
async fn plain_ssh_is_plain() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { listener.accept().await.unwrap().0.write_all(b"SSH-2.0-x\r\n").await });
    let dialer = Dialer::new(&Trust::Public, Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH))).unwrap();
    let mut greeting = String::new();
    dialer.dial(Route::Ssh, "127.0.0.1", port).await.unwrap().read_to_string(&mut greeting).await.unwrap();
    assert_eq!(greeting, "SSH-2.0-x\r\n");
}

/// A proxy that connects wherever it is asked to by `CONNECT`, and remembers to where.
async fn http_proxy() -> (u16, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let note = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(near.read_u8().await.unwrap());
            }
            let target = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
            note.lock().unwrap().push(target.clone());
            tokio::spawn(async move {
                // What a server says first arrives in one piece with the answer.
                let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (port, asked)
}

fn always(url: &str) -> Proxies {
    Proxies::always(Proxy::parse(url).unwrap())
}

#[tokio::test]
async fn both_routes_go_through_a_proxy() {
    let made = make();
    let (proxy, asked) = http_proxy().await;
    let pin = spki_pin(&made.certificate).unwrap();
    let tls = serve(&made.certificate, &made.key, Some(ALPN_SSH)).await;
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ssh = plain.local_addr().unwrap().port();
    tokio::spawn(async move { plain.accept().await.unwrap().0.write_all(b"SSH-2.0-x\r\n").await });
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let dialer = Dialer::new(&Trust::Pinned(vec![pin]), clock).unwrap().through(always(&format!("http://127.0.0.1:{proxy}")));
    let mut greeting = String::new();
    dialer.dial(Route::Ssh, "127.0.0.1", ssh).await.unwrap().read_to_string(&mut greeting).await.unwrap();
    assert_eq!(greeting, "SSH-2.0-x\r\n");
    let mut stream = dialer.dial(Route::SshInTls, "127.0.0.1", tls).await.unwrap();
    stream.write_all(b"SSH-").await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(*asked.lock().unwrap(), [format!("127.0.0.1:{ssh}"), format!("127.0.0.1:{tls}")]);
}

#[tokio::test]
async fn a_proxy_that_is_away_or_silent_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for scheme in ["http", "socks5"] {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let url = format!("{scheme}://127.0.0.1:{port}");
        let dialer = Dialer::new(&Trust::Pinned(vec![]), Arc::new(clock.clone())).unwrap().through(always(&url));
        let dialing = tokio::spawn(async move { dialer.dial(Route::Ssh, "relay.example", 443).await });
        let (mut silent, _) = listener.accept().await.unwrap();
        // The proxy was asked, so the second wait has begun.
        silent.read_exact(&mut [0; 3]).await.unwrap();
        clock.advance(PROXY_TIMEOUT);
        let error = dialing.await.unwrap().err().unwrap();
        assert_eq!(error.kind(), StoreErrorKind::TimedOut);
        assert!(error.to_string().contains(&url) && error.to_string().contains("relay.example:443"), "{error}");
    }
    drop(listener);
    let clock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let dialer = Dialer::new(&Trust::Pinned(vec![]), clock).unwrap().through(always(&format!("http://127.0.0.1:{port}")));
    let error = dialer.dial(Route::Ssh, "relay.example", 443).await.err().unwrap();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable);
    assert!(error.to_string().contains("the proxy"), "{error}");
}

#[test]
fn ways_have_one_form() {
    for text in ["ssh:443", "tls:443", "ssh:80"] {
        assert_eq!(text.parse::<Way>().unwrap().to_string(), text);
    }
    for text in ["", "ssh", "ssh:", "ssh:0", "ssh:65536", "ssh:+1", "SSH:443", "https:443", "ssh:443:1"] {
        assert_eq!(text.parse::<Way>(), Err(InvalidWay), "{text}");
    }
    let usual = |port| Way::usual(port).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(usual(443), ["ssh:443", "tls:443", "ssh:80"]);
    assert_eq!(usual(8443), ["ssh:8443", "tls:8443"]);
}
