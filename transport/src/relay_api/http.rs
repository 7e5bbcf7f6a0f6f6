//! The relay's web service over HTTPS.

mod clock_offset;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect,
};
use serde::{Serialize, de::DeserializeOwned};
use towpath_transfer::{
    AgentName, Clock, Code, Failure, TransferId,
    announcement::SignedAnnouncement,
    api::{
        Acknowledgement, AppReceipt, Complete, Downlinks, EnrolmentAnswer, EnrolmentRequest, Export, ExportStatus,
        MAX_WAIT_SECONDS, Peers, Problem, UplinkStatus,
    },
    digest::Sha256Digest,
    failure::Result,
};
use url::Url;

use self::clock_offset::ClockOffset;
use super::{RelayApi, TokenSource};
use crate::dial::{CONNECT_TIMEOUT, Trust, tls};

/// How long a whole request may take, connection included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is read, in bytes: a status with three receipts of the largest kind, escaped in JSON.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The longest pause that the relay may ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Clocks that differ by more are reported.
pub const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// A change of the known difference between the clocks by which a refused token is worth a second try.
const WORTH_A_RETRY: SignedDuration = SignedDuration::from_secs(5);

/// The relay's web service at one URL. Clones share connections and what is known of the relay's clock.
#[derive(Clone)]
pub struct HttpRelayApi {
    client: Client,
    base: Url,
    audience: Arc<str>,
    tokens: Option<Arc<dyn TokenSource>>,
    offset: Arc<ClockOffset>,
}

impl fmt::Debug for HttpRelayApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpRelayApi({})", self.audience)
    }
}

