//! HTTP on a stream that somebody else has accepted.

use hyper::{
    Request,
    body::Incoming,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{
    WebService,
    guest::{Farewell, Guest},
};

/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 32;
/// The largest head of a request, in bytes.
const HEAD_BYTES: usize = 32 * 1024;

impl WebService {
    /// Serves one connection of `guest`, HTTP/1.1 or HTTP/2, to its end. When `shutdown` is cancelled the running requests are
    /// finished and no further ones taken. Where nobody proves who they are, it ends with the login's grace time, or when a newer
    /// connection needs its place.
    pub async fn serve<S>(&self, stream: S, guest: Guest, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        let head_time = self.app.limits.head_time;
        builder.http1().timer(TokioTimer::new()).header_read_timeout(head_time).max_buf_size(HEAD_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(u32::try_from(HEAD_BYTES).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(head_time))
            .keep_alive_timeout(head_time);
        let router = TowerToHyperService::new(self.router.clone());
        let host = guest.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let running = match host.runs() {
                Ok(running) => Some(running),
                Err(away) => {
                    request.extensions_mut().insert(away);
                    None
                }
            };
            request.extensions_mut().insert(host.clone());
            let answering = router.call(request);
            async move {
                let answer = answering.await;
                drop(running);
                answer
            }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let clock = &**self.app.service.clock();
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            farewell = guest.farewell() => {
                if farewell == Farewell::Cut {
                    tracing::debug!(peer = %guest.address(), "a connection was cut on which nobody had proven who they are");
                    return;
                }
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    // Whoever does not take the answer must not stay for it.
                    () = guest.outstays(clock, self.app.limits.request_time) => return,
                    () = async { shutdown.cancelled().await; guest.rests(clock).await } => return,
                }
            }
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    // Over HTTP/2 it is the peer who says that it has heard.
                    () = guest.rests(clock) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an HTTP connection broke");
        }
    }
}
