//! `/readyz` and `/metrics`: two fixed answers over plain HTTP/1.1.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use towpath_journal::Journal;
use towpath_transfer::{Clock, Failure, failure::Result};

use super::Metrics;
use crate::{
    registry::Registry,
    spool::{Spool, blocking},
};

/// Connections served at once.
const CONNECTIONS: usize = 32;
/// How long a request's head may take, and a connection be silent.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a whole connection may last.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// The operator's address.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Asked for readiness and counts.
    pub journal: Arc<dyn Journal>,
    /// Asked for readiness.
    pub registry: Registry,
    /// Asked for readiness and bytes.
    pub spool: Arc<Spool>,
    /// Shown.
    pub metrics: Metrics,
    /// Bounds every connection.
    pub clock: Arc<dyn Clock>,
}

impl Admin {
    /// Serves until `shutdown` is cancelled.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let (stream, place) = match (accepted, Arc::clone(&places).try_acquire_owned()) {
                (Ok((stream, _)), Ok(place)) => (stream, place),
                // A full table hangs up; an error of accepting passes or shows again at once.
                (Ok(_), Err(_)) => continue,
                (Err(error), _) => {
                    tracing::warn!(%error, "accepting a connection on the admin address failed");
                    self.clock.sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (admin, shutdown) = (self.clone(), shutdown.clone());
            tokio::spawn(async move {
                let _place = place;
                let asked = admin.clone();
                let service = service_fn(move |request| {
                    let admin = asked.clone();
                    async move { Ok::<_, Infallible>(admin.answer(&request).await) }
                });
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = connection => {}
                    () = admin.clock.sleep(CONNECTION_TIME) => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<String> {
        let (status, kind, body) = match request.uri().path() {
            "/healthz" => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            "/readyz" => match self.ready().await {
                Ok(()) => (StatusCode::OK, "text/plain", "ready\n".to_owned()),
                Err(failure) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{}\n", failure.report())),
            },
            "/metrics" => match self.figures().await {
                Ok(text) => (StatusCode::OK, "text/plain; version=0.0.4", text),
                Err(failure) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{}\n", failure.report())),
            },
            _ => (StatusCode::NOT_FOUND, "text/plain", "not found\n".to_owned()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
        response
    }

    /// Journal and registry answer, and the spool can be written to.
    async fn ready(&self) -> Result<()> {
        self.journal.health().await.map_err(Failure::from)?;
        self.registry.health().await?;
        let spool = Arc::clone(&self.spool);
        blocking(move || spool.health()).await?
    }

    async fn figures(&self) -> Result<String> {
        let counts = self.journal.counts().await.map_err(Failure::from)?;
        self.metrics.text(&counts, &self.spool.quota().figures())
    }
}