impl HttpRelayApi {
    /// The relay at `relay_url`, `https://host[:port]`. Before enrolment there are no `tokens`, and every call but [`RelayApi::enrol`] fails.
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] for another form of URL; [`Code::RelayCertificate`] where the system's trust store cannot be used.
    pub fn new(relay_url: &str, trust: &Trust, tokens: Option<Arc<dyn TokenSource>>, clock: Arc<dyn Clock>) -> Result<Self> {
        let base = parse_base(relay_url)?;
        let mut tls = tls::client_config(trust)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .user_agent(concat!("towpath/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::park(Code::Internal, "preparing the web client").caused_by(error))?;
        let audience = relay_url.trim_end_matches('/').into();
        Ok(Self { client, base, audience, tokens, offset: Arc::new(ClockOffset::new(clock)) })
    }

    /// The relay's clock minus this host's, as far as a `Date` header has told, to the second.
    #[must_use]
    pub fn clock_offset(&self) -> Option<SignedDuration> {
        self.offset.known()
    }

    /// The same, where it is more than [`MAX_CLOCK_SKEW`] and so worth a warning with [`Code::ClockSkew`].
    #[must_use]
    pub fn clock_skew(&self) -> Option<SignedDuration> {
        self.clock_offset().filter(|offset| offset.abs() > MAX_CLOCK_SKEW)
    }

    /// The relay's time, as far as it is known.
    #[must_use]
    pub fn relay_now(&self) -> Timestamp {
        self.offset.relay_now()
    }

    /// Asks `GET /healthz` without authentication, which also tells the relay's time.
    ///
    /// # Errors
    /// As [`RelayApi`] says.
    pub async fn health(&self) -> Result<()> {
        let what = "asking the relay for its health";
        let response = self.send(what, self.request(Method::GET, "healthz")?).await?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(what, response, &self.offset).await) }
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        let url = self.base.join(path).map_err(|error| Failure::park(Code::Internal, "building a URL").caused_by(error))?;
        Ok(self.client.request(method, url))
    }

    async fn send(&self, what: &str, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| unreachable(what, error))?;
        self.offset.learn(response.headers());
        Ok(response)
    }

    /// Sends with a token whose times follow the relay's clock; where that clock turns out to be another than was known, once more.
    async fn authenticated(&self, what: &str, build: impl Fn() -> Result<RequestBuilder> + Send) -> Result<Response> {
        let not_enrolled = || Failure::park(Code::NotEnrolled, format!("{what}: this end is not enrolled"));
        let tokens = self.tokens.as_ref().ok_or_else(not_enrolled)?;
        if self.offset.known().is_none() {
            self.health().await?;
        }
        let believed = self.offset.known().unwrap_or_default();
        let token = tokens.token(&self.audience, self.offset.relay_now())?;
        let response = self.send(what, build()?.bearer_auth(token)).await?;
        let learnt = self.offset.known().unwrap_or_default();
        if response.status() != StatusCode::UNAUTHORIZED || (learnt - believed).abs() < WORTH_A_RETRY {
            return Ok(response);
        }
        let token = tokens.token(&self.audience, self.offset.relay_now())?;
        self.send(what, build()?.bearer_auth(token)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T> {
        let response = self.authenticated(what, || self.with_body(method.clone(), path, body)).await?;
        answer(what, response, &self.offset).await
    }

    /// A call whose answer has no body.
    async fn tell(&self, what: &str, path: &str, body: &(impl Serialize + Sync)) -> Result<()> {
        let response = self.authenticated(what, || self.with_body(Method::POST, path, Some(body))).await?;
        if response.status().is_success() { Ok(()) } else { Err(refusal(what, response, &self.offset).await) }
    }

    fn with_body(&self, method: Method, path: &str, body: Option<&(impl Serialize + Sync)>) -> Result<RequestBuilder> {
        let request = self.request(method, path)?;
        Ok(match body {
            Some(body) => request.json(body),
            None => request,
        })
    }
}

const NO_BODY: Option<&()> = None;

#[async_trait]
impl RelayApi for HttpRelayApi {
    async fn enrol(&self, request: &EnrolmentRequest) -> Result<EnrolmentAnswer> {
        let what = "enrolling at the relay";
        let response = self.send(what, self.with_body(Method::POST, "v1/enrolments", Some(request))?).await?;
        answer(what, response, &self.offset).await
    }

    async fn peers(&self) -> Result<Peers> {
        self.call("asking the relay for the other ends", Method::GET, "v1/peers", NO_BODY).await
    }

    async fn complete(&self, transfer: TransferId, complete: &Complete) -> Result<UplinkStatus> {
        let what = format!("telling the relay that transfer {transfer} is complete");
        self.call(&what, Method::POST, &format!("v1/uplinks/{transfer}/complete"), Some(complete)).await
    }

    async fn uplink(&self, transfer: TransferId) -> Result<UplinkStatus> {
        let what = format!("asking the relay for transfer {transfer}");
        self.call(&what, Method::GET, &format!("v1/uplinks/{transfer}"), NO_BODY).await
    }

    async fn post_receipt(&self, receipt: &AppReceipt) -> Result<()> {
        let what = format!("handing the relay the receipt for transfer {}", receipt.transfer);
        self.tell(&what, "v1/app/receipts", receipt).await
    }

    async fn downlinks(&self, wait: Duration, unless: Option<Sha256Digest>) -> Result<Downlinks> {
        let mut path = format!("v1/downlinks?wait={}", wait.as_secs().min(MAX_WAIT_SECONDS));
        if let Some(version) = unless {
            path = format!("{path}&unless={version}");
        }
        self.call("asking the relay for return files", Method::GET, &path, NO_BODY).await
    }

    async fn acknowledge(&self, transfer: TransferId, acknowledgement: &Acknowledgement) -> Result<()> {
        let what = format!("acknowledging transfer {transfer} to the relay");
        self.tell(&what, &format!("v1/downlinks/{transfer}/acknowledge"), acknowledgement).await
    }

    async fn export(&self, export: &Export) -> Result<ExportStatus> {
        let what = format!("telling the relay of the return files of transfer {}", export.transfer);
        self.call(&what, Method::POST, "v1/app/exports", Some(export)).await
    }

    async fn export_status(&self, agent: &AgentName, transfer: TransferId) -> Result<ExportStatus> {
        let what = format!("asking the relay for transfer {transfer}");
        self.call(&what, Method::GET, &format!("v1/app/exports/{transfer}?agent={agent}"), NO_BODY).await
    }

    async fn announcement(&self) -> Result<SignedAnnouncement> {
        self.call("asking the relay for its keys", Method::GET, "v1/announcement", NO_BODY).await
    }
}

fn parse_base(relay_url: &str) -> Result<Url> {
    let invalid = |why: &str| Failure::park(Code::ConfigInvalid, format!("the relay's URL {relay_url:?} {why}"));
    let base = Url::parse(relay_url).map_err(|error| invalid("cannot be read").caused_by(error))?;
    let bare = base.path() == "/" && base.query().is_none() && base.fragment().is_none() && base.username().is_empty();
    if base.scheme() != "https" || !base.has_host() || !bare || base.password().is_some() {
        return Err(invalid("is not of the form https://host[:port]"));
    }
    Ok(base)
}

fn unreachable(what: &str, error: reqwest::Error) -> Failure {
    if tls::is_certificate_error(&error) {
        let message = format!("{what}: its certificate is not the pinned or a trusted one");
        return Failure::park(Code::RelayCertificate, message).caused_by(error);
    }
    if error.is_builder() {
        return Failure::park(Code::Internal, what).caused_by(error);
    }
    Failure::retry(Code::RelayUnreachable, what).caused_by(error)
}

async fn answer<T: DeserializeOwned>(what: &str, response: Response, offset: &ClockOffset) -> Result<T> {
    if !response.status().is_success() {
        return Err(refusal(what, response, offset).await);
    }
    let body = body(what, response).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let message = format!("{what}: its answer is not of the protocol");
        Failure::park(Code::RelayProtocol, message).caused_by(error)
    })
}

