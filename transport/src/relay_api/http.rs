//! The relay's web service over HTTPS.

mod client;
mod clock_offset;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use http_body_util::Full;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::watch;
use towpath_transfer::{
    AgentName, Clock, Code, Failure, TransferId,
    announcement::{SERIAL_HEADER, SignedAnnouncement},
    api::{
        Acknowledgement, AppReceipt, Complete, Downlinks, EnrolmentAnswer, EnrolmentRequest, Expectations, Export, ExportStatus,
        KeyRotation, MAX_WAIT_SECONDS, Peers, Problem, Releases, UplinkStatus,
    },
    digest::Sha256Digest,
    failure::Result,
};
use url::Url;

use self::{
    client::{Answer, WebClient},
    clock_offset::ClockOffset,
};
use super::{RelayApi, TokenSource};
use crate::dial::{
    self, Dialer, Proxies, Trust, Way,
    ways::{Memory, NoMemory},
};

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
    client: WebClient,
    dialer: Dialer,
    base: Url,
    audience: Arc<str>,
    tokens: Option<Arc<dyn TokenSource>>,
    offset: Arc<ClockOffset>,
    clock: Arc<dyn Clock>,
    announced: watch::Sender<u64>,
}

impl fmt::Debug for HttpRelayApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpRelayApi({})", self.audience)
    }
}

impl HttpRelayApi {
    /// The relay at `relay_url`, `https://host[:port]`, reached without a proxy. Before enrolment there are no `tokens`, and every call but
    /// [`RelayApi::enrol`] fails. Nothing is connected yet.
    ///
    /// # Errors
    /// [`Code::ConfigInvalid`] for another form of URL; [`Code::RelayCertificate`] where the system's trust store cannot be used.
    pub fn new(relay_url: &str, trust: &Trust, tokens: Option<Arc<dyn TokenSource>>, clock: Arc<dyn Clock>) -> Result<Self> {
        let base = parse_base(relay_url)?;
        let dialer = Dialer::speaking(&client::ALPN, trust, Arc::clone(&clock))?;
        let client = WebClient::new(&dialer, host(&base), &[port(&base)], Arc::new(NoMemory), Arc::clone(&clock));
        let audience = relay_url.trim_end_matches('/').into();
        let offset = Arc::new(ClockOffset::new(Arc::clone(&clock)));
        Ok(Self { client, dialer, base, audience, tokens, offset, clock, announced: watch::Sender::new(0) })
    }

    /// The same relay through the proxies that lead out of this network, and, where its own port is closed, on the other ports of
    /// `ways`: a relay takes TLS wherever it takes SSH. What is found out is kept in `memory`.
    #[must_use]
    pub fn through(self, proxies: Proxies, ways: &[Way], memory: Arc<dyn Memory>) -> Self {
        let dialer = self.dialer.through(proxies);
        let mut ports = vec![port(&self.base)];
        for way in ways {
            if !ports.contains(&way.port) {
                ports.push(way.port);
            }
        }
        let client = WebClient::new(&dialer, host(&self.base), &ports, memory, Arc::clone(&self.clock));
        Self { client, dialer, ..self }
    }

