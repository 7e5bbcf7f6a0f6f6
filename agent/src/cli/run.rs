//! `run`: the service.

use std::{sync::Arc, time::Duration};

use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;
use towpath_host::{
    Notifier,
    program::{self, Hangups},
};
use towpath_journal::{Observer, WakeUp};
use towpath_transfer::{Code, failure::Result};

use super::quietly;
use crate::{
    alert,
    control::{Listener, Running},
    downlink::poll,
    host::{Host, OpenHost},
    parts::Parts,
    pause::work_unless_paused,
    reload::Reloader,
    schedule,
    service::watch::Watch,
    update,
    work::Worker,
};

/// How long the start waits for a change of the key that was begun before.
const KEY_LIMIT: Duration = Duration::from_secs(10);
/// How long stopping may take in all. Steps that run have the drivers' 20 s to finish and 5 s more to give their leases back;
/// whatever has not ended then is left as a crash would leave it, which the next start makes good.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn run(host: &Host) -> Result<()> {
    run_until(host, program::stop_signal()?, &|| ()).await
}

/// Works until `stop` is cancelled; `ready` is called once it does.
pub(super) async fn run_until(host: &Host, stop: CancellationToken, ready: &dyn Fn()) -> Result<()> {
    let hangups = Hangups::listen()?;
    quietly(host, async |open| serve(host, open, hangups, stop, ready).await).await
}

/// Works until `stop` is cancelled.
async fn serve(host: &Host, open: &OpenHost, hangups: Hangups, stop: CancellationToken, ready: &dyn Fn()) -> Result<()> {
    let (notifier, zone) = (Notifier::from_environment(), TimeZone::system());
    let parts = Arc::clone(&open.parts);
    let wake = WakeUp::new();
    let watch = Arc::new(Watch::new(Arc::clone(&parts.clock)));
    end_key_change(open, &parts).await;
    let worker = Worker::start_alone(Arc::clone(&parts), wake.clone(), Arc::clone(&watch) as Arc<dyn Observer>).await?;
    let (jobs, deliveries) = (parts.config.now().jobs.len(), parts.config.now().deliveries.len());
    tracing::info!(tenant = %parts.tenant, agent = %parts.agent, jobs, deliveries, state = %parts.layout.state().display(), "running");
    if let Some(skew) = open.relay.clock_skew() {
        tracing::warn!(code = %Code::ClockSkew, "the clock of this machine and the relay's differ by {skew:#}");
    }
    let reloader = Reloader::new(host.config.file.clone(), parts.config.clone(), wake.clone());
    let running = Running {
        parts: Arc::clone(&parts),
        wake: wake.clone(),
        reloader: reloader.clone(),
        rotator: open.rotator.clone(),
        version: update::Standing::look().version(),
    };
    notifier.ready();
    ready();
    let work = async {
        tokio::join!(
            hear(&parts, running, stop.clone()),
            reload_on_hangup(&reloader, hangups, &notifier, &stop),
            work_unless_paused(&parts, worker, &stop, async |open_until| {
                tokio::join!(
                    schedule::run(Arc::clone(&parts), wake.clone(), watch.heart("schedule"), open_until.clone()),
                    poll::run(Arc::clone(&parts), wake.clone(), watch.heart("poll"), open_until.clone()),
                    Box::pin(update::watch::run(Arc::clone(&parts), open_until.clone())),
                    open.follower.clone().run(open_until),
                );
            }),
            alert::run(Arc::clone(&parts), stop.clone()),
            open.rotator.finish(stop.clone()),
            async {
                stop.cancelled().await;
                notifier.stopping();
                tracing::info!("stopping; running stages finish first");
            },
        );
    };
    let too_long = async {
        stop.cancelled().await;
        parts.clock.sleep(STOP_LIMIT).await;
    };
    tokio::select! {
        biased;
        () = work => {}
        () = too_long => tracing::warn!("not everything has stopped within {} s; the next start goes on with it", STOP_LIMIT.as_secs()),
        () = watch.tell(&parts, &zone, &notifier) => {}
    }
    Ok(())
}

/// Before anything logs in: the old key may have been retired since the change was begun. An agent whose relay is away works all the
/// same.
async fn end_key_change(open: &OpenHost, parts: &Parts) {
    tokio::select! {
        _ = open.rotator.finish_or_warn() => {}
        () = parts.clock.sleep(KEY_LIMIT) => {}
    }
}

/// Reads the configuration again whenever the service manager asks for it.
async fn reload_on_hangup(reloader: &Reloader, mut hangups: Hangups, notifier: &Notifier, stop: &CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = hangups.next() => {}
        }
        notifier.reloading();
        // What came of it is logged.
        let _ = reloader.reload().await;
        notifier.ready();
    }
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
