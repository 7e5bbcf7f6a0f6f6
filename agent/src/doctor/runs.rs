//! The jobs' schedules, what came of their last runs, and what waits for a person.

use jiff::{Timestamp, tz::TimeZone};
use towpath_host::counted;
use towpath_journal::{Filter, Journal as _, MAX_LIST, SqliteJournal, TransferRecord};
use towpath_keys::ReleaseKeys;
use towpath_transfer::{
    Code, Direction, TransferState,
    failure::{FailureRecord, Result},
};

use super::{
    Told,
    check::{Check, Subject, said},
    local::State,
    remedy,
};
use crate::{
    config::{JobConfig, UpdateMode},
    enrolment::Enrolment,
    host::Host,
    pause::Pause,
    schedule::next_runs,
    update::Standing,
    view::{FailureView, what_next},
};

pub(super) async fn checks(host: &Host, state: &State, told: &mut Told<'_>) -> Result<()> {
    told.add(paused(host))?;
    if let Some(check) = update(host) {
        told.add(check)?;
    }
    for job in &host.settings().jobs {
        told.add(schedule(host, state.enrolment.as_ref(), job))?;
        told.add(last_run(state, job).await)?;
    }
    told.add(waiting(state).await)?;
    if let Some(journal) = &state.journal {
        journal.close().await;
    }
    Ok(())
}

fn paused(host: &Host) -> Check {
    let subject = Subject::new("pause", "pause", format!("reading {}", host.layout.pause().display()));
    let Some(pause) = Pause::read(&*host.files, &host.layout, host.clock().now()) else {
        return subject.ok("the agent is not paused");
    };
    let time = |at: Timestamp| at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string();
    let until = pause.until.map_or_else(|| "until somebody resumes it".to_owned(), |until| format!("until {}", time(until)));
    let why = pause.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let found = format!("the agent is paused {until}, since {} by {}{why}", time(pause.since), pause.by);
    subject.warning(Some(Code::Paused), found, "where that is not wanted any more: towpath-agent resume")
}

/// Updates, where they are wanted or one did not work.
fn update(host: &Host) -> Option<Check> {
    let (standing, config) = (Standing::look(), &host.settings().update);
    let subject = Subject::new("update", "update", "reading what is installed, and how the last update has ended");
    if let Some((code, attempt)) = standing.trouble() {
        let (found, remedy) = (attempt.to_string(), remedy::of(code));
        let is_rolled_back = code == Code::UpdateRolledBack;
        return Some(if is_rolled_back {
            subject.warning(Some(code), found, remedy)
        } else {
            subject.wrong(code, found, remedy)
        });
    }
    if config.mode == UpdateMode::Off {
        return None;
    }
    let unfit = ReleaseKeys::of_this_program().err().map(|failure| said(&failure));
    let unfit = unfit.or_else(|| standing.installed.is_none().then(|| "this agent was not installed by a package".to_owned()));
    Some(match unfit {
        Some(why) => subject.warning(Some(Code::UpdateRefused), why, "say mode = \"off\" in [update]"),
        None => subject.ok(format!("version {}, and what is approved at the relay is taken", standing.version())),
    })
}

fn schedule(host: &Host, enrolment: Option<&Enrolment>, job: &JobConfig) -> Check {
    let name = &job.name;
    let Some(schedule) = &job.schedule else {
        let subject = Subject::new(format!("schedule:{name}"), format!("schedule of job {name}"), "looking for a schedule");
        return subject.ok("none: it is sent by hand only");
    };
    let tried = format!("reckoning when {schedule:?} is due next", schedule = schedule.to_string());
    let subject = Subject::new(format!("schedule:{name}"), format!("schedule of job {name}"), tried);
    let zone = job.zone();
    if zone == TimeZone::UTC && job.time_zone.is_none() && zone_is_unknown() {
        let found = "this host's time zone is not known, so that the schedule counts in UTC";
        return subject.warning(
            Some(Code::ConfigInvalid),
            found,
            "say time_zone = \"Europe/Berlin\", or the like, in the [[job]]",
        );
    }
    let now = host.clock().now();
    // Which agent it is decides the jitter, and is not known before enrolment.
    let begins = match enrolment {
        Some(enrolment) => next_runs(job, &enrolment.name, now).next().map(|run| run.begins),
        None => schedule.after(now, &zone).next().map(|due| due.at),
    };
    match begins {
        Some(begins) => subject.ok(format!("next run {}", begins.to_zoned(zone).strftime("%Y-%m-%d %H:%M %Z"))),
        None => subject.wrong(Code::ConfigInvalid, "it is never due", "mend `schedule` in the [[job]]"),
    }
}

