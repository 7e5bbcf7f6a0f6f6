//! Tells a web service of somebody else's: one POST of a small JSON body, through the dialer and its proxies, signed as Standard
//! Webhooks has it where there is a secret.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>, version 1.0.0: the signature is
//! HMAC-SHA256 over `id.timestamp.body`; the id stays the same over all tries, the time is the try's; 2xx is success, redirects are
//! not followed, 410 says that nobody listens there any more.

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, StatusCode,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use ring::hmac;
use thiserror::Error;
use towpath_transfer::{Clock, Code, Failure, failure::Result};
use url::Url;

use crate::{
    dial::{self, BoxStream, Dialer, Proxies, Trust, tls::is_certificate_error},
    relay_api::retry_after,
};

/// How long one try may take, connection included.
pub const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(20);
/// The largest body, in bytes, as the specification advises.
pub const MAX_WEBHOOK_BODY: usize = 20 * 1024;
/// How much of an answer is read, in bytes; nothing in it counts but its status.
pub const MAX_WEBHOOK_ANSWER: usize = 64 * 1024;
/// The lengths that a secret may have, in bytes, as the specification says.
pub const WEBHOOK_SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// What secrets begin with.
const SECRET_PREFIX: &str = "whsec_";

/// What signs the body.
#[derive(Clone)]
pub struct WebhookSecret(hmac::Key);

/// Text that is not a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a webhook's secret is whsec_ and 24 to 64 bytes in base64; make one with: echo whsec_$(openssl rand -base64 32)")]
pub struct InvalidSecret;

impl WebhookSecret {
    /// Reads `whsec_BASE64`, or the base64 alone.
    ///
    /// # Errors
    /// [`InvalidSecret`] for anything else, and for a length outside [`WEBHOOK_SECRET_BYTES`].
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let text = text.trim();
        let bytes = STANDARD.decode(text.strip_prefix(SECRET_PREFIX).unwrap_or(text)).map_err(|_| InvalidSecret)?;
        if !WEBHOOK_SECRET_BYTES.contains(&bytes.len()) {
            return Err(InvalidSecret);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of `webhook-signature` for these exact bytes; `timestamp` in seconds since 1970.
    #[must_use]
    pub fn signature(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut signed = format!("{id}.{timestamp}.").into_bytes();
        signed.extend_from_slice(body);
        format!("v1,{}", STANDARD.encode(hmac::sign(&self.0, &signed)))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(withheld)")
    }
}

/// One web service that is told.
#[derive(Clone)]
pub struct Webhook {
    url: Url,
    secret: Option<WebhookSecret>,
    dialer: Dialer,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Webhook {
    /// Without the path: with many services it is the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Webhook({})", self.origin())
    }
}

/// Reads a webhook's URL: `https://…`, or `http://…` where somebody wants that.
///
/// # Errors
/// What such a URL looks like, without repeating this one: its path may be a password.
pub fn parse_webhook_url(text: &str) -> Result<Url, &'static str> {
    let form = "a webhook looks like https://alerts.example.com/path";
    let url = Url::parse(text).map_err(|_| form)?;
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() || url.fragment().is_some() {
        return Err(form);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a webhook's URL has no user and no password in it: sign with `webhook_secret`");
    }
    Ok(url)
}

impl Webhook {
    /// The web service at `url`, which the system's trust store must know if it speaks TLS. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Code::RelayCertificate`] where the system's trust store cannot be used.
    pub fn new(url: Url, secret: Option<WebhookSecret>, proxies: Proxies, clock: Arc<dyn Clock>) -> Result<Self> {
        let dialer = Dialer::speaking(&[b"http/1.1"], &Trust::Public, Arc::clone(&clock))?.through(proxies);
        Ok(Self { url, secret, dialer, clock })
    }

