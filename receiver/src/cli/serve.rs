//! `serve`

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use towpath_transfer::{Code, Failure};

use super::args::ServeArgs;
use crate::host::Host;

/// From the signal to the end of the program.
const SHUTDOWN: Duration = Duration::from_secs(30);

pub(super) async fn serve(host: &Host, args: &ServeArgs) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    let stop = stop_signal()?;
    let serving = host.serve(args.listen.map(|address| address.to_string()), shutdown.clone());
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        done = &mut serving => return done,
        () = stop => tracing::info!("stopping"),
    }
    shutdown.cancel();
    // What does not end in time is in the same place as after a power cut, from which the next start goes on.
    tokio::time::timeout(SHUTDOWN, serving).await.unwrap_or_else(|_| {
        Err(Failure::park(Code::Cancelled, format!("something did not stop within {} s and was cut off", SHUTDOWN.as_secs())))
    })
}

/// Completes when the system asks the program to stop.
#[cfg(unix)]
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e| Failure::park(Code::Internal, "listening for signals failed").caused_by(e);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Completes when the system asks the program to stop.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "on other systems it can fail")]
fn stop_signal() -> Result<impl Future<Output = ()>, Failure> {
    Ok(async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "listening for ctrl-c failed");
            std::future::pending::<()>().await;
        }
    })
}
