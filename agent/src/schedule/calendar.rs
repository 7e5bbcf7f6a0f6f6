//! What the schedule must not forget: up to when each job's runs are done with.

use std::{collections::BTreeMap, time::Duration};

use jiff::{Timestamp, civil::DateTime};
use serde::{Deserialize, Serialize};
use towpath_journal::{CLOCK_TOLERANCE, TransferRecord};
use towpath_transfer::{Code, Failure, JobName, Sequence, failure::Result};

use super::{
    FRESH,
    runs::{Run, since},
};
use crate::{config::JobConfig, parts::Parts, small_file};

/// The largest file of it, in bytes; a hundred jobs take less than an eighth.
const MAX_BYTES: usize = 1024 * 1024;
const VERSION: u32 = 1;
/// A clock by which the schedule looked so shortly before a run has come to that run by running, not by being put right: a clock that
/// was put back is behind by more than [`CLOCK_TOLERANCE`], and by more than [`FRESH`] less than that when it is put right within
/// [`FRESH`] after the run that it had begun.
const SHORTLY_BEFORE: Duration = CLOCK_TOLERANCE.saturating_sub(FRESH);
/// Within so many hours the same time of day in another time zone is the same run.
const SAME_NIGHT_HOURS: u64 = 12;

/// `schedule.json` of the state folder. Without it nothing is lost but what it says of other clocks and zones: the journal knows when
/// each job was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Calendar {
    version: u32,
    jobs: BTreeMap<String, Kept>,
}

/// What is known of one job's schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// When the schedule first saw the job.
    pub(super) since: Timestamp,
    /// Runs that were due until then are done with, begun or not.
    pub(super) settled: Timestamp,
    /// Runs that were due until then were left out, because the job does not catch up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) skipped: Option<Timestamp>,
    /// The run that was begun last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<Begun>,
    /// Transfers up to this number answer no run: they were made, or known, before the clock was put right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) void: Option<Sequence>,
    /// What was known before the clock was put back, until a run begins by the clock of now, or that clock has come as far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) former: Option<Former>,
    /// The runs that wait for the end of a blackout, or have begun at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) put_off: Option<PutOff>,
}

/// Runs whose time came in a blackout: one transfer for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PutOff {
    /// When the first of them was due.
    pub(super) first: Timestamp,
    /// When the last of them was due.
    pub(super) last: Timestamp,
    /// When the blackout is over.
    pub(super) until: Timestamp,
}

/// What was known of one job's schedule when its clock was put back. It is not known which of the two clocks is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Former {
    /// As [`Kept::since`].
    since: Timestamp,
    /// As [`Kept::settled`], with what the newest transfer answered.
    settled: Timestamp,
    /// As [`Kept::skipped`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skipped: Option<Timestamp>,
    /// As [`Kept::last`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Begun>,
    /// When the schedule last looked by the clock of now within [`SHORTLY_BEFORE`] of the next run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    looked: Option<Timestamp>,
}

/// A run that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// When it was due.
    pub(super) due: Timestamp,
    /// Which time of day it was due for, the last one where several were one.
    pub(super) local: DateTime,
    /// When it was begun.
    pub(super) begun: Timestamp,
}

impl Calendar {
    /// What is kept; nothing where there is none, or where it cannot be read any more.
    pub(super) fn read(parts: &Parts) -> Result<Self> {
        let empty = Self { version: VERSION, jobs: BTreeMap::new() };
        let path = parts.layout.schedule();
        let Some(bytes) = small_file::read(&*parts.files, &path, MAX_BYTES)? else { return Ok(empty) };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(calendar) if calendar.version == VERSION => Ok(calendar),
            Ok(calendar) => {
                tracing::warn!(version = calendar.version, "{} is of another version and is begun anew", path.display());
                Ok(empty)
            }
            Err(error) => {
                tracing::warn!("{} cannot be read and is begun anew: {error}", path.display());
                Ok(empty)
            }
        }
    }

    pub(super) fn of(&self, job: &JobName) -> Option<&Kept> {
        self.jobs.get(job.as_str())
    }

    /// Keeps what is known of a job, where that is new; jobs that are not configured any more are forgotten.
    pub(super) fn keep(mut self, parts: &Parts, job: &JobName, kept: Kept) -> Result<()> {
        if self.of(job) == Some(&kept) {
            return Ok(());
        }
        let config = parts.config.now();
        self.jobs.retain(|name, _| config.jobs.iter().any(|job| job.name.as_str() == name));
        self.jobs.insert(job.to_string(), kept);
        let bytes = serde_json::to_vec_pretty(&self)
            .map_err(|error| Failure::park(Code::Internal, "writing the schedule's state").caused_by(error))?;
        small_file::write(&*parts.files, &parts.layout.schedule(), &bytes)
    }
}

