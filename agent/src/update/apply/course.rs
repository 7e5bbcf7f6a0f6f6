//! The course of an update, step by step, each written down before it is begun.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use towpath_transfer::{Code, Failure, failure::Result, release::ReleaseVersion};

use super::{Applier, Health, InstallEnd, Open, Step, candidate, open::Side, runner};
use crate::{
    config::LoadedConfig,
    update::{Attempt, Outcome, Report},
};

/// How long a version may take to show that it works.
pub const HEALTH_LIMIT: Duration = Duration::from_secs(180);
/// How long it must have worked, in one process, until it is believed.
pub const SETTLED: Duration = Duration::from_secs(5);
/// How long it is waited until no transfer is open.
pub const HOLD_LIMIT: Duration = Duration::from_secs(600);
/// How long it is waited for another installer that holds the system's package database.
pub const LOCK_LIMIT: Duration = Duration::from_secs(600);
/// The pause before such a database is tried again.
const LOCK_PAUSE: Duration = Duration::from_secs(5);
/// How often a step is begun: where the host went down in it twice, something is wrong with it.
pub const MAX_TRIES: u32 = 2;
/// How often it is looked how the agent stands.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is asked whether a transfer is open.
const HOLD_AGAIN: Duration = Duration::from_secs(5);
/// The pause before going back is tried once more.
const REVERT_AGAIN: Duration = Duration::from_secs(10);

impl Applier {
    /// Goes on with the update that is under way, to its end; where none is, what is left of it is removed. When `stop` is cancelled a
    /// step that runs is ended first, and the next start goes on.
    ///
    /// # Errors
    /// As the disk reports; `already-running`. That an update does not work is no error, but its outcome.
    pub async fn go_on(&self, stop: &CancellationToken) -> Result<Option<Attempt>> {
        let another = || Failure::retry(Code::AlreadyRunning, "another process is at this update");
        let _alone = self.alone()?.ok_or_else(another)?;
        let mut ended = None;
        while let Some(open) = Open::read(self.kept())? {
            if stop.is_cancelled() {
                return Ok(None);
            }
            ended = self.step(open).await?;
        }
        candidate::keep_only(self.kept(), &self.wanted(ended.as_ref())?)?;
        runner::remove(&self.units, self.kept())?;
        self.means.forget().await;
        Ok(ended)
    }

    /// The versions whose packages stay: the one to go back to, and after a failure both.
    fn wanted(&self, ended: Option<&Attempt>) -> Result<Vec<ReleaseVersion>> {
        let kept = Report::read(self.kept())?.kept;
        let failed = ended.filter(|attempt| attempt.outcome == Outcome::Failed).map(|attempt| attempt.to);
        Ok(kept.into_iter().chain(failed).collect())
    }

    /// Does the step that is written down, and writes down the next. Some where the update is over.
    async fn step(&self, open: Open) -> Result<Option<Attempt>> {
        match open.step {
            Step::Prepared => match self.may_begin(&open).await {
                Ok(()) => self.at(open, Step::Installing, "").map(|()| None),
                Err(why) => {
                    tracing::info!(version = %open.to.version, "the update waits: {why}");
                    self.postpone(Some(open.to.version), &why)?;
                    Open::close(self.kept())?;
                    Ok(None)
                }
            },
            Step::Installing if open.tries >= MAX_TRIES => {
                let why = format!("the host went down {MAX_TRIES} times while it was installed");
                self.at(open, Step::Reverting, &why).map(|()| None)
            }
            Step::Installing => {
                let open = self.begun(open)?;
                tracing::info!(from = %open.from.version, to = %open.to.version, "installing");
                match self.install(&open, &open.to).await {
                    Ok(InstallEnd::Done) => self.at(open, Step::Installed, ""),
                    Ok(InstallEnd::Busy) => self.wait_for_installer(open).await,
                    Err(failure) => self.at(open, Step::Reverting, &failure.report()),
                }
                .map(|()| None)
            }
            Step::Installed => match self.works(&open.to).await {
                Ok(()) => self.over(&open, Outcome::Installed, String::new()).await.map(Some),
                Err(why) => self.at(open, Step::Reverting, &why).map(|()| None),
            },
            Step::Reverting => {
                let open = self.begun(open)?;
                tracing::error!(code = %Code::UpdateRolledBack, from = %open.to.version, to = %open.from.version, "going back: {}", open.why);
                match self.revert(&open).await {
                    Ok(InstallEnd::Done) => self.over(&open, Outcome::RolledBack, open.why.clone()).await.map(Some),
                    Ok(InstallEnd::Busy) => self.not_begun(open).map(|()| None),
                    Err(why) if open.tries < MAX_TRIES => {
                        tracing::error!("going back did not work, and is tried once more: {why}");
                        self.clock.sleep(REVERT_AGAIN).await;
                        Ok(None)
                    }
                    Err(why) => self.over(&open, Outcome::Failed, format!("{}; then: {why}", open.why)).await.map(Some),
                }
            }
        }
    }

    /// Installs a side of the update once no other installer is at work, which is waited for.
    async fn install(&self, open: &Open, side: &Side) -> Result<InstallEnd> {
        let until = self.clock.monotonic().saturating_add(LOCK_LIMIT);
        loop {
            let end = self.means.install(open.kind, &side.path(self.kept())).await?;
            if end == InstallEnd::Done || self.clock.monotonic() >= until {
                return Ok(end);
            }
            tracing::info!("another installer is at work; it is waited for");
            self.clock.sleep(LOCK_PAUSE).await;
        }
    }

