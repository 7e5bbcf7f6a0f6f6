//! HTTP, proxies, webhooks, and the agent's own control channel.

use std::{fmt::Debug, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use towpath_agent::control::{self, MAX_REQUEST_BYTES, Request};
use towpath_relay::{api, door, registry::check_landing};
use towpath_transfer::{
    RemotePath,
    api::{
        Acknowledgement, AppReceipt, Complete, Downlinks, EnrolmentAnswer, EnrolmentRequest, Expectations, Export, ExportStatus,
        Landing, Peers, Problem, UplinkStatus,
    },
    clock::ManualClock,
    digest::Sha256Digest,
    receipt::SignedReceipt,
};
use towpath_transport::{
    dial::{self, MAX_HEAD_BYTES, Proxies, Proxy},
    relay_api::{self, MAX_RETRY_AFTER},
    server::first_bytes::{Kind, sniff},
    store::StoreResult,
    webhook::{WebhookSecret, parse_webhook_url},
};

use crate::{
    block::block_on,
    choice, chosen,
    samples::{self, KEY, RELAY_URL},
    texts,
};

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::UNIX_EPOCH)
}

/// What is read means the same once it is written.
fn again<T: DeserializeOwned + Serialize>(data: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(data).ok()?;
    let first = serde_json::to_value(&value).unwrap();
    let second: T = serde_json::from_slice(&serde_json::to_vec(&value).unwrap()).unwrap();
    assert_eq!(serde_json::to_value(&second).unwrap(), first);
    Some(value)
}

fn usable(landing: &Landing) {
    if check_landing(landing).is_ok() {
        assert!(landing.port != 0 && !landing.host_keys.is_empty());
        assert!(RemotePath::parse(landing.folder.as_bytes()).is_ok());
        assert!(!landing.host.contains(['/', '@', ' ', '\n']) && !landing.user.contains(['\n', ' ']));
    }
}

pub(crate) fn api_body(data: &[u8]) {
    let (which, data) = choice(data);
    match which % 6 {
        0 => {
            if let Some(request) = again::<EnrolmentRequest>(data) {
                assert!(request.secret.len() < 16 || !format!("{request:?}").contains(&request.secret));
                if let Some(landing) = &request.landing {
                    usable(landing);
                }
            }
        }
        1 => drop(again::<Complete>(data)),
        2 => drop(again::<AppReceipt>(data)),
        3 => drop(again::<Export>(data)),
        4 => drop(again::<Acknowledgement>(data)),
        _ => drop(again::<Expectations>(data)),
    }
}

pub(crate) fn api_body_seeds() -> Vec<Vec<u8>> {
    let key = KEY.public_line();
    let digest = Sha256Digest::of(b"m");
    let id = samples::manifest().transfer;
    let receipt = String::from_utf8(samples::receipt().to_bytes().unwrap()).unwrap();
    let signed = serde_json::to_value(SignedReceipt { receipt, signature: "s".into() }).unwrap();
    let landing = serde_json::json!({"host": "app.example", "port": 2222, "user": "relay", "folder": "/in", "host_keys": [key]});
    let bodies = [
        serde_json::json!({
            "tenant": "acme", "role": "receiver", "secret": "c2VjcmV0LXNlY3JldC1zZWNyZXQ", "public_key": key, "proof": "p",
            "landing": landing,
        }),
        serde_json::json!({"manifest": digest, "packed": digest}),
        serde_json::json!({"agent": "erp", "transfer": id, "receipt": signed}),
        serde_json::json!({"agent": "erp", "transfer": id, "manifest": digest}),
        serde_json::json!({"receipt": signed}),
        serde_json::json!({"jobs": [{"job": "main", "next": "2025-01-01T00:00:00Z", "late_after_seconds": 7200}]}),
    ];
    bodies.iter().zip(0u8..).map(|(body, which)| [vec![which], serde_json::to_vec(body).unwrap()].concat()).collect()
}

