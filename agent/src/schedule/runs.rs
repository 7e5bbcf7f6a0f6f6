//! The runs of a job: when each is due, and when it begins.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil::DateTime, tz::TimeZone};
use towpath_transfer::{AgentName, digest::Sha256Digest};

use super::LATE_WITHOUT_CATCH_UP;
use crate::config::{JobConfig, MAX_WINDOWS, Occurrence, outside};

/// How many blackouts may follow each other so closely that a run which is late for one is in time for the next: each on every day of
/// a week and a day.
const MAX_BLACKOUTS_IN_A_ROW: usize = MAX_WINDOWS * 8;

/// One run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// When it is due by its schedule.
    pub due: Timestamp,
    /// When it begins: later by the job's jitter, and outside of its blackouts.
    pub begins: Timestamp,
    /// The time of day that the schedule means; one that the clock skips comes right after.
    pub local: DateTime,
    /// How much later it begins so that not all agents begin at once.
    pub jitter: Duration,
    /// Whether a blackout puts it off.
    pub blackout: bool,
}

/// The runs of a job that are due after `after`, soonest first; none without a schedule. Runs that a blackout or the jitter would let
/// begin no later than the one before are one with it.
pub fn next_runs(job: &JobConfig, agent: &AgentName, after: Timestamp) -> impl Iterator<Item = Run> {
    let zone = job.zone();
    let occurrences = job.schedule.as_ref().map(|schedule| schedule.after(after, &zone));
    let (of, agent) = (Timing::of(job), agent.clone());
    let mut before = Timestamp::MIN;
    occurrences.into_iter().flatten().filter_map(move |occurrence| {
        let run = of.run(&agent, occurrence, &zone);
        (run.begins > before).then(|| {
            before = run.begins;
            run
        })
    })
}

/// The run that began last, by the schedule, not after `now`; `None` without a schedule.
#[must_use]
pub fn last_run(job: &JobConfig, agent: &AgentName, now: Timestamp) -> Option<Run> {
    let zone = job.zone();
    let of = Timing::of(job);
    let occurrences = job.schedule.as_ref()?.until(now, &zone);
    occurrences.map(|occurrence| of.run(agent, occurrence, &zone)).find(|run| run.begins <= now)
}

/// How late a run is by `now` that was to begin at `begins`. Where a blackout keeps it from beginning while it is still in time for a
/// job that does not catch up, the end of the blackout counts.
pub(super) fn lateness(job: &JobConfig, begins: Timestamp, now: Timestamp) -> Duration {
    let zone = job.zone();
    let mut from = begins;
    for _ in 0..MAX_BLACKOUTS_IN_A_ROW {
        // No window is shorter than a minute.
        let minutes = (0..=LATE_WITHOUT_CATCH_UP.as_secs() / 60).map(|minute| Duration::from_secs(minute * 60));
        let mut times = minutes.filter_map(|minutes| from.checked_add(minutes).ok()).take_while(|time| *time <= now);
        let end = times.find_map(|time| Some(outside(&job.blackout, time, &zone)).filter(|end| *end > time));
        match end {
            Some(end) => from = end,
            None => break,
        }
    }
    since(from, now)
}

/// A run as it begins by `now`: one whose time has come in vain, and lies in a blackout now, waits until that is over.
pub(super) fn put_off(job: &JobConfig, run: Run, now: Timestamp) -> Run {
    let free = outside(&job.blackout, now, &job.zone());
    if run.begins <= now && free > now { Run { begins: free, blackout: true, ..run } } else { run }
}

/// What decides when a run begins.
struct Timing {
    name: String,
    jitter: Duration,
    blackout: Vec<crate::config::Window>,
}

impl Timing {
    fn of(job: &JobConfig) -> Self {
        Self { name: job.name.to_string(), jitter: job.jitter, blackout: job.blackout.clone() }
    }

    fn run(&self, agent: &AgentName, occurrence: Occurrence, zone: &TimeZone) -> Run {
        let due = occurrence.at;
        let free = outside(&self.blackout, due, zone);
        let jitter = self.jitter_of(agent, free, zone);
        let late = free.checked_add(jitter).unwrap_or(Timestamp::MAX);
        let begins = outside(&self.blackout, late, zone);
        Run { due, begins, local: occurrence.local, jitter, blackout: free > due || begins > late }
    }

