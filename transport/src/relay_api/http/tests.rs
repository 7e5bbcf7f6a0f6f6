//! Against a real HTTPS server on loopback.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response as Answer};
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER};
use jiff::{SignedDuration, Timestamp};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use towpath_transfer::{
    Clock, Code, Disposition, TransferId,
    api::{AppReceipt, Complete, EnrolmentRequest, Role, UplinkState, UplinkStatus},
    clock::ManualClock,
    digest::Sha256Digest,
    failure::Result,
    receipt::SignedReceipt,
};

use super::{HttpRelayApi, MAX_ANSWER_BYTES, MAX_RETRY_AFTER, REQUEST_TIMEOUT};
use crate::{
    dial::{Proxies, Proxy, Route, Trust, Way, tls::spki_pin, ways::NoMemory},
    relay_api::{RelayApi, TokenSource},
};

const ID: &str = "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b";
const START: &str = "2025-06-01T12:00:00Z";

struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, peer) = self.tcp.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// What was asked: method and path, token, body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked(String, Option<String>, String);

/// A relay that answers what it is told to, in order, and remembers what it was asked.
struct Relay {
    url: String,
    pin: Sha256Digest,
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// Its clock is ahead of the client's by this.
    ahead: Arc<Mutex<SignedDuration>>,
}

impl Relay {
    async fn start(clock: &ManualClock) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["relay".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}", tcp.local_addr().unwrap().port());
        let relay = Self {
            url,
            pin: spki_pin(made.cert.der()).unwrap(),
            asked: Arc::default(),
            answers: Arc::default(),
            ahead: Arc::new(Mutex::new(SignedDuration::ZERO)),
        };
        let (asked, answers, ahead, clock) =
            (Arc::clone(&relay.asked), Arc::clone(&relay.answers), Arc::clone(&relay.ahead), clock.clone());
        let app = Router::new().fallback(move |request: Request| {
            let (asked, answers, ahead, clock) = (asked.clone(), answers.clone(), ahead.clone(), clock.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1_000_000).await.unwrap();
                let token = head.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
                let line = format!("{} {}", head.method, head.uri.path());
                let healthy = line == "GET /healthz";
                asked.lock().unwrap().push(Asked(line, token, String::from_utf8(body.to_vec()).unwrap()));
                let next = if healthy { None } else { answers.lock().unwrap().pop_front() };
                let mut answer = next.unwrap_or_else(|| Answer::new(Body::empty()));
                let date = (clock.now() + *ahead.lock().unwrap()).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
                answer.headers_mut().insert(DATE, date.parse().unwrap());
                answer
            }
        });
        let listener = Tls { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) };
        tokio::spawn(async move { axum::serve(listener, app).await });
        relay
    }

    fn answer(&self, status: u16, kind: &str, body: impl Into<Body>) -> &Self {
        let answer = Answer::builder().status(status).header(CONTENT_TYPE, kind).body(body.into()).unwrap();
        self.push(answer)
    }

    fn push(&self, answer: Answer) -> &Self {
        self.answers.lock().unwrap().push_back(answer);
        self
    }

    fn api(&self, clock: &ManualClock) -> HttpRelayApi {
        let trust = Trust::Pinned(vec![Sha256Digest::of(b"another"), self.pin]);
        HttpRelayApi::new(&self.url, &trust, Some(Arc::new(Tokens)), Arc::new(clock.clone())).unwrap()
    }

    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// A token that says what it was made of.
#[derive(Debug)]
struct Tokens;

impl TokenSource for Tokens {
    fn token(&self, audience: &str, now: Timestamp) -> Result<String> {
        Ok(format!("{audience}|{now}"))
    }
}

fn clock() -> ManualClock {
    ManualClock::new(START.parse().unwrap())
}

fn id() -> TransferId {
    ID.parse().unwrap()
}

