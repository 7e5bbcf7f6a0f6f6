//! What depends on the account: sources, secrets, and folders. The running service looks at these by itself.

use std::{path::Path, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use towpath_alert::AlertConfig;
use towpath_host::counted;
use towpath_transfer::{Clock, Code, Failure, digest::Sha256Digest, failure::Result};
use towpath_transport::files::{FileKind, FileStore, file_failure};

use super::{
    check::{Check, Subject},
    user,
};
use crate::{
    blocking::blocking,
    config::{ActionConfig, Config, DEFAULT_ARCHIVE, DeliveryConfig, JobConfig, SourceConfig},
    extract::{SourceCheck, check_source},
    planning::{self, Contract},
};

/// How long one job's source may take.
pub const SOURCE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one folder may take.
pub const FOLDER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long everything that depends on the account may take together; what has not begun then is left out.
pub const SITE_TIMEOUT: Duration = Duration::from_secs(150);
/// How many sources and folders are looked at beside each other.
const AT_ONCE: usize = 4;
/// The most tables that are named as unreadable; the others are counted.
const MAX_NAMED: usize = 5;

/// Where checks are made: a configuration, and the files and the account it is used with.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) config: Arc<Config>,
    pub(crate) files: Arc<dyn FileStore>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Stands for a configuration, so that two processes can compare theirs.
pub(crate) fn digest(config: &Config) -> Sha256Digest {
    Sha256Digest::of(format!("{config:?}").as_bytes())
}

impl Site {
    /// Every check in order, by the user that this process is.
    pub(crate) fn checks(&self) -> impl Stream<Item = Check> + '_ {
        let until = self.clock.monotonic().saturating_add(SITE_TIMEOUT);
        let user = user::present();
        let jobs = stream::iter(&self.config.jobs).map(move |job| self.job(job, until)).buffered(AT_ONCE);
        let deliveries = stream::iter(&self.config.deliveries)
            .map(move |delivery| async move { vec![self.delivery(delivery, until).await] })
            .buffered(AT_ONCE);
        let named = move |check: Check| Check { user: Some(user.clone()), ..check };
        let alert = stream::iter([()]).then(move |()| async move { self.alert(until).await.into_iter().collect() });
        jobs.chain(deliveries).chain(alert).flat_map(stream::iter).map(named)
    }

    /// As much of `limit` as is left of the whole.
    fn left(&self, until: Duration, limit: Duration) -> Option<Duration> {
        let left = until.saturating_sub(self.clock.monotonic()).min(limit);
        (left > Duration::ZERO).then_some(left)
    }

    async fn job(&self, job: &JobConfig, until: Duration) -> Vec<Check> {
        let name = &job.name;
        let source = Subject::new(format!("source:{name}"), format!("source of job {name}"), describe(&job.source));
        let queries = format!("preparing {} without running", counted(job.tables.len(), "query", "queries"));
        let tables = Subject::new(format!("tables:{name}"), format!("tables of job {name}"), queries);
        let contract = job.profile.as_ref().map(|profile| {
            let tried = format!("comparing what the profile {profile} gives with the planning data contract");
            Subject::new(format!("contract:{name}"), format!("planning data of job {name}"), tried)
        });
        let Some(limit) = self.left(until, SOURCE_TIMEOUT) else { return vec![source.skipped(NO_TIME)] };
        let cancel = CancellationToken::new();
        // Also a query that is given up must not go on at the database.
        let _guard = cancel.clone().drop_guard();
        let opened = tokio::select! {
            opened = check_source(job, &self.files, Arc::clone(&self.clock), &cancel) => opened,
            () = self.clock.sleep(limit) => {
                let late = format!("the source has not answered within {} seconds", limit.as_secs());
                Err(Failure::retry(Code::ErpMissing, late))
            }
        };
        let mut checks = match &opened {
            // A job of files waits most of the day, which is no fault.
            Err(failure) if self.awaits_files(job, failure).await => {
                vec![source.ok(super::check::said(failure)), tables.skipped("there is no file to look into yet")]
            }
            Err(failure) => {
                let mut checks = vec![unopened(source, &job.source, failure), tables.skipped(CLOSED)];
                checks.extend(contract.map(|contract| contract.skipped(CLOSED)));
                checks
            }
            Ok(found) => {
                let mut checks = vec![of_source(source, found), of_tables(tables, found)];
                checks.extend(contract.map(|contract| of_contract(contract, found)));
                checks
            }
        };
        if let SourceConfig::Files(files) = &job.source {
            let archive = files.archive.clone().unwrap_or_else(|| files.folder.join(DEFAULT_ARCHIVE));
            checks.push(self.archive(job, &files.folder, &archive, until).await);
        }
        checks
    }

    /// Whether nothing is wrong with a job but that its files are not there yet.
    async fn awaits_files(&self, job: &JobConfig, failure: &Failure) -> bool {
        let SourceConfig::Files(config) = &job.source else { return false };
        let (files, folder) = (Arc::clone(&self.files), config.folder.clone());
        failure.code() == Code::ErpMissing
            && blocking(move || files.list(&folder, None, 1).map_err(|error| file_failure("listing", &folder, error)))
                .await
                .is_ok()
    }

    async fn archive(&self, job: &JobConfig, folder: &Path, archive: &Path, until: Duration) -> Check {
        let tried = format!("writing to {} and {}, and removing it again", folder.display(), archive.display());
        let subject = Subject::new(format!("archive:{}", job.name), format!("files of job {}", job.name), tried);
        let (files, folder, archive) = (Arc::clone(&self.files), folder.to_owned(), archive.to_owned());
        self.in_time(subject, until, async move |subject| {
            let done = blocking(move || {
                writable(&*files, &folder)?;
                // One that is missing is made when the first file goes there.
                if files.stat(&archive).is_ok() { writable(&*files, &archive) } else { Ok(()) }
            });
            match done.await {
                Ok(()) => subject.ok("what was imported can be put away"),
                Err(failure) => {
                    let remedy = "make the folder, and let the agent's user write to it: imported files are moved to the archive";
                    subject.wrong(Code::FileFailed, super::check::said(&failure), unwritable(&failure, remedy))
                }
            }
        })
        .await
    }

    async fn delivery(&self, delivery: &DeliveryConfig, until: Duration) -> Check {
        let of = delivery.job.as_ref().map(|job| format!("/{job}")).unwrap_or_default();
        let tried = format!("writing to {}, and removing it again", delivery.folder.display());
        let subject =
            Subject::new(format!("delivery:{}{of}", delivery.kind), format!("delivery folder of {}{of}", delivery.kind), tried);
        let (files, delivery) = (Arc::clone(&self.files), delivery.clone());
        self.in_time(subject, until, async move |subject| {
            let folder = delivery.folder.clone();
            match blocking(move || writable(&*files, &folder)).await {
                Ok(()) => match program_missing(&delivery) {
                    None => subject.ok(format!("return files can be put into {}", delivery.folder.display())),
                    Some(why) => subject.wrong(Code::ActionFailed, why, super::remedy::of(Code::ActionFailed)),
                },
                Err(failure) => {
                    let remedy = super::remedy::of(Code::DeliveryFailed);
                    subject.wrong(Code::DeliveryFailed, super::check::said(&failure), unwritable(&failure, &remedy))
                }
            }
        })
        .await
    }

    /// Whether whoever is to be told of what is wrong can be told, as far as that shows without telling.
    async fn alert(&self, until: Duration) -> Option<Check> {
        let AlertConfig { program, webhook, webhook_secret, .. } = self.config.alert.clone();
        if program.is_none() && webhook.is_none() {
            return None;
        }
        let subject = Subject::new("alert", "alerts", "looking at the program and the webhook's secret of [alert]");
        let check = self.in_time(subject, until, async move |subject| {
            let late = subject.clone();
            let look = blocking(move || {
                if let Some(why) = program.as_deref().and_then(not_executable) {
                    return Ok(subject.wrong(Code::AlertFailed, why, super::remedy::of(Code::AlertFailed)));
                }
                let secret = webhook_secret.map(|secret| towpath_keys::read_secret(&secret, "the webhook's secret"));
                Ok(match secret.transpose() {
                    Ok(_) => subject.ok("they can be used; try them: towpath-agent alert test"),
                    Err(failure) => subject.failed(&failure),
                })
            });
            look.await.unwrap_or_else(|failure| late.failed(&failure))
        });
        Some(check.await)
    }

    async fn in_time(&self, subject: Subject, until: Duration, work: impl AsyncFnOnce(Subject) -> Check) -> Check {
        match self.left(until, FOLDER_TIMEOUT) {
            Some(limit) => subject.within(&*self.clock, limit, work).await,
            None => subject.skipped(NO_TIME),
        }
    }
}

