//! The web service: HTTP around [`RelayService`]. The only room that names the web framework.

mod auth;
mod body;
mod callers;
mod connection;
mod document;
mod downlinks;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod guest;
mod handlers;
mod problem;
mod refusals;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    middleware::from_fn_with_state,
    routing::{get, post, put},
};
use tokio::sync::Semaphore;
use towpath_transfer::{Code, Failure, api::MAX_BODY_BYTES};

use crate::{admin::Metrics, service::RelayService};

pub use document::openapi_json;
pub use guest::Guest;

use callers::Callers;
use problem::Refusal;

/// What the web service grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebLimits {
    /// The largest body of a request, in bytes.
    pub body_bytes: usize,
    /// From the end of a request's head to its answer.
    pub request_time: Duration,
    /// Requests worked on at once; one more is told to come back. Long polls are counted apart.
    pub requests: usize,
    /// Long polls held at once; one more is told to come back.
    pub polls: usize,
    /// The same of all agents of one tenant together.
    pub polls_per_tenant: usize,
    /// Requests of one end worked on at once, and those whose body is awaited; one more is told to come back. Long polls have their own
    /// bound.
    pub requests_per_end: usize,
    /// The same of all ends of one tenant together.
    pub requests_per_tenant: usize,
    /// Connections of one end at once; one more is told to come back, and closed.
    pub connections_per_end: usize,
    /// The same of all ends of one tenant together.
    pub connections_per_tenant: usize,
    /// How long a request's head may take, and how long a connection may be silent between requests.
    pub head_time: Duration,
}

impl Default for WebLimits {
    fn default() -> Self {
        Self {
            body_bytes: MAX_BODY_BYTES,
            request_time: Duration::from_secs(30),
            requests: 256,
            polls: 1_500,
            polls_per_tenant: 1_000,
            requests_per_end: 32,
            requests_per_tenant: 128,
            connections_per_end: 32,
            connections_per_tenant: 1_500,
            head_time: Duration::from_secs(30),
        }
    }
}

#[derive(Clone)]
struct App {
    service: RelayService,
    limits: WebLimits,
    permits: Arc<Semaphore>,
    polls: Arc<Semaphore>,
    polls_of: Callers,
    requests_of: Callers,
    connections_of: Callers,
    metrics: Metrics,
}

/// The web service, ready for connections.
#[derive(Clone)]
pub struct WebService {
    app: App,
    router: Router,
}

impl std::fmt::Debug for WebService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebService").field("limits", &self.app.limits).finish_non_exhaustive()
    }
}

impl WebService {
    /// The web service over `service`.
    #[must_use]
    pub fn new(service: RelayService, limits: WebLimits, metrics: Metrics) -> Self {
        let places = |most: usize| Arc::new(Semaphore::new(most.max(1)));
        let app = App {
            service,
            limits,
            permits: places(limits.requests),
            polls: places(limits.polls),
            polls_of: Callers::new("long polls", limits.polls_per_tenant, limits.polls_per_tenant),
            requests_of: Callers::new("requests", limits.requests_per_end, limits.requests_per_tenant),
            connections_of: Callers::new("connections", limits.connections_per_end, limits.connections_per_tenant),
            metrics,
        };
        let router = Router::new()
            .route("/healthz", get(handlers::healthz))
            .route("/openapi.json", get(handlers::openapi))
            .route(guard::ENROLMENTS, post(handlers::enrol))
            .route("/v1/peers", get(handlers::peers))
            .route("/v1/keys", post(handlers::rotate_key))
            .route("/v1/releases", get(handlers::releases))
            .route("/v1/announcement", get(handlers::announcement))
            .route("/v1/expectations", put(handlers::expect))
            .route("/v1/uplinks/{transfer}", get(handlers::uplink))
            .route("/v1/uplinks/{transfer}/complete", post(handlers::complete))
            .route(guard::LONG_POLL, get(downlinks::downlinks))
            .route("/v1/downlinks/{transfer}/acknowledge", post(downlinks::acknowledge))
            .route("/v1/app/receipts", post(handlers::receipt))
            .route("/v1/app/exports", post(downlinks::export))
            .route("/v1/app/exports/{transfer}", get(downlinks::export_status))
            .fallback(|| async { Refusal::from(crate::scope::not_found()) })
            .method_not_allowed_fallback(|| async {
                let failure = Failure::park(Code::RequestInvalid, "this method does not exist here");
                Refusal::with_status(failure, StatusCode::METHOD_NOT_ALLOWED)
            })
            .layer(from_fn_with_state(app.clone(), guard::guard))
            .with_state(app.clone());
        Self { app, router }
    }
}
