//! `serve`

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use towpath_journal::FailPoints;
use towpath_transfer::{Code, Failure, failure::Result};

use super::args::ServeArgs;
use crate::host::Host;

pub(super) async fn serve(host: Host, _: ServeArgs) -> Result<()> {
    let shutdown = CancellationToken::new();
    let stop = signals(shutdown.clone())?;
    let served = host.serve(fail_points()?, shutdown, |_| {}).await;
    stop.abort();
    served
}

#[cfg(feature = "failpoints")]
fn fail_points() -> Result<Arc<dyn FailPoints>> {
    towpath_journal::failpoints::from_environment(towpath_transfer::state::Place::Relay)
}

#[cfg(not(feature = "failpoints"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
fn fail_points() -> Result<Arc<dyn FailPoints>> {
    Ok(Arc::new(towpath_journal::NoFailPoints))
}

/// Cancels `shutdown` at the first SIGTERM or ctrl-c; a second one ends the process as it always does.
#[cfg(unix)]
fn signals(shutdown: CancellationToken) -> Result<tokio::task::JoinHandle<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let watch = |kind| signal(kind).map_err(|e| Failure::park(Code::Internal, "watch for signals").caused_by(e));
    let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        shutdown.cancel();
    }))
}

#[cfg(not(unix))]
fn signals(shutdown: CancellationToken) -> Result<tokio::task::JoinHandle<()>> {
    Ok(tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            shutdown.cancel();
        }
    }))
}