const CLOSED: &str = "the source cannot be opened";
const NO_TIME: &str = "there was no time left: what came before took too long";

/// What leads to a source, without anything secret.
fn describe(source: &SourceConfig) -> String {
    let server = |kind: &str, server: &crate::config::ServerConfig| {
        let crate::config::ServerConfig { host, port, database, user, .. } = server;
        format!("opening the {kind} database {database} at {host}:{port} as {user}")
    };
    match source {
        SourceConfig::Sqlite { path, .. } => format!("opening the SQLite database {}", path.display()),
        SourceConfig::PostgreSql(config) => server("PostgreSQL", config),
        SourceConfig::MariaDb(config) => server("MariaDB or MySQL", config),
        SourceConfig::Odbc(config) => {
            format!("opening the ODBC source{}", config.user.as_ref().map(|user| format!(" as {user}")).unwrap_or_default())
        }
        SourceConfig::Files(config) => format!("looking into the folder {}", config.folder.display()),
    }
}

/// A source that cannot be opened; who has to do something about it depends on whether it is a server or a file.
fn unopened(subject: Subject, source: &SourceConfig, failure: &Failure) -> Check {
    match source {
        SourceConfig::Sqlite { .. } | SourceConfig::Files(_) if failure.code() == Code::ErpMissing => {
            subject.wrong(failure.code(), super::check::said(failure), super::remedy::ERP_FILE)
        }
        _ => subject.failed(failure),
    }
}