    /// The same for the same agent, job and day, and spread evenly over all of them.
    fn jitter_of(&self, agent: &AgentName, at: Timestamp, zone: &TimeZone) -> Duration {
        if self.jitter.is_zero() {
            return Duration::ZERO;
        }
        let day = zone.to_datetime(at).date();
        let digest = Sha256Digest::of(format!("{agent}\n{}\n{day}", self.name).as_bytes());
        let number = digest.as_bytes().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Duration::from_secs(number % (self.jitter.as_secs() + 1))
    }
}

/// How long before `now` a time was; nothing for one that is yet to come.
pub(super) fn since(time: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(time).max(SignedDuration::ZERO)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::schedule::tests::{agent, at, job};

    fn runs(timing: &str, after: &str, count: usize) -> Vec<Run> {
        next_runs(&job(timing), &agent("erp"), at(after)).take(count).collect()
    }

    #[test]
    fn without_a_schedule_there_is_no_run() {
        assert!(runs("", "2026-07-01T00:00:00Z", 5).is_empty());
        assert_eq!(last_run(&job(""), &agent("erp"), at("2026-07-01T00:00:00Z")), None);
    }

    #[test]
    fn jitter_is_the_same_each_time_and_differs_by_agent_job_and_day() {
        let timing = "schedule = \"02:00\"\ntime_zone = \"UTC\"\njitter = \"30m\"";
        let job = job(timing);
        let of = |name: &str| next_runs(&job, &agent(name), at("2026-07-01T00:00:00Z")).take(50).collect::<Vec<_>>();
        let (erp, other) = (of("erp"), of("other"));
        assert_eq!(erp, of("erp"));
        assert!(erp.iter().all(|run| run.jitter <= Duration::from_secs(1_800) && !run.blackout));
        assert!(erp.iter().all(|run| run.begins == run.due + run.jitter));
        let distinct: BTreeSet<Duration> = erp.iter().chain(&other).map(|run| run.jitter).collect();
        assert!(distinct.len() > 80, "{} of 100 differ", distinct.len());
        for run in &erp {
            assert_eq!(last_run(&job, &agent("erp"), run.begins), Some(*run));
            let before = run.begins - SignedDuration::from_secs(1);
            assert!(last_run(&job, &agent("erp"), before).unwrap().due < run.due);
        }
    }

    #[test]
    fn what_is_due_in_a_blackout_begins_once_when_it_is_over() {
        let timing = "schedule = \"0 * * * *\"\ntime_zone = \"UTC\"\nblackout = [\"mon-fri 07:00-18:00\"]";
        // 3 July 2026 is a Friday.
        let begins: Vec<Timestamp> = runs(timing, "2026-07-03T05:00:00Z", 4).iter().map(|run| run.begins).collect();
        let expected = ["06:00", "18:00", "19:00", "20:00"].map(|time| at(&format!("2026-07-03T{time}:00Z")));
        assert_eq!(begins, expected);
        let moved = runs(timing, "2026-07-03T06:30:00Z", 1)[0];
        assert_eq!((moved.due, moved.blackout), (at("2026-07-03T07:00:00Z"), true));
    }

    #[test]
    fn jitter_spreads_what_a_blackout_has_gathered_and_never_leads_into_one() {
        let timing =
            "schedule = \"*/10 * * * *\"\ntime_zone = \"UTC\"\njitter = \"45m\"\nblackout = [\"07:00-18:00\", \"18:20-18:50\"]";
        let mut before = Timestamp::MIN;
        for run in runs(timing, "2026-07-03T00:00:00Z", 400) {
            let time = TimeZone::UTC.to_datetime(run.begins).time().strftime("%H:%M").to_string();
            let is_free = time.as_str() < "07:00" || ("18:00".."18:20").contains(&time.as_str()) || time.as_str() >= "18:50";
            assert!(is_free && run.begins > before && run.begins >= run.due, "{run:?}");
            before = run.begins;
        }
    }
}