fn status(state: UplinkState) -> UplinkStatus {
    UplinkStatus { transfer: id(), state, missing: vec![], trouble: None, receipts: vec![] }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

fn problem(code: Code, status: u16) -> String {
    format!(r#"{{"type":"t","title":"t","status":{status},"detail":"because","code":"{code}"}}"#)
}

#[tokio::test]
async fn each_call_goes_where_the_protocol_says() {
    let clock = clock();
    let relay = Relay::start(&clock).await;
    let api = relay.api(&clock);
    relay.answer(202, "application/json", json(&status(UplinkState::Claimed)));
    relay.answer(200, "application/json", json(&status(UplinkState::Accepted)));
    relay.answer(200, "application/json", r#"{"peers":[]}"#);
    relay.answer(204, "text/plain", "");
    let complete = Complete { manifest: Sha256Digest::of(b"m"), packed: Sha256Digest::of(b"p") };
    assert_eq!(api.complete(id(), &complete).await.unwrap().state, UplinkState::Claimed);
    assert_eq!(api.uplink(id()).await.unwrap().state, UplinkState::Accepted);
    assert!(api.peers().await.unwrap().peers.is_empty());
    let signed = SignedReceipt { receipt: "r".into(), signature: "s".into() };
    let receipt = AppReceipt { agent: "erp".parse().unwrap(), transfer: id(), signed };
    api.post_receipt(&receipt).await.unwrap();
    let token = Some(format!("Bearer {}|{START}", relay.url));
    let expected = [
        Asked("GET /healthz".into(), None, String::new()),
        Asked(format!("POST /v1/uplinks/{ID}/complete"), token.clone(), json(&complete)),
        Asked(format!("GET /v1/uplinks/{ID}"), token.clone(), String::new()),
        Asked("GET /v1/peers".into(), token.clone(), String::new()),
        Asked("POST /v1/app/receipts".into(), token, json(&receipt)),
    ];
    assert_eq!(relay.asked(), expected);
    assert_eq!((api.clock_offset(), api.clock_skew()), (Some(SignedDuration::ZERO), None));
}

#[tokio::test]
async fn enrolment_needs_no_token_and_its_refusal_keeps_the_relays_code() {
    let clock = clock();
    let relay = Relay::start(&clock).await;
    let trust = Trust::Pinned(vec![relay.pin]);
    let api = HttpRelayApi::new(&relay.url, &trust, None, Arc::new(clock.clone())).unwrap();
    let request = EnrolmentRequest {
        tenant: "acme".parse().unwrap(),
        role: Role::Agent,
        secret: "s".into(),
        public_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ4cXl6YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4".parse().unwrap(),
        proof: "p".into(),
        landing: None,
    };
    relay.answer(409, "application/problem+json; charset=utf-8", problem(Code::EnrolmentUsed, 409));
    let failure = api.enrol(&request).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::EnrolmentUsed, Disposition::Park));
    assert!(failure.message().contains("because"));
    assert_eq!(relay.asked(), [Asked("POST /v1/enrolments".into(), None, json(&request))]);
    assert_eq!(api.peers().await.unwrap_err().code(), Code::NotEnrolled);
}

#[tokio::test]
async fn a_clock_a_day_off_is_a_warning_and_tokens_follow_the_relay() {
    let clock = clock();
    let relay = Relay::start(&clock).await;
    *relay.ahead.lock().unwrap() = SignedDuration::from_hours(-24);
    let api = relay.api(&clock);
    relay.answer(200, "application/json", r#"{"peers":[]}"#);
    api.peers().await.unwrap();
    assert!(relay.asked()[1].1.as_ref().unwrap().ends_with("|2025-05-31T12:00:00Z"));
    assert_eq!(api.clock_skew(), Some(SignedDuration::from_hours(-24)));
    // Somebody sets the clock right while the program runs: the old difference makes a wrong token, once.
    clock.set_wall("2025-05-31T12:00:00Z".parse().unwrap());
    *relay.ahead.lock().unwrap() = SignedDuration::ZERO;
    relay.answer(401, "application/problem+json", problem(Code::AuthenticationRefused, 401));
    relay.answer(200, "application/json", r#"{"peers":[]}"#);
    api.peers().await.unwrap();
    let tokens: Vec<String> = relay.asked().into_iter().filter_map(|asked| asked.1).collect();
    assert!(tokens[0].ends_with("|2025-05-30T12:00:00Z") && tokens[1].ends_with("|2025-05-31T12:00:00Z"), "{tokens:?}");
    assert_eq!(api.clock_skew(), None);
}

#[tokio::test]
async fn a_refused_token_is_not_tried_again_where_the_clocks_agree() {
    let clock = clock();
    let relay = Relay::start(&clock).await;
    let api = relay.api(&clock);
    relay.answer(401, "application/problem+json", problem(Code::AgentRevoked, 401));
    let failure = api.peers().await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::AgentRevoked, Disposition::Park));
    assert_eq!(relay.asked().len(), 2);
}

#[tokio::test]
async fn each_status_has_its_disposition_and_the_relays_pause_counts() {
    let clock = clock();
    let relay = Relay::start(&clock).await;
    let api = relay.api(&clock);
    let (retry, park) = (Disposition::Retry, Disposition::Park);
    let cases = [
        (429, problem(Code::RateLimited, 429), Some("7"), Code::RateLimited, retry, Some(7)),
        (503, problem(Code::SpoolFull, 503), Some("Sun, 01 Jun 2025 12:01:00 GMT"), Code::SpoolFull, retry, Some(60)),
        (503, String::new(), Some("999999999"), Code::RelayUnreachable, retry, Some(MAX_RETRY_AFTER.as_secs())),
        (502, "<html>".to_owned(), None, Code::RelayUnreachable, retry, None),
        (404, problem(Code::NotFound, 404), Some("7"), Code::NotFound, park, None),
        (404, "<html>".to_owned(), None, Code::RelayProtocol, retry, None),
        (403, String::new(), None, Code::AuthenticationRefused, retry, None),
        (400, r#"{"code":"no such code"}"#.to_owned(), None, Code::RelayProtocol, retry, None),
    ];
    for (status, body, pause, code, disposition, after) in cases {
        let mut answer = Answer::builder().status(status).header(CONTENT_TYPE, "application/problem+json");
        if let Some(pause) = pause {
            answer = answer.header(RETRY_AFTER, pause);
        }
        relay.push(answer.body(Body::from(body)).unwrap());
        let failure = api.uplink(id()).await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (code, disposition), "{status}");
        assert_eq!(failure.retry_after(), after.map(Duration::from_secs), "{status}");
    }
}

#[tokio::test]
async fn only_the_relays_own_word_says_that_something_is_done() {
    let clock = clock();
    let relay = Relay::start(&clock).await;
    let api = relay.api(&clock);
    let receipt = AppReceipt {
        agent: "erp".parse().unwrap(),
        transfer: id(),
        signed: SignedReceipt { receipt: "{}".into(), signature: String::new() },
    };
    relay.answer(200, "text/html", "<html>Welcome</html>");
    let failure = api.post_receipt(&receipt).await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::RelayProtocol, Disposition::Retry));
    relay.push(Answer::builder().status(204).body(Body::empty()).unwrap());
    api.post_receipt(&receipt).await.unwrap();
}

