//! `schedule`: what runs when.

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use towpath_transfer::{AgentName, Code, Failure, failure::Result};

use super::{args::ScheduleArgs, extract::one_job, output, quietly, times};
use crate::{
    config::JobConfig,
    host::Host,
    pause::Pause,
    schedule::{Run, next_runs, upcoming},
    uplink::replan,
    view::TransferView,
};

#[derive(Serialize)]
struct ScheduleView {
    pause: Option<Pause>,
    jobs: Vec<JobView>,
}

#[derive(Serialize)]
struct JobView {
    job: String,
    schedule: Option<String>,
    time_zone: Option<String>,
    catch_up: bool,
    runs: Vec<RunView>,
    /// The newest transfer of the job, planned or sent by hand.
    last: Option<TransferView>,
}

#[derive(Serialize)]
struct RunView {
    due: Timestamp,
    /// `due` by the clock of the job's time zone.
    local: String,
    /// Not known before the agent is enrolled, where the job has a jitter: that depends on the agent's name.
    begins: Option<Timestamp>,
    /// Why it begins later than it is due: `jitter`, `blackout`.
    moved_by: Vec<&'static str>,
    /// It was to begin already, and waits for the end of another transfer, of a pause, or for `run`; not one that waits for the end
    /// of a blackout.
    overdue: bool,
}

/// A job's runs, and its newest transfer.
type Known = (Vec<Run>, Option<TransferView>);

pub(super) async fn run(host: &Host, args: &ScheduleArgs) -> Result<()> {
    let now = host.clock().now();
    let zone = TimeZone::system();
    let after = args.after.as_deref().map(|text| times::parse(text, now, &zone)).transpose()?;
    let jobs: Vec<&JobConfig> = match &args.job {
        Some(name) => vec![one_job(host.settings(), Some(name))?],
        None => host.settings().jobs.iter().collect(),
    };
    let count = usize::from(args.count);
    let enrolled = host.enrolment()?.is_some();
    let known: Vec<Known> = if enrolled {
        quietly(host, async |open| {
            let mut known = Vec::new();
            for job in &jobs {
                let newest = replan::newest(&open.parts, &job.name).await?;
                let first = if after.is_none() { upcoming(&open.parts, job, now)? } else { None };
                let rest = next_runs(job, &open.parts.agent, first.map_or(after.unwrap_or(now), |run| run.due.max(now)));
                let behind = |run: &Run| first.is_none_or(|first| run.begins > first.begins);
                let runs = first.into_iter().chain(rest.filter(behind)).take(count).collect();
                known.push((runs, newest.as_ref().map(Into::into)));
            }
            Ok(known)
        })
        .await?
    } else {
        // Without a name of its own only what goes by no jitter is shown.
        let nobody: AgentName = "agent".parse().map_err(|error| Failure::park(Code::Internal, format!("{error}")))?;
        jobs.iter().map(|job| (next_runs(job, &nobody, after.unwrap_or(now)).take(count).collect(), None)).collect()
    };
    // What would have been is not overdue.
    let overdue_at = if after.is_none() { now } else { Timestamp::MIN };
    let views = jobs.iter().zip(known).map(|(job, known)| view(job, known, enrolled, overdue_at));
    let view = ScheduleView { pause: Pause::read(&*host.files, &host.layout, now), jobs: views.collect() };
    if args.output.json { output::json(&view) } else { tell(&view, &jobs) }
}

fn view(job: &JobConfig, (runs, last): Known, enrolled: bool, overdue_at: Timestamp) -> JobView {
    let zone = job.zone();
    let runs = runs.into_iter().map(|run| {
        let reasons = [(!job.jitter.is_zero()).then_some("jitter"), run.blackout.then_some("blackout")];
        RunView {
            due: run.due,
            local: run.due.to_zoned(zone.clone()).to_string(),
            begins: (enrolled || job.jitter.is_zero()).then_some(run.begins),
            moved_by: reasons.into_iter().flatten().collect(),
            overdue: run.begins <= overdue_at,
        }
    });
    JobView {
        job: job.name.to_string(),
        schedule: job.schedule.as_ref().map(ToString::to_string),
        time_zone: job.schedule.as_ref().and_then(|_| zone.iana_name().map(str::to_owned)),
        catch_up: job.catch_up,
        runs: runs.collect(),
        last,
    }
}

fn tell(view: &ScheduleView, jobs: &[&JobConfig]) -> Result<()> {
    if let Some(pause) = &view.pause {
        output::line(&format!("{pause}"))?;
    }
    let mut rows = Vec::new();
    for (job, of) in view.jobs.iter().zip(jobs) {
        let zone = of.zone();
        for run in &job.runs {
            let begins = run.begins.map_or_else(|| "see below".to_owned(), |begins| times::told(begins, &zone));
            let because = if run.overdue { "overdue".to_owned() } else { run.moved_by.join(", ") };
            rows.push(vec![job.job.clone(), times::told(run.due, &zone), begins, because]);
        }
    }
    output::table(&["job", "due", "begins", "because of"], rows, "no job has a schedule")?;
    for job in view.jobs.iter().filter(|job| job.runs.iter().any(|run| run.begins.is_none())) {
        output::line(&format!(
            "{}: each run begins up to its jitter after it is due; how much is decided by this agent's name, which it has after enrolment",
            job.job
        ))?;
    }
    for job in &view.jobs {
        if job.schedule.is_none() {
            output::line(&format!("{}: sent by hand only", job.job))?;
        }
        let Some(last) = &job.last else { continue };
        let reason = last.rejection.as_ref().map(|r| r.code).or(last.failure.as_ref().map(|f| f.code));
        let reason = reason.map(|code| format!(" [{code}]")).unwrap_or_default();
        let parked = if last.parked { " (waits for you)" } else { "" };
        let created = last.created.strftime("%Y-%m-%d %H:%M UTC");
        output::line(&format!("{}: last {created}, transfer {} {}{parked}{reason}", job.job, last.transfer, last.state))?;
    }
    Ok(())
}