    /// Writes down that the present step is begun once more.
    fn begun(&self, open: Open) -> Result<Open> {
        let open = Open { tries: open.tries.saturating_add(1), ..open };
        open.write(self.kept())?;
        Ok(open)
    }

    /// Writes down that the present step could not be begun; it is begun again.
    fn not_begun(&self, open: Open) -> Result<()> {
        tracing::warn!("another installer is still at work, and the update is not given up for that");
        Open { tries: open.tries.saturating_sub(1), ..open }.write(self.kept())
    }

    /// Another installer is at work, and does not end. Where nothing was changed so far, the update is begun another time; where the host
    /// went down while something was, it cannot stay like that.
    async fn wait_for_installer(&self, open: Open) -> Result<()> {
        if open.tries > 1 {
            return self.not_begun(open);
        }
        let version = open.to.version;
        tracing::warn!(%version, "another installer is at work; the update waits");
        self.postpone(Some(version), "another installer is at work on this host")?;
        Open::close(self.kept())?;
        self.means.release().await;
        Ok(())
    }

    /// Writes down which step comes next.
    fn at(&self, open: Open, step: Step, why: &str) -> Result<()> {
        Open { step, tries: 0, why: why.to_owned(), ..open }.write(self.kept())
    }

    /// Whether nothing keeps it from beginning; else what does.
    async fn may_begin(&self, open: &Open) -> Result<(), String> {
        if !open.by_hand {
            let config = LoadedConfig::read(&open.config_file).map_err(|failure| failure.report())?.config.update;
            let site = super::Site {
                layout: crate::layout::Layout::new(&open.state),
                config_file: open.config_file.clone(),
                config,
                by_hand: false,
            };
            if !self.is_allowed(&site) {
                return Err("the configuration does not allow it now".to_owned());
            }
        }
        let until = self.clock.monotonic().saturating_add(HOLD_LIMIT);
        loop {
            match self.means.hold().await {
                Ok(0) => return Ok(()),
                Ok(number) if self.clock.monotonic() >= until => return Err(format!("{number} transfers are open")),
                Ok(_) => self.clock.sleep(HOLD_AGAIN).await,
                Err(failure) => return Err(format!("the agent that runs cannot be asked: {}", failure.report())),
            }
        }
    }

    /// Waits until the agent works as this version; else why it does not.
    async fn works(&self, side: &Side) -> Result<(), String> {
        let until = self.clock.monotonic().saturating_add(HEALTH_LIMIT);
        let mut since: Option<(u32, Duration)> = None;
        loop {
            let (health, now) = (self.means.health().await, self.clock.monotonic());
            let why = match health {
                Health::Runs { version, process } if version == side.version => match since {
                    Some((before, from)) if before == process && now.saturating_sub(from) >= SETTLED => return Ok(()),
                    Some((before, _)) if before == process => None,
                    Some(_) => return Err(format!("version {version} was started anew by itself")),
                    None => {
                        since = Some((process, now));
                        None
                    }
                },
                Health::Runs { version, .. } => Some(format!("the agent answers as version {version}")),
                Health::Broken(why) => return Err(format!("version {} does not work: {why}", side.version)),
                Health::NotYet(why) => Some(why),
            };
            if now >= until {
                let (version, seconds) = (side.version, HEALTH_LIMIT.as_secs());
                return Err(format!("version {version} did not work within {seconds} s: {}", why.unwrap_or_default()));
            }
            self.clock.sleep(LOOK).await;
        }
    }

    async fn revert(&self, open: &Open) -> Result<InstallEnd, String> {
        if self.install(open, &open.from).await.map_err(|failure| failure.report())? == InstallEnd::Busy {
            return Ok(InstallEnd::Busy);
        }
        // The installer starts what ran; what had ended it does not.
        if !matches!(self.means.health().await, Health::Runs { .. }) {
            self.means.restart().await.map_err(|failure| failure.report())?;
        }
        self.works(&open.from).await.map(|()| InstallEnd::Done)
    }

    /// Writes down how it has ended.
    async fn over(&self, open: &Open, outcome: Outcome, why: String) -> Result<Attempt> {
        let attempt = Attempt { from: open.from.version, to: open.to.version, at: self.clock.now(), outcome, why };
        let mut report = Report::read(self.kept())?;
        report.kept = Some(if outcome == Outcome::Installed { open.to.version } else { open.from.version });
        report.note(attempt.clone());
        self.tell(&report)?;
        Open::close(self.kept())?;
        self.means.release().await;
        match outcome {
            Outcome::Installed => tracing::info!(from = %attempt.from, to = %attempt.to, "updated"),
            Outcome::RolledBack => {
                tracing::error!(code = %Code::UpdateRolledBack, from = %attempt.from, to = %attempt.to, why = attempt.why, "undone");
            }
            Outcome::Failed => {
                tracing::error!(code = %Code::UpdateFailed, from = %attempt.from, to = %attempt.to, why = attempt.why, "neither version works");
            }
        }
        Ok(attempt)
    }
}
