//! Who is told of what is wrong, here and at the relay.

mod expect;
mod look;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use towpath_alert::{Alert, Desk, DeskParts, Kind, Means as _, SystemMeans, Told, Trouble, Way};
use towpath_transfer::{Clock, Code, failure::Result};

use crate::{
    config::{MAX_JOBS, SharedConfig},
    parts::Parts,
};

pub use expect::{EXPECT_AGAIN, LONGEST_PAUSE, expectations};
pub use look::{REPLAN_GRACE, findings};

/// How often it is looked whether something is wrong.
pub const LOOK: Duration = Duration::from_secs(5);

/// The desk of this agent. Blocking.
#[must_use]
pub fn desk(parts: &Parts) -> Desk {
    Desk::open(DeskParts {
        files: Arc::clone(&parts.files),
        path: parts.layout.alerts(),
        means: Arc::new(means(parts.config.clone(), Arc::clone(&parts.clock))),
        clock: Arc::clone(&parts.clock),
        entropy: Arc::clone(&parts.entropy),
        // Every job, the return files, and the update.
        most: MAX_JOBS + 2,
    })
}

fn means(config: SharedConfig, clock: Arc<dyn Clock>) -> SystemMeans {
    let settings = move || {
        let now = config.now();
        (now.alert.clone(), now.network.proxy.clone())
    };
    SystemMeans::new(settings, clock)
}

/// Watches, tells, and lets the relay know what to expect, until `shutdown` is cancelled. Nothing of it ever holds up the work.
pub async fn run(parts: Arc<Parts>, shutdown: CancellationToken) {
    let opened = Arc::clone(&parts);
    let desk = match tokio::task::spawn_blocking(move || desk(&opened)).await {
        Ok(desk) => desk,
        Err(error) => {
            tracing::error!(code = %Code::Internal, %error, "nothing is alerted of");
            return;
        }
    };
    let work = async { tokio::join!(watch(&parts, &desk), expect::run(&parts), desk.run(shutdown.clone())) };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        _ = work => {}
    }
}

async fn watch(parts: &Parts, desk: &Desk) {
    loop {
        match findings(parts, &desk.open_alerts()).await {
            Ok(found) => desk.look(found).await,
            Err(failure) => {
                tracing::warn!(code = %failure.code(), error = %failure.report(), "it could not be looked whether something is wrong");
            }
        }
        parts.clock.sleep(LOOK).await;
    }
}

/// What came of a try.
pub type Tried = (Way, Result<Told>);

/// Tells a test each way, now, by the configuration that is in force.
pub async fn test(config: SharedConfig, clock: Arc<dyn Clock>, trouble: &Trouble, id: &str) -> Vec<Tried> {
    let alert: Alert = trouble.alert(Kind::Test);
    let means = means(config, clock);
    let mut tried = Vec::new();
    for way in Way::ALL {
        tried.push((way, means.tell(way, id, &alert).await));
    }
    tried
}