    /// Posts `body`, which is JSON. `id` names what is told, the same with every try, so that the far side can tell it from a second
    /// event; it has no full stop.
    ///
    /// # Errors
    /// [`Code::AlertFailed`]: parked where the answer is 410 or the body is larger than [`MAX_WEBHOOK_BODY`]; otherwise to be tried
    /// again, after the pause that the answer asks for.
    pub async fn post(&self, id: &str, body: &[u8]) -> Result<()> {
        let origin = self.origin();
        if body.len() > MAX_WEBHOOK_BODY {
            let message = format!("telling {origin}: the body has more than {MAX_WEBHOOK_BODY} bytes");
            return Err(Failure::park(Code::AlertFailed, message));
        }
        tokio::select! {
            answer = self.exchange(id, body) => {
                let (status, headers) = answer?;
                judged(&origin, status, &headers, self.clock.now())
            }
            () = self.clock.sleep(WEBHOOK_TIMEOUT) => {
                let message = format!("telling {origin}: no answer within {} seconds", WEBHOOK_TIMEOUT.as_secs());
                Err(Failure::retry(Code::AlertFailed, message))
            }
        }
    }

    /// Scheme, host and port, for people.
    #[must_use]
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    async fn exchange(&self, id: &str, body: &[u8]) -> Result<(StatusCode, HeaderMap)> {
        let origin = self.origin();
        let failed = |what: &str| Failure::retry(Code::AlertFailed, format!("telling {origin}: {what}"));
        let request = self.request(id, body).map_err(|error| failed("the request cannot be made").caused_by(error))?;
        let stream = self.connect().await.map_err(|error| {
            let untrusted = is_certificate_error(&error);
            let what = if untrusted { "this system does not trust its certificate" } else { "it is not reached" };
            failed(what).caused_by(error)
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed("it does not speak HTTP").caused_by(error))?;
        let answered = async {
            let answer = sender.send_request(request).await.map_err(|error| failed("there is no answer").caused_by(error))?;
            let (head, body) = answer.into_parts();
            read_some(body).await;
            Ok((head.status, head.headers))
        };
        let mut answered = std::pin::pin!(answered);
        // The connection must be driven for the exchange to get on, and may end before the answer is looked at.
        tokio::select! {
            answer = &mut answered => answer,
            _ = connection => answered.await,
        }
    }

    async fn connect(&self) -> crate::store::StoreResult<BoxStream> {
        let host = self.url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_or_known_default().unwrap_or(443);
        if self.url.scheme() == "https" {
            Ok(Box::new(self.dialer.tls(host, port).await?))
        } else {
            Ok(Box::new(self.dialer.tcp(host, port).await?))
        }
    }

    fn request(&self, id: &str, body: &[u8]) -> Result<Request<Full<Bytes>>, http::Error> {
        let timestamp = self.clock.now().as_second();
        let target = self.url.query().map_or_else(|| self.url.path().to_owned(), |query| format!("{}?{query}", self.url.path()));
        let host = self.url.host_str().unwrap_or_default();
        let authority = self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(target)
            .header(HOST, authority)
            .header(USER_AGENT, dial::USER_AGENT)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp);
        if let Some(secret) = &self.secret {
            request = request.header("webhook-signature", secret.signature(id, timestamp, body));
        }
        request.body(Full::new(Bytes::copy_from_slice(body)))
    }
}

/// Reads at most [`MAX_WEBHOOK_ANSWER`], so that the far side has been heard and not cut off.
async fn read_some(mut body: Incoming) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > MAX_WEBHOOK_ANSWER {
            return;
        }
    }
}

fn judged(origin: &str, status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Result<()> {
    let message = |why: &str| format!("telling {origin}: it answers {status}{why}");
    if status.is_success() {
        return Ok(());
    }
    if status == StatusCode::GONE {
        return Err(Failure::park(Code::AlertFailed, message(": nobody listens there any more")));
    }
    let why = if status.is_redirection() { ", and redirects are not followed: name the place itself" } else { "" };
    let failure = Failure::retry(Code::AlertFailed, message(why));
    Err(match retry_after(headers, now) {
        Some(pause) => failure.after(pause),
        None => failure,
    })
}