#[tokio::test]
async fn redirects_nonsense_and_endless_answers_are_refused() {
    let clock = clock();
    let relay = Relay::start(&clock).await;
    let api = relay.api(&clock);
    relay.push(Answer::builder().status(302).header(LOCATION, "/v1/peers").body(Body::empty()).unwrap());
    assert_eq!(api.peers().await.unwrap_err().code(), Code::RelayProtocol);
    relay.answer(200, "application/json", r#"{"peers":7}"#);
    assert_eq!(api.peers().await.unwrap_err().code(), Code::RelayProtocol);
    relay.answer(200, "application/json", vec![b' '; MAX_ANSWER_BYTES + 1]);
    assert_eq!(api.peers().await.unwrap_err().code(), Code::LimitExceeded);
}

#[tokio::test]
async fn another_certificate_and_no_relay_are_told_apart() {
    let clock = clock();
    let relay = Relay::start(&clock).await;
    for trust in [Trust::Pinned(vec![Sha256Digest::of(b"another")]), Trust::Pinned(vec![]), Trust::Public] {
        let api = HttpRelayApi::new(&relay.url, &trust, Some(Arc::new(Tokens)), Arc::new(clock.clone())).unwrap();
        let failure = api.peers().await.unwrap_err();
        assert_eq!((failure.code(), failure.disposition()), (Code::RelayCertificate, Disposition::Park));
    }
    assert!(relay.asked().is_empty());
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let url = format!("https://127.0.0.1:{port}");
    let api = HttpRelayApi::new(&url, &Trust::Pinned(vec![]), Some(Arc::new(Tokens)), Arc::new(clock)).unwrap();
    let failure = api.peers().await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::RelayUnreachable, Disposition::Retry));
}