fn answer<T: DeserializeOwned + Debug>(status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    let body = Bytes::copy_from_slice(body);
    let (meaning, offset) = relay_api::fuzzing::meaning::<T>(status, headers.clone(), body, Arc::new(clock()));
    match meaning {
        Ok(_) => assert!(status.is_success()),
        Err(failure) => {
            assert!(failure.retry_after().unwrap_or_default() <= MAX_RETRY_AFTER);
            assert!(!failure.report().is_empty());
        }
    }
    assert!(offset.is_none() || headers.contains_key(http::header::DATE));
}

/// One line each: status, `Retry-After`, `Date`, content type; then the body.
pub(crate) fn relay_answer(data: &[u8]) {
    let (which, data) = choice(data);
    let mut parts = data.splitn(5, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default();
    let status = std::str::from_utf8(part()).ok().and_then(|text| text.parse().ok());
    let Some(status) = status.and_then(|status: u16| StatusCode::from_u16(status).ok()) else { return };
    let mut headers = HeaderMap::new();
    for name in ["retry-after", "date", "content-type"] {
        if let Ok(value) = HeaderValue::from_bytes(part())
            && !value.is_empty()
        {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let body = part();
    match which % 6 {
        0 => answer::<EnrolmentAnswer>(status, &headers, body),
        1 => answer::<Peers>(status, &headers, body),
        2 => answer::<UplinkStatus>(status, &headers, body),
        3 => answer::<Downlinks>(status, &headers, body),
        4 => answer::<ExportStatus>(status, &headers, body),
        _ => answer::<towpath_transfer::announcement::SignedAnnouncement>(status, &headers, body),
    }
    let _ = again::<Problem>(body);
}

pub(crate) fn relay_answer_seeds() -> Vec<Vec<u8>> {
    let inputs = texts(&[
        "200\n\nWed, 01 Jan 2025 00:00:00 GMT\napplication/json\n{\"state\":\"accepted\",\"missing\":[],\"receipts\":[]}",
        "503\n120\nThu, 02 Jan 2025 00:00:10 GMT\napplication/problem+json\n{\"type\":\"t\",\"title\":\"t\",\"status\":503,\"detail\":\"d\",\"code\":\"disk-full\"}",
        "429\nWed, 01 Jan 2025 01:00:00 GMT\n\n\n",
        "404\n18446744073709551615\nSat, 01 Jan -9999 00:00:00 GMT\ntext/html\n<html>",
        "200\n\n\n\n{\"downlinks\":[],\"version\":\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}",
        "200\n\n\n\n{\"peers\":[]}",
    ]);
    chosen(6, &inputs)
}

pub(crate) fn first_bytes(data: &[u8]) {
    block_on(async {
        let (mut peer, ours) = duplex(64 * 1024);
        peer.write_all(data).await.unwrap();
        peer.shutdown().await.unwrap();
        match sniff(ours, &clock()).await {
            Ok((kind, mut stream)) => {
                let expected = match data {
                    [0x16, ..] => Kind::Tls,
                    [b'S', b'S', b'H', b'-', ..] => Kind::Ssh,
                    _ => Kind::Other,
                };
                assert_eq!(kind, expected);
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, data, "what was looked at is read again");
            }
            Err(_) => assert!(data.is_empty()),
        }
    });
}

pub(crate) fn first_bytes_seeds() -> Vec<Vec<u8>> {
    texts(&["SSH-2.0-x\r\n", "\u{16}\u{3}\u{1}", "GET / HTTP/1.1\r\n", "SSH", ""])
}

pub(crate) fn plain_http(data: &[u8]) {
    let said = block_on(async {
        let (mut peer, ours) = duplex(64 * 1024);
        peer.write_all(data).await.unwrap();
        peer.shutdown().await.unwrap();
        door::fuzzing::redirect(ours, RELAY_URL, Duration::from_secs(5)).await;
        let mut said = Vec::new();
        peer.read_to_end(&mut said).await.unwrap();
        said
    });
    let text = String::from_utf8_lossy(&said);
    assert!(said.is_empty() || text.starts_with("HTTP/1.1 ") || text.starts_with("HTTP/1.0 "), "{text:?}");
    // A path may look like a version, and stands in the answer: but not at the beginning of a line.
    let answers = text.lines().filter(|line| line.starts_with("HTTP/1.")).count();
    assert!(answers <= 1, "one request is answered: {text:?}");
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    for line in head.lines().filter_map(|line| line.strip_prefix("location: ")) {
        assert!(line.starts_with(&format!("{RELAY_URL}/")), "a browser is led to the relay and nowhere else: {line:?}");
    }
}

pub(crate) fn plain_http_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "GET / HTTP/1.1\r\nHost: relay.example\r\n\r\n",
        "GET //evil.example/x?y=z#w HTTP/1.1\r\nHost: evil.example\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
        "POST /v1/enrolments HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
        "GET http://evil.example/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ])
}

pub(crate) fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(uri) = format!("https://relay.example/v1/x?{text}").parse::<Uri>() else { return };
    let [_, names_agent, _] = api::fuzzing::accepted(&uri);
    assert!(!names_agent || text.contains("agent"), "{text:?}");
}

