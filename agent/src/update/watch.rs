//! A running agent looks for updates by itself, where its configuration says so: about once a day, in the maintenance window.

use std::{sync::Arc, time::Duration};

use jiff::{Timestamp, tz::TimeZone};
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Code, Entropy, failure::Result};

use super::{Ready, Updates};
use crate::{
    config::{UpdateConfig, UpdateMode},
    parts::Parts,
};

/// How often it is looked whether something is due.
pub const LOOK: Duration = Duration::from_secs(60);
/// How long after one look at the relay the next is due.
pub const CHECK_AGAIN: Duration = Duration::from_secs(24 * 3_600);
/// A look is later than it is due by up to this, so that many agents do not come at once; the first one after a start as well.
pub const MAX_JITTER: Duration = Duration::from_secs(3_600);
/// How long after a look that failed the next is due.
pub const TRY_AGAIN: Duration = Duration::from_secs(3_600);
/// How long after it was asked to apply an update root is asked again, where nothing has come of it: a transfer was open.
pub const ASK_AGAIN: Duration = Duration::from_secs(900);

/// What is due, by the monotonic clock.
struct Due {
    look: Duration,
    ask: Duration,
    ready: Option<Ready>,
    /// What root was last asked to apply, and when for the first time.
    asked: Option<(Ready, Timestamp)>,
}

/// Looks, fetches and asks for what is configured, until `stop` is cancelled. Nothing of it ever holds up the work.
pub async fn run(parts: Arc<Parts>, stop: CancellationToken) {
    let updates = Updates::of(Arc::clone(&parts));
    let look = parts.clock.monotonic().saturating_add(jitter(&*parts.entropy));
    let mut due = Due { look, ask: Duration::ZERO, ready: None, asked: None };
    while !stop.is_cancelled() {
        let config = parts.config.now().update.clone();
        if config.mode != UpdateMode::Off && is_open(&config, parts.clock.now(), &TimeZone::system()) {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = round(&parts, &updates, &config, &mut due) => {}
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = parts.clock.sleep(LOOK) => {}
        }
    }
}

/// Whether the window is open; without one it always is.
#[must_use]
pub fn is_open(config: &UpdateConfig, now: Timestamp, zone: &TimeZone) -> bool {
    config.window.as_ref().is_none_or(|window| window.covers(now, zone).is_some())
}

fn jitter(entropy: &dyn Entropy) -> Duration {
    let mut random = [0; 4];
    entropy.fill(&mut random);
    MAX_JITTER.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX))
}

async fn round(parts: &Parts, updates: &Updates, config: &UpdateConfig, due: &mut Due) {
    let now = parts.clock.monotonic();
    if now >= due.look {
        let pause = match updates.download(&|_, _, _| ()).await {
            Ok(ready) => {
                if let Some(ready) = ready.filter(|ready| due.ready != Some(*ready)) {
                    tracing::info!(version = %ready.version, installed = %ready.previous, "an update lies ready");
                }
                due.ready = ready;
                CHECK_AGAIN
            }
            Err(failure) => {
                tracing::warn!(code = %failure.code(), error = %failure.report(), "updates could not be looked for; it is tried again");
                due.ready = None;
                if failure.code() == Code::UpdateRefused { CHECK_AGAIN } else { TRY_AGAIN }
            }
        };
        due.look = now.saturating_add(pause).saturating_add(jitter(&*parts.entropy));
    }
    if config.mode == UpdateMode::Install
        && now >= due.ask
        && let Some(ready) = due.ready
    {
        due.ask = now.saturating_add(ASK_AGAIN);
        let since = due.asked.filter(|(asked, _)| *asked == ready).map_or_else(|| parts.clock.now(), |(_, since)| since);
        due.asked = Some((ready, since));
        if let Err(failure) = ask(updates, ready, since).await {
            tracing::warn!(code = %failure.code(), error = %failure.report(), "nobody could be asked to apply the update");
        }
    }
}

