//! `run`: the service.

use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;
use towpath_host::program;
use towpath_journal::{LogObserver, WakeUp};
use towpath_transfer::{Code, failure::Result};

use super::quietly;
use crate::{
    control::{Listener, Running},
    downlink::poll,
    host::Host,
    parts::Parts,
    schedule,
    work::Worker,
};

pub(super) async fn run(host: &Host) -> Result<()> {
    let stop = program::stop_signal()?;
    quietly(host, async |open| {
        let wake = WakeUp::new();
        let parts = Arc::clone(&open.parts);
        let worker = Worker::start_alone(Arc::clone(&parts), wake.clone(), Arc::new(LogObserver)).await?;
        let (jobs, deliveries) = (parts.config.now().jobs.len(), parts.config.now().deliveries.len());
        tracing::info!(tenant = %parts.tenant, agent = %parts.agent, jobs, deliveries, state = %parts.layout.state().display(), "running");
        if let Some(skew) = open.relay.clock_skew() {
            tracing::warn!(code = %Code::ClockSkew, "the clock of this machine and the relay's differ by {skew:#}");
        }
        let running = Running { wake: wake.clone() };
        tokio::join!(
            hear(&open.parts, running, stop.clone()),
            schedule::run(Arc::clone(&parts), TimeZone::system(), wake.clone(), stop.clone()),
            poll::run(parts, wake, stop.clone()),
            open.follower.clone().run(stop),
        );
        tracing::info!("stopping; running stages finish first");
        worker.stop().await;
        Ok(())
    })
    .await
}

/// Answers the commands on this host. Without that the work goes on all the same.
async fn hear(parts: &Parts, running: Running, stop: CancellationToken) {
    match Listener::new(&parts.layout, Arc::clone(&parts.clock)) {
        Ok(listener) => listener.serve(Arc::new(running), stop).await,
        Err(failure) => {
            tracing::warn!(code = %failure.code(), "commands cannot ask this agent: {}", failure.report());
        }
    }
}
