//! `run`: the service.

use std::sync::Arc;

use jiff::tz::TimeZone;
use towpath_host::program;
use towpath_journal::{LogObserver, WakeUp};
use towpath_transfer::{Code, failure::Result};

use super::quietly;
use crate::{downlink::poll, host::Host, schedule, work::Worker};

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
        tokio::join!(
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
