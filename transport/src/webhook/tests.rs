//! Against a real HTTP server on loopback.

use std::{convert::Infallible, sync::Mutex};

use http::Response;
use hyper::service::service_fn;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use towpath_transfer::{Disposition, clock::ManualClock};

use super::*;
use crate::dial::Proxy;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NOW: &str = "2021-02-25T14:52:10Z";

/// What was asked: the head as it came, and the body.
type Asked = Arc<Mutex<Vec<(http::request::Parts, Bytes)>>>;

fn clock() -> ManualClock {
    ManualClock::new(NOW.parse().unwrap())
}

/// A web service that gives this answer to everything.
async fn serve(tls: Option<TlsAcceptor>, answer: fn() -> Response<Full<Bytes>>) -> (u16, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (seen, tls) = (Arc::clone(&seen), tls.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let seen = Arc::clone(&seen);
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        seen.lock().unwrap().push((head, body));
                        Ok::<_, Infallible>(answer())
                    }
                });
                let http = hyper::server::conn::http1::Builder::new();
                match tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(tcp).await {
                            let _ = http.serve_connection(TokioIo::new(stream), service).await;
                        }
                    }
                    None => {
                        let _ = http.serve_connection(TokioIo::new(tcp), service).await;
                    }
                }
            });
        }
    });
    (port, asked)
}

fn webhook(url: &str, proxies: Proxies) -> Webhook {
    let (url, secret) = (parse_webhook_url(url).unwrap(), WebhookSecret::parse(SECRET).unwrap());
    let dialer = Dialer::speaking(&[b"http/1.1"], &Trust::Pinned(Vec::new()), Arc::new(clock())).unwrap().through(proxies);
    Webhook { url, secret: Some(secret), dialer, clock: Arc::new(clock()) }
}

fn status(status: u16) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::default()).unwrap()
}

async fn told(answer: fn() -> Response<Full<Bytes>>) -> (Result<()>, usize) {
    let (port, asked) = serve(None, answer).await;
    let done = webhook(&format!("http://127.0.0.1:{port}/hook?a=1"), Proxies::direct()).post("alert-1", b"{}").await;
    let count = asked.lock().unwrap().len();
    (done, count)
}

#[test]
fn signatures_are_those_of_the_specification() {
    let secret = WebhookSecret::parse(SECRET).unwrap();
    let signature = |id: &str, body: &str| secret.signature(id, 1_614_265_330, body.as_bytes());
    assert_eq!(
        signature("msg_p5jXN8AQM9LWM0D4loKWxJek", "{\"test\": 2432232314}"),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
    assert_eq!(signature("msg_äö", "{\"Ort\":\"Köln\"}"), "v1,xHfAvz/2UesGq/pF4JDBYRXAT+NgC5zOjrZgU1dc2/M=");
    assert_eq!(WebhookSecret::parse(&SECRET["whsec_".len()..]).unwrap().signature("a", 1, b""), secret.signature("a", 1, b""));
    for bad in ["", "whsec_", "whsec_!", "whsec_c2hvcnQ=", &STANDARD.encode([0; 65])] {
        assert_eq!(WebhookSecret::parse(bad).unwrap_err(), InvalidSecret, "{bad}");
    }
    assert!(!format!("{secret:?}").contains("Mf"));
}

#[test]
fn urls_are_checked_and_their_paths_never_shown() {
    for bad in ["", "ftp://x/y", "https://", "x", "https://u:p@x/y", "https://x/#y"] {
        assert!(parse_webhook_url(bad).is_err(), "{bad}");
    }
    let shown = format!("{:?}", webhook("https://x.example:8443/services/hush", Proxies::direct()));
    assert_eq!(shown, "Webhook(https://x.example:8443)");
}

#[tokio::test]
async fn what_is_told_is_signed_json_with_an_id_and_the_time_of_the_try() {
    let (port, asked) = serve(None, || status(204)).await;
    webhook(&format!("http://127.0.0.1:{port}/hook?a=1"), Proxies::direct()).post("alert-1", b"{\"a\":1}").await.unwrap();
    let (head, body) = asked.lock().unwrap().remove(0);
    let header = |name: &str| head.headers[name].to_str().unwrap().to_owned();
    assert_eq!((head.method.as_str(), head.uri.to_string().as_str(), &*body), ("POST", "/hook?a=1", &b"{\"a\":1}"[..]));
    assert_eq!((header("host"), header("content-type")), (format!("127.0.0.1:{port}"), "application/json".into()));
    let time: Timestamp = NOW.parse().unwrap();
    assert_eq!((header("webhook-id"), header("webhook-timestamp")), ("alert-1".into(), time.as_second().to_string()));
    let expected = WebhookSecret::parse(SECRET).unwrap().signature("alert-1", time.as_second(), b"{\"a\":1}");
    assert_eq!(header("webhook-signature"), expected);
}

#[tokio::test]
async fn only_2xx_is_success_and_410_is_final() {
    assert!(told(|| status(200)).await.0.is_ok());
    for answer in [|| status(400), || status(404), || status(500), || status(503)] {
        let failure = told(answer).await.0.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::AlertFailed, Disposition::Retry));
    }
    let gone = told(|| status(410)).await.0.unwrap_err();
    assert_eq!(gone.disposition(), Disposition::Park);
    assert!(gone.report().contains("nobody listens"), "{}", gone.report());
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (done, asked) =
        told(|| Response::builder().status(307).header("location", "/elsewhere").body(Full::default()).unwrap()).await;
    assert!(done.unwrap_err().report().contains("not followed"));
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_kept() {
    let limited = || Response::builder().status(429).header("retry-after", "120").body(Full::default()).unwrap();
    assert_eq!(told(limited).await.0.unwrap_err().retry_after(), Some(Duration::from_secs(120)));
    let dated = || {
        let date = "Thu, 25 Feb 2021 14:53:10 GMT";
        Response::builder().status(503).header("retry-after", date).body(Full::default()).unwrap()
    };
    assert_eq!(told(dated).await.0.unwrap_err().retry_after(), Some(Duration::from_secs(60)));
    let for_ever = || Response::builder().status(429).header("retry-after", "999999999").body(Full::default()).unwrap();
    assert_eq!(told(for_ever).await.0.unwrap_err().retry_after(), Some(crate::relay_api::MAX_RETRY_AFTER));
}