pub(crate) fn query_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "wait=55&unless=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "agent=erp",
        "agent=%65rp",
        "pinned=7",
        "wait=18446744073709551616",
        "",
    ])
}

/// A conversation with a proxy that says all it will say at once; what comes after its answer must still be there.
fn tunnel<F>(data: &[u8], ask: F) -> (StoreResult<()>, Vec<u8>, Vec<u8>)
where
    F: AsyncFnOnce(&mut DuplexStream) -> StoreResult<()>,
{
    block_on(async {
        let (mut proxy, mut ours) = duplex(64 * 1024);
        proxy.write_all(data).await.unwrap();
        proxy.shutdown().await.unwrap();
        let done = ask(&mut ours).await;
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        drop(ours);
        let mut asked = Vec::new();
        proxy.read_to_end(&mut asked).await.unwrap();
        (done, rest, asked)
    })
}

const PROXIES: [&str; 2] = ["http://proxy.example:3128", "http://user:secret@proxy.example:3128"];

fn proxy(which: usize, scheme: &str) -> Proxy {
    let url = PROXIES.get(which % 2).copied().unwrap_or_default();
    Proxy::parse(&url.replacen("http", scheme, 1)).unwrap()
}

fn no_secret(done: &StoreResult<()>) {
    if let Err(error) = done {
        let told = format!("{error} {error:?}");
        assert!(!told.contains("secret"), "{told}");
        assert!(told.len() < 4096);
    }
}

pub(crate) fn http_connect(data: &[u8]) {
    let (which, data) = choice(data);
    let proxy = proxy(which, "http");
    let (done, rest, asked) = tunnel(data, async |stream| dial::fuzzing::http_tunnel(stream, &proxy, "relay.example", 443).await);
    assert!(asked.starts_with(b"CONNECT relay.example:443 HTTP/1.1\r\n") && asked.ends_with(b"\r\n\r\n"));
    assert!(data.ends_with(&rest) && data.len() - rest.len() <= MAX_HEAD_BYTES);
    if done.is_ok() {
        let head = data.get(..data.len() - rest.len()).unwrap_or_default();
        assert!(head.starts_with(b"HTTP/1.") && head.ends_with(b"\n"), "what follows the head belongs to the tunnel");
    }
    no_secret(&done);
}

pub(crate) fn http_connect_seeds() -> Vec<Vec<u8>> {
    let inputs = texts(&[
        "HTTP/1.1 200 Connection established\r\n\r\nSSH-2.0-x\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\nVia: x\n\nrest",
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"a, \\\"b\\\"\", Negotiate, Digest realm=x, nonce=\"y\"\r\n\r\n",
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad",
        "SSH-2.0-x\r\n",
    ]);
    chosen(2, &inputs)
}

pub(crate) fn socks5(data: &[u8]) {
    let (which, data) = choice(data);
    let proxy = proxy(which, "socks5");
    let (done, rest, asked) =
        tunnel(data, async |stream| dial::fuzzing::socks5_tunnel(stream, &proxy, "relay.example", 443).await);
    assert_eq!(asked.first(), Some(&5));
    assert!(data.ends_with(&rest));
    if done.is_ok() {
        assert_eq!(data.first(), Some(&5));
        // The answer to the request is 10 to 262 bytes, after that to the greeting and the login.
        assert!((2 + 7..=4 + 262).contains(&(data.len() - rest.len())));
    }
    no_secret(&done);
}