/// What stands for a system whose zone could not be found out is UTC as well.
fn zone_is_unknown() -> bool {
    TimeZone::try_system().is_err()
}

async fn last_run(state: &State, job: &JobConfig) -> Check {
    let name = &job.name;
    let subject = Subject::new(format!("last-run:{name}"), format!("last run of job {name}"), "looking into the journal");
    let (Some(journal), Some(enrolment)) = (&state.journal, &state.enrolment) else {
        return subject.skipped("there is no journal that can be read");
    };
    let filter = Filter { direction: Some(Direction::Uplink), job: Some(name.clone()), ..of(enrolment) };
    match newest(journal, &filter).await {
        Ok(None) => subject.ok(format!("it has not run yet; try it: towpath-agent send --job {name} --wait")),
        Ok(Some(record)) => judge(subject, &record),
        Err(check) => subject.wrong(Code::JournalFailed, check, remedy::of(Code::JournalFailed)),
    }
}

async fn newest(journal: &SqliteJournal, filter: &Filter) -> Result<Option<TransferRecord>, String> {
    let list = journal.list(filter, 1, None).await.map_err(|error| error.to_string())?;
    Ok(list.into_iter().next())
}

fn of(enrolment: &Enrolment) -> Filter {
    Filter { tenant: Some(enrolment.tenant.clone()), agent: Some(enrolment.name.clone()), ..Filter::default() }
}

fn judge(subject: Subject, record: &TransferRecord) -> Check {
    let id = record.key.id.to_string();
    let told = format!("transfer {id} is {} since {}", record.state.word(), record.changed.strftime("%Y-%m-%d %H:%M UTC"));
    let failure = record.last_failure.as_ref();
    let why = |failure: &FailureRecord| FailureView::from(failure).report;
    if record.parked {
        let code = failure.map_or(Code::Internal, |failure| failure.code);
        let why = failure.map_or_else(|| "the reason is not known".to_owned(), why);
        return subject.wrong(code, format!("{told}, and waits for you: {why}"), what_next(Some(code), &id));
    }
    if let TransferState::Rejected { rejection } = &record.state {
        let remedy = format!("see what it says: towpath-agent show {id}; then send again (docs/errors/{}.md)", rejection.code);
        return subject.wrong(rejection.code, format!("{told}: {}", rejection.detail), remedy);
    }
    match failure.filter(|_| !record.state.is_final() && record.not_before.is_some()) {
        Some(failure) => {
            let remedy = format!("it is tried again by itself; at once by: towpath-agent retry {id}");
            subject.warning(Some(failure.code), format!("{told}, and in trouble: {}", why(failure)), remedy)
        }
        None => subject.ok(told),
    }
}

/// Whatever else waits for a person, such as return files or transfers of jobs that are configured no more.
async fn waiting(state: &State) -> Check {
    let subject = Subject::new("parked", "parked transfers", "looking into the journal");
    let (Some(journal), Some(enrolment)) = (&state.journal, &state.enrolment) else {
        return subject.skipped("there is no journal that can be read");
    };
    let filter = Filter { parked: Some(true), ended: Some(false), ..of(enrolment) };
    match journal.list(&filter, MAX_LIST, None).await {
        Err(error) => subject.wrong(Code::JournalFailed, error.to_string(), remedy::of(Code::JournalFailed)),
        Ok(records) => match records.first() {
            None => subject.ok("no transfer waits for a person"),
            Some(first) => {
                let code = first.last_failure.as_ref().map_or(Code::Internal, |failure| failure.code);
                let named: Vec<String> = records.iter().take(3).map(|one| one.key.id.to_string()).collect();
                let found = format!("{} for you: {}", counted(records.len(), "waits", "wait"), named.join(", "));
                subject.wrong(code, found, what_next(Some(code), &first.key.id.to_string()))
            }
        },
    }
}
