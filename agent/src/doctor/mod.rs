//! `doctor`: what keeps this host from its work, in the order in which a person mends it.
//!
//! Each check is by itself and has a limit of time: one that fails or hangs hides no other, and one that builds on another is
//! skipped with the reason. Nothing is changed. What depends on the account (sources, secrets, folders) is looked at by the running
//! service itself where there is one, and otherwise by this process, which then says as which user.

mod check;
mod local;
mod network;
mod remedy;
mod runs;
mod site;
mod user;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::StreamExt as _;
use serde::Serialize;
use towpath_transfer::{Code, Failure, failure::Result};

use self::{check::Subject, site::Site};
pub use self::{
    check::{Check, MAX_TEXT_CHARS, Outcome},
    local::{DISK_TIMEOUT, LAST_TRANSFERS, MIN_FREE_BYTES, SPACE_FACTOR},
    network::WAY_TIMEOUT,
    site::{FOLDER_TIMEOUT, SITE_TIMEOUT, SOURCE_TIMEOUT},
};
use crate::{
    control::{self, Answer, Request},
    host::Host,
    parts::Parts,
};

/// The most checks that the service answers with; what is beyond them is not told.
const MAX_SERVICE_CHECKS: usize = 400;

/// What is asked of the doctor.
#[derive(Debug)]
pub struct Visit<'a> {
    /// The state folder, with the configuration or, where that cannot be read, the defaults.
    pub host: &'a Host,
    /// Why the configuration cannot be read.
    pub unreadable: Option<&'a Failure>,
    /// Whether the network and the ERP are left alone.
    pub offline: bool,
}

/// Everything that was checked.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether nothing failed.
    pub ok: bool,
    /// Checks without a word of reproach.
    pub passed: usize,
    /// Checks that a person should know of.
    pub warnings: usize,
    /// Checks that failed.
    pub failed: usize,
    /// Checks that could not be made.
    pub skipped: usize,
    /// Each, in order.
    pub checks: Vec<Check>,
}

impl Report {
    fn add(&mut self, check: Check) {
        match check.outcome {
            Outcome::Ok => self.passed += 1,
            Outcome::Warning => self.warnings += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Skipped => self.skipped += 1,
        }
        self.checks.push(check);
        self.ok = self.failed == 0;
    }

    /// `check-failed` where something did.
    ///
    /// # Errors
    /// That.
    pub fn outcome(&self) -> Result<()> {
        if self.ok {
            return Ok(());
        }
        let all = self.checks.len();
        Err(Failure::park(
            Code::CheckFailed,
            format!("{} of {all} checks failed; mend the first, then run doctor again", self.failed),
        ))
    }
}

/// Checks collected, and told as they come.
struct Told<'t> {
    report: Report,
    tell: &'t mut (dyn FnMut(&Check) -> Result<()> + Send),
}

impl Told<'_> {
    fn add(&mut self, check: Check) -> Result<()> {
        (self.tell)(&check)?;
        self.report.add(check);
        Ok(())
    }
}

/// Makes every check, and tells each as soon as it is made.
///
/// # Errors
/// Those of `tell`.
pub async fn examine(visit: &Visit<'_>, tell: &mut (dyn FnMut(&Check) -> Result<()> + Send)) -> Result<Report> {
    let mut told = Told { report: Report::default(), tell };
    let state = local::checks(visit, &mut told).await?;
    if visit.offline {
        let subject = Subject::new("network", "network", "reaching the relay by each way");
        told.add(subject.skipped("left out, because of --offline"))?;
    } else {
        network::checks(visit.host, &state, &mut told).await?;
    }
    account(visit, &mut told).await?;
    runs::checks(visit.host, &state, &mut told).await?;
    Ok(told.report)
}

/// What depends on the account.
async fn account(visit: &Visit<'_>, told: &mut Told<'_>) -> Result<()> {
    let host = visit.host;
    let config = host.settings();
    let subject = Subject::new("service", "service", "asking the agent that runs on the state folder");
    if visit.offline {
        // Also a service that is asked would open the sources.
        told.add(subject.skipped("left out, because of --offline"))?;
        for job in &config.jobs {
            let subject = Subject::new(format!("source:{}", job.name), format!("source of job {}", job.name), "opening it");
            told.add(subject.skipped("left out, because of --offline"))?;
        }
        return Ok(());
    }
    let site = Site { config: Arc::new(config.clone()), files: Arc::clone(&host.files), clock: Arc::clone(host.clock()) };
    let answer = control::ask(&host.layout, &**host.clock(), &Request::Doctor).await;
    match answer {
        Ok(Answer::Checked { user, configuration, checks }) => {
            let same = configuration == site::digest(config);
            told.add(if same || visit.unreadable.is_some() {
                subject.ok(format!("it runs as {user}, and has made the following checks itself"))
            } else {
                let found = format!("it runs as {user}, with another configuration than the file has now");
                subject.warning(None, found, "let it take up the file: towpath-agent reload, or restart the service")
            })?;
            for check in checks {
                told.add(check)?;
            }
            return Ok(());
        }
        Ok(other) => told.add(subject.wrong(Code::Internal, format!("it answers {other:?}"), remedy::of(Code::Internal)))?,
        Err(failure) if failure.code() == Code::NotRunning => {
            let found = format!(
                "none runs, so that nothing is sent by schedule; the following was checked as {}, who may have other rights than the \
                 service",
                user::present()
            );
            told.add(subject.warning(Some(Code::NotRunning), found, remedy::of(Code::NotRunning)))?;
        }
        Err(failure) => told.add(subject.failed(&failure))?,
    }
    let mut checks = std::pin::pin!(site.checks());
    while let Some(check) = checks.next().await {
        told.add(check)?;
    }
    Ok(())
}

/// What the running service answers: what it can do, with the configuration that it works with.
pub(crate) async fn by_service(parts: &Parts) -> Answer {
    let config = parts.config.now();
    let configuration = site::digest(&config);
    let site = Site { config, files: Arc::clone(&parts.files), clock: Arc::clone(&parts.clock) };
    let checks = site.checks().take(MAX_SERVICE_CHECKS).collect().await;
    Answer::Checked { user: user::present(), configuration, checks }
}