    /// The same relay as it is called with other tokens.
    #[must_use]
    pub fn speaking_for(&self, tokens: Arc<dyn TokenSource>) -> Self {
        Self { tokens: Some(tokens), ..self.clone() }
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

    /// The serial of the relay's newest announcement of its keys, as every answer says it; 0 where none did.
    #[must_use]
    pub fn announced(&self) -> watch::Receiver<u64> {
        self.announced.subscribe()
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
        let answer = self.send(what, Method::GET, "healthz", None, None).await?;
        if answer.status.is_success() { Ok(()) } else { Err(refusal(what, answer, &self.offset)) }
    }

    async fn send(&self, what: &str, method: Method, path: &str, body: Option<Bytes>, token: Option<&str>) -> Result<Answer> {
        let failed = || Failure::park(Code::Internal, format!("{what}: building the request"));
        let url = self.base.join(path).map_err(|error| failed().caused_by(error))?;
        let uri = Uri::try_from(url.as_str()).map_err(|error| failed().caused_by(error))?;
        let mut request = Request::builder().method(method).uri(uri).header(USER_AGENT, dial::USER_AGENT);
        if let Some(token) = token {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| failed().caused_by(error))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default())).map_err(|error| failed().caused_by(error))?;
        let answer = self.client.send(what, request).await?;
        self.offset.learn(&answer.headers);
        self.learn_announced(&answer.headers);
        Ok(answer)
    }

    fn learn_announced(&self, headers: &HeaderMap) {
        let serial = headers.get(SERIAL_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(serial) = serial {
            self.announced.send_if_modified(|known| std::mem::replace(known, serial) != serial);
        }
    }

    /// Sends with a token whose times follow the relay's clock; where that clock turns out to be another than was known, once more.
    async fn authenticated(&self, what: &str, method: Method, path: &str, body: Option<Bytes>) -> Result<Answer> {
        let not_enrolled = || Failure::park(Code::NotEnrolled, format!("{what}: this end is not enrolled"));
        let tokens = self.tokens.as_ref().ok_or_else(not_enrolled)?;
        if self.offset.known().is_none() {
            self.health().await?;
        }
        let believed = self.offset.known().unwrap_or_default();
        let token = tokens.token(&self.audience, self.offset.relay_now())?;
        let answer = self.send(what, method.clone(), path, body.clone(), Some(&token)).await?;
        let learnt = self.offset.known().unwrap_or_default();
        if answer.status != StatusCode::UNAUTHORIZED || (learnt - believed).abs() < WORTH_A_RETRY {
            return Ok(answer);
        }
        let token = tokens.token(&self.audience, self.offset.relay_now())?;
        self.send(what, method, path, body, Some(&token)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        what: &str,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T> {
        let body = body.map(|body| json(what, body)).transpose()?;
        parsed(what, self.authenticated(what, method, path, body).await?, &self.offset)
    }

    /// A call whose answer has no body.
    async fn tell(&self, what: &str, method: Method, path: &str, body: &(impl Serialize + Sync)) -> Result<()> {
        let answer = self.authenticated(what, method, path, Some(json(what, body)?)).await?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(()),
            // A page that somebody in between shows in the relay's place is no word that the relay has it.
            status if status.is_success() => {
                Err(Failure::retry(Code::RelayProtocol, format!("{what}: the relay answered {status}, and not that it is done")))
            }
            _ => Err(refusal(what, answer, &self.offset)),
        }
    }
}

const NO_BODY: Option<&()> = None;

#[async_trait]
impl RelayApi for HttpRelayApi {
    async fn enrol(&self, request: &EnrolmentRequest) -> Result<EnrolmentAnswer> {
        let what = "enrolling at the relay";
        let body = json(what, request)?;
        parsed(what, self.send(what, Method::POST, "v1/enrolments", Some(body), None).await?, &self.offset)
    }

    async fn peers(&self) -> Result<Peers> {
        self.call("asking the relay for the other ends", Method::GET, "v1/peers", NO_BODY).await
    }

    async fn rotate_key(&self, rotation: &KeyRotation) -> Result<KeyRotation> {
        self.call("telling the relay of the new key", Method::POST, "v1/keys", Some(rotation)).await
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
        self.tell(&what, Method::POST, "v1/app/receipts", receipt).await
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
        self.tell(&what, Method::POST, &format!("v1/downlinks/{transfer}/acknowledge"), acknowledgement).await
    }

    async fn export(&self, export: &Export) -> Result<ExportStatus> {
        let what = format!("telling the relay of the return files of transfer {}", export.transfer);
        self.call(&what, Method::POST, "v1/app/exports", Some(export)).await
    }

    async fn export_status(&self, agent: &AgentName, transfer: TransferId) -> Result<ExportStatus> {
        let what = format!("asking the relay for transfer {transfer}");
        self.call(&what, Method::GET, &format!("v1/app/exports/{transfer}?agent={agent}"), NO_BODY).await
    }

    async fn expect(&self, expectations: &Expectations) -> Result<()> {
        let what = "telling the relay when it is to expect each job";
        self.tell(what, Method::PUT, "v1/expectations", expectations).await
    }

    async fn releases(&self) -> Result<Releases> {
        self.call("asking the relay for releases", Method::GET, "v1/releases", NO_BODY).await
    }

    async fn announcement(&self, pinned: u64) -> Result<SignedAnnouncement> {
        let path = format!("v1/announcement?pinned={pinned}");
        self.call("asking the relay for its keys", Method::GET, &path, NO_BODY).await
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

/// The base's host, without the brackets of an address.
fn host(base: &Url) -> &str {
    base.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

fn port(base: &Url) -> u16 {
    base.port_or_known_default().unwrap_or(443)
}

fn json(what: &str, body: &impl Serialize) -> Result<Bytes> {
    let bytes = serde_json::to_vec(body);
    Ok(bytes.map_err(|error| Failure::park(Code::Internal, format!("{what}: writing the request")).caused_by(error))?.into())
}

fn parsed<T: DeserializeOwned>(what: &str, answer: Answer, offset: &ClockOffset) -> Result<T> {
    if !answer.status.is_success() {
        return Err(refusal(what, answer, offset));
    }
    serde_json::from_slice(&answer.body?).map_err(|error| {
        // A page that something in between has put there may be gone with the next question.
        let message = format!("{what}: its answer is not of the protocol");
        Failure::retry(Code::RelayProtocol, message).caused_by(error)
    })
}

/// The failure that an answer without success means: the relay's own code where it gives one. What is not the relay's own word comes from
/// something in between, which is mended without a word to anybody here.
fn refusal(what: &str, answer: Answer, offset: &ClockOffset) -> Failure {
    let status = answer.status;
    let pause = retry_after(&answer.headers, offset.relay_now());
    let is_problem = answer.headers.get(CONTENT_TYPE).is_some_and(|kind| {
        kind.to_str().is_ok_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("application/problem+json"))
    });
    let problem: Option<Problem> = match answer.body {
        Ok(body) if is_problem => serde_json::from_slice(&body).ok(),
        _ => None,
    };
    let is_passing = status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    let passes = is_passing || problem.is_none();
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

/// Seconds or a date (RFC 9110 section 10.2.3), where it is `now` at the far side; at most [`MAX_RETRY_AFTER`].
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = clock_offset::parse_date(text)?;
            Duration::try_from(until.duration_since(now)).unwrap_or_default()
        }
    };
    Some(pause.min(MAX_RETRY_AFTER))
}