impl Kept {
    /// A job that is seen for the first time: what was due since it was sent last counts, and nothing from before now where it never
    /// was.
    pub(super) fn first_seen(newest: Option<&TransferRecord>, now: Timestamp) -> Self {
        let sent = newest.map(|record| record.created).filter(|created| *created <= now);
        let settled = sent.unwrap_or_else(|| now.checked_sub(FRESH).unwrap_or(now));
        Self { since: now, settled, skipped: None, last: None, void: None, former: None, put_off: None }
    }

    /// Takes in the job's newest transfer, and what a clock that was put right has made void.
    ///
    /// A transfer answers what was due before it was made. One that lies in the future was made while the clock was wrong and says
    /// nothing, nor does it once that time has come; the same holds for what was settled then. Where it is the clock of now that is
    /// wrong, [`Self::restored`] takes that back.
    pub(super) fn reconciled(mut self, newest: Option<&TransferRecord>, now: Timestamp) -> Self {
        let soon = now.checked_add(CLOCK_TOLERANCE).unwrap_or(Timestamp::MAX);
        let newest = newest.filter(|record| self.void.is_none_or(|void| record.sequence > Some(void)));
        let was_ahead = self.settled > soon;
        let ahead = newest.map(|record| record.created).filter(|created| was_ahead || *created > soon);
        if was_ahead || ahead.is_some() {
            let Self { since, settled, skipped, last, .. } = self;
            let former = self.former.get_or_insert(Former { since, settled, skipped, last, looked: None });
            former.settled = former.settled.max(settled).max(ahead.unwrap_or(settled));
        }
        if was_ahead {
            tracing::warn!(code = %Code::ClockSkew, until = %self.settled, "the clock was put back; what is due from now on counts");
            (self.settled, self.last, self.put_off) = (now, None, None);
            self.skipped = self.skipped.map(|skipped| skipped.min(now));
            self.since = self.since.min(now);
        }
        let Some(newest) = newest else { return self };
        if was_ahead || newest.created > soon {
            self.void = newest.sequence;
            if newest.created > soon {
                tracing::warn!(
                    code = %Code::ClockSkew, transfer = %newest.key.id, created = %newest.created,
                    "the newest transfer lies in the future: the clock was wrong when it was made"
                );
            }
        } else {
            self.settled = self.settled.max(newest.created);
        }
        self
    }

    /// Takes back that the clock was put back, where it stands beyond what was settled then and no run has begun since: it was behind
    /// for a while, as that of a host whose battery is empty is at boot.
    ///
    /// `next` is the first run that is not settled. Where it begins just now, and the schedule looked shortly before by this clock, the
    /// clock came here by running, not by being put right: what a clock that was ahead had settled is due now, and it was right to put
    /// it back.
    pub(super) fn restored(mut self, next: Option<&Run>, now: Timestamp) -> Self {
        let Some(former) = self.former else { return self };
        let has_run_here = |run: &Run| {
            let looked = former.looked.filter(|looked| *looked <= run.begins);
            looked.is_some_and(|looked| since(looked, run.begins) <= SHORTLY_BEFORE)
        };
        if next.is_some_and(|run| run.begins <= now && since(run.begins, now) <= FRESH && has_run_here(run)) {
            self.former = None;
        } else if now > former.settled {
            tracing::info!(until = %former.settled, "the clock was behind and is put right; what was done with before is not due again");
            self.settled = self.settled.max(former.settled);
            (self.since, self.skipped) = (former.since, self.skipped.max(former.skipped));
            (self.last, self.former) = (self.last.or(former.last), None);
        }
        self
    }

    /// Notes that the schedule looks shortly before a run, while it is not known whether the clock of now is the right one.
    pub(super) fn note_look(&mut self, next: Option<&Run>, now: Timestamp) {
        let is_near = |run: &Run| run.begins > now && since(now, run.begins) <= SHORTLY_BEFORE;
        if let Some(former) = self.former.as_mut().filter(|_| next.is_some_and(is_near)) {
            former.looked = Some(now);
        }
    }

    /// When a run begins that waits for the end of a blackout, or has begun at it.
    pub(super) fn begins(&self, run: &Run) -> Timestamp {
        let put_off = self.put_off.filter(|put_off| (put_off.first..=put_off.last).contains(&run.due));
        put_off.map_or(run.begins, |put_off| put_off.until.max(run.begins))
    }

    /// Whether a run was begun already by the clock of another time zone.
    pub(super) fn is_repeated(&self, job: &JobConfig, run: &Run) -> bool {
        let goes_by_intervals = job.schedule.as_ref().is_none_or(|schedule| schedule.is_interval());
        self.last.is_some_and(|last| {
            let is_near = since(last.begun, run.due).as_secs() < SAME_NIGHT_HOURS * 3_600;
            !goes_by_intervals && run.due > last.due && last.local >= run.local && is_near
        })
    }
}