/// What to do about a folder that cannot be written to. systemd lets a service see as read-only what its unit does not open.
pub(super) fn unwritable(failure: &Failure, otherwise: &str) -> String {
    #[cfg(target_os = "linux")]
    if causes(failure).any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
    }) {
        return super::remedy::NOT_OPENED.to_owned();
    }
    let _ = failure;
    otherwise.to_owned()
}

#[cfg(target_os = "linux")]
fn causes(failure: &Failure) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(failure), |cause| cause.source())
}

fn of_source(subject: Subject, found: &SourceCheck) -> Check {
    if found.warnings.is_empty() {
        return subject.ok("it can be opened, and the login has no more rights than it needs");
    }
    let remedy = "see docs/operations.md, ERP databases; the agent works all the same";
    subject.warning(None, found.warnings.join("; "), remedy)
}

fn of_tables(subject: Subject, found: &SourceCheck) -> Check {
    let all = found.tables.len();
    let bad: Vec<_> = found.tables.iter().filter_map(|one| Some((&one.table, one.columns.as_ref().err()?))).collect();
    let Some((_, first)) = bad.first() else { return subject.ok(format!("{all} of {all} can be read")) };
    let named: Vec<String> =
        bad.iter().take(MAX_NAMED).map(|(table, failure)| format!("{table}: {}", super::check::said(failure))).collect();
    let more = bad.len().saturating_sub(MAX_NAMED);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let told = format!("{} of {all} cannot be read: {}{more}", bad.len(), named.join("; "));
    subject.wrong(first.code(), told, super::remedy::of(first.code()))
}

fn of_contract(subject: Subject, found: &SourceCheck) -> Check {
    let contract = match Contract::get() {
        Ok(contract) => contract,
        Err(mistake) => return subject.failed(&mistake.into()),
    };
    let report = planning::check(Some(&contract), &found.tables, &[]);
    match report.unmet() {
        0 => subject.ok(format!("{} what an app for planning needs", counted(report.tables.len(), "table is", "tables are"))),
        unmet => {
            let told = format!("{unmet} of {} tables are not what the contract says", report.tables.len());
            subject.wrong(Code::ContractUnmet, told, super::remedy::of(Code::ContractUnmet))
        }
    }
}

/// Whether a file can be made in a folder that exists. It is hidden, empty, and there for a moment only.
fn writable(files: &dyn FileStore, folder: &Path) -> Result<()> {
    let failed = |what: &'static str| move |error| file_failure(what, folder, error);
    if files.stat(folder).map_err(failed("looking for the folder"))?.kind == FileKind::File {
        return Err(Failure::park(Code::FileFailed, format!("{} is no folder", folder.display())));
    }
    let probe = folder.join(format!(".towpath-doctor-{}", std::process::id()));
    let made = files.create(&probe).map(drop);
    let removed = towpath_transport::files::ignore_missing(files.remove(&probe));
    made.and(removed).map_err(failed("writing to the folder"))
}

/// A program that is to follow a delivery must be there.
fn program_missing(delivery: &DeliveryConfig) -> Option<String> {
    match delivery.action()? {
        ActionConfig::Run(run) => not_executable(&run.program).map(|why| format!("{why}; it is to follow a delivery")),
        ActionConfig::Load(_) => None,
    }
}

/// Why this process could not start a program that is named by its whole path.
fn not_executable(program: &Path) -> Option<String> {
    let shown = program.display();
    if !program.is_absolute() {
        return None;
    }
    if !program.is_file() {
        return Some(format!("the program {shown} is not there"));
    }
    #[cfg(unix)]
    if let Err(error) = rustix::fs::access(program, rustix::fs::Access::EXEC_OK) {
        return Some(format!("the program {shown} cannot be started: {error}"));
    }
    None
}