async fn body(what: &str, mut response: Response) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(what, error))? {
        if bytes.len().saturating_add(chunk.len()) > MAX_ANSWER_BYTES {
            let message = format!("{what}: its answer is larger than {MAX_ANSWER_BYTES} bytes");
            return Err(Failure::park(Code::LimitExceeded, message));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The failure that an answer without success means: the relay's own code where it gives one.
async fn refusal(what: &str, response: Response, offset: &ClockOffset) -> Failure {
    let status = response.status();
    let pause = retry_after(response.headers(), offset);
    let is_problem = response.headers().get(CONTENT_TYPE).is_some_and(|kind| {
        kind.to_str().is_ok_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("application/problem+json"))
    });
    let problem: Option<Problem> = match body(what, response).await {
        Ok(body) if is_problem => serde_json::from_slice(&body).ok(),
        _ => None,
    };
    let passes = status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    let (code, message) = match problem {
        Some(problem) => (problem.code, format!("{what}: the relay says: {}", problem.detail)),
        None => (code_of(status), format!("{what}: it answers {status}")),
    };
    let failure = if passes { Failure::retry(code, message) } else { Failure::park(code, message) };
    match pause {
        Some(pause) if passes => failure.after(pause),
        _ => failure,
    }
}

/// Answers without the relay's own code come from something in between, or from a fault in the relay.
fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Code::RateLimited,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Code::AuthenticationRefused,
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => Code::RelayUnreachable,
        _ => Code::RelayProtocol,
    }
}

/// Seconds or a date (RFC 9110 section 10.2.3), the date by the relay's clock.
fn retry_after(headers: &HeaderMap, offset: &ClockOffset) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = clock_offset::parse_date(text)?;
            Duration::try_from(until.duration_since(offset.relay_now())).unwrap_or_default()
        }
    };
    Some(pause.min(MAX_RETRY_AFTER))
}