pub(crate) fn socks5_seeds() -> Vec<Vec<u8>> {
    let inputs: [&[u8]; 5] = [
        &[5, 0, 5, 0, 0, 1, 10, 0, 0, 1, 0, 80, b'x'],
        &[5, 2, 1, 0, 5, 0, 0, 3, 4, b'h', b'o', b's', b't', 0, 80],
        &[5, 0, 5, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 80],
        &[5, 0xff],
        &[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0],
    ];
    chosen(2, &inputs.map(<[u8]>::to_vec))
}

pub(crate) fn no_proxy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(proxy) = Proxy::parse(text) {
        let printed = proxy.to_string();
        assert!(proxy.has_login() || Proxy::parse(&printed).is_ok_and(|again| again.address() == proxy.address()), "{printed}");
    }
    let variable = |name: &str| match name {
        "HTTPS_PROXY" => Some("http://proxy.example:3128".to_owned()),
        "NO_PROXY" => Some(text.to_owned()),
        _ => None,
    };
    let Ok(proxies) = Proxies::from_environment(&variable) else { return };
    for host in ["relay.example", "sub.relay.example", "10.1.2.3", "fd00::1", "localhost"] {
        let direct = proxies.to(host, 443).is_none();
        assert_eq!(proxies.to(&host.to_ascii_uppercase(), 443).is_none(), direct, "{host} is what it is in either case");
        // One more entry takes nothing away.
        let more =
            |name: &str| variable(name).map(|value| if name == "NO_PROXY" { format!("{value},other.example") } else { value });
        assert!(!direct || Proxies::from_environment(&more).unwrap().to(host, 443).is_none(), "{text:?}");
    }
}

pub(crate) fn no_proxy_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "localhost, .example.com,*.example,10.0.0.0/8 fd00::/8,[fd00::1]:443,relay.example:443",
        "*",
        "http://user:p%40ss@proxy.example:3128",
        "socks5://[::1]:1080",
        "none",
    ])
}

pub(crate) fn webhook(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A path may be a password, so what is said of a wrong one is a sentence of ours: `&'static str`.
    let parsed: Result<_, &'static str> = parse_webhook_url(text);
    if let Ok(url) = parsed {
        assert!(matches!(url.scheme(), "https" | "http") && url.has_host());
        assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
        assert_eq!(parse_webhook_url(url.as_str()), Ok(url));
    }
    if let Ok(secret) = WebhookSecret::parse(text) {
        assert_eq!(format!("{secret:?}"), "WebhookSecret(withheld)");
        let signature = secret.signature("id", 1, data);
        assert!(signature.starts_with("v1,") && signature.len() == 47);
    }
}

pub(crate) fn webhook_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "https://alerts.example.com/path?x=y",
        "http://user:pass@alerts.example/",
        "https://[::1]:8443/#x",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    ])
}

pub(crate) fn control(data: &[u8]) {
    let clock = clock();
    if let Ok(request) = block_on(control::fuzzing::request(data, &clock)) {
        assert!(data.len() <= MAX_REQUEST_BYTES || data.contains(&b'\n'));
        let line = serde_json::json!({"version": control::VERSION, "request": request});
        let again = block_on(control::fuzzing::request(format!("{line}\n").as_bytes(), &clock));
        assert_eq!(again.ok(), Some(request));
    }
    match control::fuzzing::answer(data) {
        Ok(answer) => assert!(serde_json::to_value(answer).is_ok()),
        Err(failure) => assert!(!failure.report().is_empty()),
    }
}

pub(crate) fn control_seeds() -> Vec<Vec<u8>> {
    let line = |says: serde_json::Value| format!("{says}\n").into_bytes();
    let requests = [Request::Wake, Request::Doctor, Request::Reload];
    let mut all: Vec<Vec<u8>> =
        requests.iter().map(|request| line(serde_json::json!({"version": control::VERSION, "request": request}))).collect();
    all.push(line(serde_json::json!({"version": 1, "answer": "done"})));
    all.push(line(serde_json::json!({"version": 2, "request": "wake", "more": [1, {"deep": null}]})));
    all.push(line(serde_json::json!({"version": 1, "failure": {"code": "disk-full", "disposition": "retry", "report": "r"}})));
    all
}