/// Asks for what is still to be done: what was applied meanwhile, or did not work, is not asked for again, and neither is what root has
/// refused for good since it was asked for first.
async fn ask(updates: &Updates, ready: Ready, since: Timestamp) -> Result<()> {
    let (installed, report) = updates.installed().await?;
    let refused = report.postponed.as_ref().is_some_and(|postponed| postponed.refused && postponed.at >= since);
    if refused || !super::is_open(ready.version, &installed, &report) {
        return Ok(());
    }
    // It may have been fetched long ago, and withdrawn since.
    if !updates.approved().await?.contains(&ready.version) {
        tracing::info!(version = %ready.version, "the update is not asked for: it is not approved any more");
        return Ok(());
    }
    updates.request(ready.version).await
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use towpath_transfer::clock::SeededEntropy;

    use super::*;
    use crate::{
        config::Config,
        update::{Postponed, Report, tests::Bench},
    };

    #[test]
    fn a_window_opens_and_closes_and_without_one_it_is_open() {
        let config = |text: &str| Config::parse(&format!("[update]\n{text}"), "agent.toml".as_ref()).unwrap().update;
        let night = config("mode = \"install\"\nwindow = \"02:00-04:00\"\n");
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let open = |config: &UpdateConfig, text: &str| is_open(config, at(text), &TimeZone::UTC);
        assert!(open(&night, "2026-07-01T02:00:00Z") && !open(&night, "2026-07-01T04:00:00Z"));
        assert!(open(&config("mode = \"download\"\n"), "2026-07-01T04:00:00Z"));
        assert_eq!(config("").mode, UpdateMode::Off);
    }

    #[test]
    fn no_look_is_later_than_it_may_be() {
        let all: Vec<Duration> = (0..50).map(|seed| jitter(&SeededEntropy::new(seed))).collect();
        assert!(all.iter().all(|jitter| *jitter <= MAX_JITTER) && all.iter().max() > all.iter().min());
    }

    /// What one round does, with what is due then.
    async fn rounds(bench: &Bench, mode: &str, due: &mut Due) {
        let config = Config::parse(&format!("[update]\nmode = \"{mode}\"\n"), "agent.toml".as_ref()).unwrap().update;
        round(&bench.world.parts, &bench.updates, &config, due).await;
    }

    /// Nothing was looked at, and nothing asked for.
    fn at_start() -> Due {
        Due { look: Duration::ZERO, ask: Duration::ZERO, ready: None, asked: None }
    }

    /// 0.1.0 is installed, and 0.2.0 offered.
    async fn with_newer() -> (Bench, Due) {
        let bench = Bench::new();
        bench.offer("0.1.0", b"old").await;
        bench.offer("0.2.0", b"new").await;
        (bench, at_start())
    }

    #[tokio::test]
    async fn it_looks_once_a_day_and_asks_until_it_is_done() {
        let (bench, mut due) = with_newer().await;
        rounds(&bench, "download", &mut due).await;
        let version = |ready: &Due| ready.ready.map(|ready| ready.version.to_string());
        assert_eq!(version(&due).as_deref(), Some("0.2.0"));
        assert!(!bench.is_requested() && due.look >= CHECK_AGAIN, "it waits for a person");

        // Nothing newer is seen before the day is over.
        bench.offer("0.3.0", b"newer").await;
        rounds(&bench, "install", &mut due).await;
        assert_eq!((version(&due).as_deref(), bench.requested().as_deref()), (Some("0.2.0"), Some("0.2.0")));
        bench.forget_request();
        rounds(&bench, "install", &mut due).await;
        assert!(!bench.is_requested(), "it was asked a moment ago");
        bench.world.clock.advance(ASK_AGAIN);
        rounds(&bench, "install", &mut due).await;
        assert!(bench.is_requested());
        bench.forget_request();
        bench.install("0.2.0");
        bench.world.clock.advance(ASK_AGAIN);
        rounds(&bench, "install", &mut due).await;
        assert!(!bench.is_requested(), "it is installed");
        bench.world.clock.advance(CHECK_AGAIN + MAX_JITTER);
        rounds(&bench, "install", &mut due).await;
        assert_eq!(bench.requested().as_deref(), Some("0.3.0"));
    }

    #[tokio::test]
    async fn what_was_withdrawn_since_it_was_fetched_is_not_asked_for_and_goes() {
        let (bench, mut due) = with_newer().await;
        rounds(&bench, "download", &mut due).await;
        assert!(due.ready.is_some() && bench.is_fetched("0.2.0"));
        bench.withdraw("0.2.0").await;
        rounds(&bench, "install", &mut due).await;
        assert!(!bench.is_requested());
        bench.world.clock.advance(CHECK_AGAIN + MAX_JITTER);
        rounds(&bench, "install", &mut due).await;
        assert!(!bench.is_requested() && !bench.is_fetched("0.2.0"), "root would find it");
    }

    #[tokio::test]
    async fn what_root_refuses_for_good_is_asked_for_once_and_what_waits_again_and_again() {
        let (bench, mut due) = with_newer().await;
        let mut again = async |refused: bool| {
            rounds(&bench, "install", &mut due).await;
            let asked = bench.is_requested();
            if asked {
                bench.forget_request();
                let at = bench.world.parts.clock.now();
                let postponed = Postponed { to: None, at, why: "it is not signed as it should be".into(), refused };
                bench.report(&Report { postponed: Some(postponed), ..Report::default() });
            }
            bench.world.clock.advance(ASK_AGAIN);
            asked
        };
        assert!(again(false).await && again(false).await, "a transfer was open");
        assert!(again(true).await, "what waited is asked for");
        assert!(!again(true).await && !again(true).await, "what was refused is not");
        // The next look finds the same; something newer is another matter.
        bench.world.clock.advance(CHECK_AGAIN + MAX_JITTER);
        assert!(!again(true).await);
        bench.offer("0.3.0", b"newer").await;
        bench.world.clock.advance(CHECK_AGAIN + MAX_JITTER);
        assert!(again(true).await && !again(true).await);
    }

    #[tokio::test]
    async fn a_look_that_fails_is_made_again_and_who_is_off_makes_none() {
        let (bench, mut due) = (Bench::new(), at_start());
        bench.offer("0.2.0", b"new").await;
        rounds(&bench, "install", &mut due).await;
        assert!(due.ready.is_none() && due.look >= CHECK_AGAIN, "there is nothing to go back to");

        let told = Mutex::new(0);
        let parts = Arc::new(bench.world.parts.clone());
        let stop = CancellationToken::new();
        let watch = run(Arc::clone(&parts), stop.clone());
        let time = async {
            for _ in 0..50 {
                bench.world.clock.advance(LOOK);
                tokio::task::yield_now().await;
                *told.lock().unwrap() += 1;
            }
            stop.cancel();
        };
        tokio::join!(watch, time);
        assert!(*told.lock().unwrap() == 50 && !bench.is_requested());
    }
}
