//! An HTTPS client for one relay, over the same dialer as SSH: the same proxies, and any port on which the relay listens.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        self, Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use towpath_transfer::{Clock, Code, Failure, failure::Result};

use super::{MAX_ANSWER_BYTES, REQUEST_TIMEOUT};
use crate::{
    dial::{Dialer, tls, ways::Memory, ways::Open, ways::Ways},
    store::{StoreError, StoreErrorKind, StoreResult},
};

/// What is offered inside TLS.
pub(super) const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A connection over which requests run and that says nothing is asked after this pause whether it still leads anywhere.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// A connection that does not answer that is given up after this pause.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(15);

/// Sends requests to one relay. Clones share connections.
#[derive(Clone)]
pub(super) struct WebClient {
    client: Client<Connector, Full<Bytes>>,
    clock: Arc<dyn Clock>,
}

/// A whole answer. Its body counts only where its status is worth anything, so that it may have failed.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Result<Bytes>,
}

impl WebClient {
    /// A client for the relay at `host`, which listens on these ports, the best first. Nothing is connected yet.
    pub(super) fn new(dialer: &Dialer, host: &str, ports: &[u16], memory: Arc<dyn Memory>, clock: Arc<dyn Clock>) -> Self {
        let way = |port: &u16| {
            let (dialer, host, port) = (dialer.clone(), host.to_owned(), *port);
            let open: Open<TlsStream<TcpStream>> = Box::new(move || {
                let (dialer, host) = (dialer.clone(), host.clone());
                Box::pin(async move { dialer.tls(&host, port).await })
            });
            (format!("https:{port}"), open)
        };
        let ways = Ways::new("HTTPS to the relay", ports.iter().map(way).collect(), memory, Arc::clone(&clock));
        // A firewall that closes lets an old connection hang, which must not be used for the next request.
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .http2_keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .build(Connector { ways });
        Self { client, clock }
    }

    /// Sends a request and reads its whole answer, within [`REQUEST_TIMEOUT`].
    pub(super) async fn send(&self, what: &str, request: Request<Full<Bytes>>) -> Result<Answer> {
        let work = async {
            let response = self.client.request(request).await.map_err(|error| unreachable(what, error))?;
            let (head, body) = response.into_parts();
            Ok(Answer { status: head.status, headers: head.headers, body: whole(what, body).await })
        };
        tokio::select! {
            answer = work => answer,
            () = self.clock.sleep(REQUEST_TIMEOUT) => {
                let message = format!("{what}: no answer within {} seconds", REQUEST_TIMEOUT.as_secs());
                Err(Failure::retry(Code::RelayUnreachable, message))
            }
        }
    }
}

fn unreachable(what: &str, error: legacy::Error) -> Failure {
    if tls::is_certificate_error(&error) {
        let message = format!("{what}: its certificate is not the pinned or a trusted one");
        return Failure::park(Code::RelayCertificate, message).caused_by(error);
    }
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(below) = cause {
        if below.downcast_ref::<StoreError>().is_some_and(|error| error.kind() == StoreErrorKind::ProxyRefused) {
            return Failure::retry(Code::ProxyRefused, what).caused_by(error);
        }
        cause = below.source();
    }
    Failure::retry(Code::RelayUnreachable, what).caused_by(error)
}

async fn whole(what: &str, mut body: Incoming) -> Result<Bytes> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::retry(Code::RelayUnreachable, what).caused_by(error))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if bytes.len().saturating_add(chunk.len()) > MAX_ANSWER_BYTES {
            let message = format!("{what}: its answer is larger than {MAX_ANSWER_BYTES} bytes");
            return Err(Failure::retry(Code::LimitExceeded, message));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

/// Connects by whichever way is open.
#[derive(Clone)]
struct Connector {
    ways: Ways<TlsStream<TcpStream>>,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Secured>;
    type Error = StoreError;
    type Future = BoxFuture<'static, StoreResult<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<StoreResult<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let ways = self.ways.clone();
        Box::pin(async move { Ok(TokioIo::new(Secured(ways.open().await?))) })
    }
}

impl fmt::Debug for WebClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebClient")
    }
}

/// A TLS connection that tells the client which version of HTTP was agreed on.
struct Secured(TlsStream<TcpStream>);

impl Connection for Secured {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.0.get_ref().1.alpn_protocol() == Some(b"h2") { connected.negotiated_h2() } else { connected }
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