#[tokio::test]
async fn a_large_answer_is_not_read_to_its_end() {
    // A body without an end: it is over only because this side stops to read.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = [0; 64];
        tcp.read_exact(&mut head).await.unwrap();
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n").await.unwrap();
        while tcp.write_all(&[b'x'; 4096]).await.is_ok() {}
    });
    webhook(&format!("http://127.0.0.1:{port}/"), Proxies::direct()).post("alert-1", b"{}").await.unwrap();
}

#[tokio::test]
async fn a_silent_server_has_a_time_limit_and_a_closed_port_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let clock = clock();
    let hook = Webhook { clock: Arc::new(clock.clone()), ..webhook(&format!("http://127.0.0.1:{port}/"), Proxies::direct()) };
    let mut post = Box::pin(hook.post("alert-1", b"{}"));
    let silent = tokio::select! {
        _ = &mut post => panic!("there is no answer"),
        accepted = listener.accept() => accepted.unwrap(),
    };
    clock.advance(WEBHOOK_TIMEOUT);
    assert!(post.await.unwrap_err().report().contains("within 20 seconds"));
    drop((silent, listener));
    let failure = webhook(&format!("http://127.0.0.1:{port}/"), Proxies::direct()).post("alert-1", b"{}").await.unwrap_err();
    assert!(failure.report().contains("not reached"), "{}", failure.report());
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_sent() {
    let hook = webhook("http://127.0.0.1:1/", Proxies::direct());
    let failure = hook.post("alert-1", &vec![b' '; MAX_WEBHOOK_BODY + 1]).await.unwrap_err();
    assert_eq!(failure.disposition(), Disposition::Park);
}

/// A server whose certificate is by an authority of the test's own, and a client that trusts that authority.
fn tls() -> (TlsAcceptor, rustls::ClientConfig) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), client)
}

#[tokio::test]
async fn tls_is_checked_by_its_authority_and_its_name() {
    let (acceptor, client) = tls();
    let (port, asked) = serve(Some(acceptor), || status(200)).await;
    let trusting = |host: &str| {
        let dialer = Dialer::of_config(client.clone(), Arc::new(clock()));
        Webhook { dialer, ..webhook(&format!("https://{host}:{port}/"), Proxies::direct()) }
    };
    trusting("localhost").post("alert-1", b"{}").await.unwrap();
    for refused in [trusting("127.0.0.1"), webhook(&format!("https://localhost:{port}/"), Proxies::direct())] {
        let failure = refused.post("alert-1", b"{}").await.unwrap_err();
        assert!(failure.report().contains("does not trust its certificate"), "{}", failure.report());
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_proxy_leads_to_it() {
    let (port, asked) = serve(None, || status(200)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let tunnel = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.unwrap());
        }
        tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut tcp, &mut far).await;
        String::from_utf8(head).unwrap()
    });
    let url = format!("http://alerts.example:{port}/");
    webhook(&url, Proxies::always(proxy)).post("alert-1", b"{}").await.unwrap();
    assert!(tunnel.await.unwrap().starts_with(&format!("CONNECT alerts.example:{port} ")));
    assert_eq!(asked.lock().unwrap().len(), 1);
}