#[tokio::test]
async fn a_url_is_an_https_origin_and_nothing_more() {
    for wrong in ["http://relay", "https://relay/x", "https://u@relay", "https://relay?x", "relay", "ftp://relay"] {
        let made = HttpRelayApi::new(wrong, &Trust::Pinned(vec![]), None, Arc::new(clock()));
        assert_eq!(made.unwrap_err().code(), Code::ConfigInvalid, "{wrong}");
    }
    HttpRelayApi::new("https://relay.example:8443/", &Trust::Pinned(vec![]), None, Arc::new(clock())).unwrap();
}

fn ways(ports: &[u16]) -> Vec<Way> {
    ports.iter().map(|port| Way { route: Route::Ssh, port: *port }).collect()
}

async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn where_the_relays_own_port_is_closed_its_other_one_is_found() {
    let clock = clock();
    let relay = Relay::start(&clock).await;
    let open: u16 = relay.url.rsplit(':').next().unwrap().parse().unwrap();
    let url = format!("https://127.0.0.1:{}", closed_port().await);
    let trust = Trust::Pinned(vec![relay.pin]);
    let api = HttpRelayApi::new(&url, &trust, Some(Arc::new(Tokens)), Arc::new(clock.clone())).unwrap();
    let api = api.through(Proxies::direct(), &ways(&[closed_port().await, open]), Arc::new(NoMemory));
    relay.answer(200, "application/json", r#"{"peers":[]}"#);
    api.peers().await.unwrap();
    // Tokens are for the relay's own URL, by whatever port it was reached.
    assert_eq!(relay.asked()[1].1.as_deref(), Some(format!("Bearer {url}|{START}").as_str()));
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told_apart_from_a_relay_that_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.read_exact(&mut [0; 16]).await.unwrap();
            stream.write_all(b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\n\r\n").await.unwrap();
            // Until the client has read it and leaves.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let trust = Trust::Pinned(vec![]);
    let api = HttpRelayApi::new("https://relay.example", &trust, Some(Arc::new(Tokens)), Arc::new(clock())).unwrap();
    let api = api.through(Proxies::always(Proxy::parse(&proxy).unwrap()), &ways(&[443, 80]), Arc::new(NoMemory));
    let failure = api.peers().await.unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::ProxyRefused, Disposition::Retry));
    assert!(failure.report().contains("offers NTLM"), "{}", failure.report());
}

#[tokio::test]
async fn a_relay_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clock = clock();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let api = HttpRelayApi::new(&url, &Trust::Pinned(vec![]), None, Arc::new(clock.clone())).unwrap();
    let asking = tokio::spawn(async move { api.health().await });
    let (mut silent, _) = listener.accept().await.unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut silent, &mut [0; 16]).await.unwrap();
    clock.advance(REQUEST_TIMEOUT);
    let failure = asking.await.unwrap().unwrap_err();
    assert_eq!((failure.code(), failure.disposition()), (Code::RelayUnreachable, Disposition::Retry));
}
