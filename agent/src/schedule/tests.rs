use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use towpath_transfer::{AgentName, Code, state::Rejection};

use super::*;
use crate::{
    config::Config,
    uplink::tests::world::{World, at as instant},
};

pub(super) fn job(timing: &str) -> JobConfig {
    let text = format!(
        "[[job]]\nname = \"main\"\n{timing}\n[job.source]\nkind = \"sqlite\"\npath = \"erp.sqlite\"\n[[job.table]]\nname = \"items\"\n"
    );
    Config::parse(&text, Path::new("/etc/agent.toml")).unwrap().jobs.remove(0)
}

pub(super) fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

pub(super) fn at(text: &str) -> Timestamp {
    instant(text)
}

/// A job on a host, looked at again and again as `run` does.
struct Host {
    world: World,
    job: JobConfig,
}

impl Host {
    fn new(timing: &str) -> Self {
        Self { world: World::new(), job: job(timing) }
    }

    /// Whether a look at this time begins a run; what was begun is finished at once.
    async fn look(&self, now: &str) -> bool {
        self.look_at(at(now)).await
    }

    async fn look_at(&self, now: Timestamp) -> bool {
        self.world.clock.set_wall(now);
        let begun = self.begin().await;
        if begun {
            self.finish().await;
            self.world.clock.set_wall(now);
        }
        begun
    }

    /// A look without the work after it.
    async fn begin(&self) -> bool {
        plan_if_due(&self.world.parts, &self.job).await.unwrap()
    }

    async fn finish(&self) {
        let newest = replan::newest(&self.world.parts, &self.job.name).await.unwrap().unwrap();
        self.world.finish(newest.key.id).await;
    }

    /// Looks every quarter of an hour, and answers when runs were begun.
    async fn looks(&self, from: &str, to: &str) -> Vec<String> {
        let (mut now, to) = (at(from), at(to));
        let mut begun = Vec::new();
        while now < to {
            if self.look_at(now).await {
                begun.push(now.to_string());
            }
            now += SignedDuration::from_mins(15);
        }
        begun
    }

    async fn expected(&self, now: &str) -> Option<String> {
        self.world.clock.set_wall(at(now));
        let expected = expected_by(&self.world.parts, &self.job, Duration::from_secs(7_200)).await.unwrap();
        expected.map(|at| at.to_string())
    }
}

const DAILY: &str = "schedule = \"02:00\"\ntime_zone = \"UTC\"";

#[tokio::test]
async fn jitter_and_blackouts_put_a_run_off() {
    let host = Host::new("schedule = \"02:00\"\ntime_zone = \"UTC\"\nblackout = [\"01:00-04:00\"]");
    assert!(!host.look("2026-03-01T12:00:00Z").await);
    assert_eq!(
        host.looks("2026-03-01T12:00:00Z", "2026-03-04T00:00:00Z").await,
        ["2026-03-02T04:00:00Z", "2026-03-03T04:00:00Z"]
    );
    let host = Host::new("schedule = \"02:00\"\ntime_zone = \"UTC\"\njitter = \"3h\"");
    assert!(!host.look("2026-03-01T12:00:00Z").await);
    for run in next_runs(&host.job, &host.world.parts.agent, at("2026-03-01T12:00:00Z")).take(5) {
        assert!(run.begins > run.due);
        assert!(!host.look_at(run.begins - SignedDuration::from_secs(1)).await);
        assert!(host.look_at(run.begins).await);
        assert!(!host.look_at(run.begins + SignedDuration::from_secs(1)).await);
    }
}

#[tokio::test]
async fn by_hand_in_the_jitter_answers_the_run() {
    let host = Host::new("schedule = \"02:00\"\ntime_zone = \"UTC\"\nblackout = [\"01:00-04:00\"]");
    assert!(!host.look("2026-03-01T12:00:00Z").await);
    host.world.clock.set_wall(at("2026-03-02T03:00:00Z"));
    host.world.send().await;
    assert!(!host.look("2026-03-02T04:00:00Z").await);
    assert!(host.look("2026-03-03T04:00:00Z").await);
}

#[tokio::test]
async fn what_was_missed_is_made_up_for_once_or_left_out() {
    let host = Host::new("schedule = \"0 * * * *\"\ntime_zone = \"UTC\"");
    assert!(host.look("2026-03-02T02:00:00Z").await);
    assert!(host.look("2026-03-05T09:20:00Z").await);
    assert!(!host.look("2026-03-05T09:21:00Z").await);
    assert!(host.look("2026-03-05T10:00:00Z").await);

    let host = Host::new(&format!("{DAILY}\ncatch_up = false"));
    assert!(host.look("2026-03-02T02:00:00Z").await);
    assert!(!host.look("2026-03-05T09:20:00Z").await);
    assert_eq!(host.expected("2026-03-05T09:20:00Z").await.unwrap(), "2026-03-06T04:00:00Z", "what is left out is not expected");
    assert!(host.look("2026-03-06T02:04:00Z").await, "a little late is not missed");
}

#[tokio::test]
async fn a_clock_that_jumps_a_day_ahead_and_back_loses_and_doubles_no_night() {
    let host = Host::new(DAILY);
    assert!(host.look("2026-03-02T02:00:00Z").await);
    // Ahead by a day: by that clock a night has passed.
    assert!(host.look("2026-03-03T10:00:00Z").await);
    // Put right: the night that was sent is not sent again, the next one is, and only once.
    let nights = host.looks("2026-03-02T10:15:00Z", "2026-03-05T00:00:00Z").await;
    assert_eq!(nights, ["2026-03-03T02:00:00Z", "2026-03-04T02:00:00Z"]);
}

#[tokio::test]
async fn a_clock_that_jumps_a_day_back_and_ahead_loses_and_doubles_no_night() {
    let host = Host::new(DAILY);
    assert!(host.look("2026-03-02T02:00:00Z").await);
    assert!(!host.look("2026-03-01T10:00:00Z").await, "the night before was not missed");
    assert!(host.look("2026-03-02T02:00:00Z").await, "a night of its own, whatever the date");
    // Put right again, a day later than that.
    assert!(host.look("2026-03-03T10:00:00Z").await, "the night that the jump left out");
    assert_eq!(host.looks("2026-03-03T10:15:00Z", "2026-03-05T00:00:00Z").await, ["2026-03-04T02:00:00Z"]);
}

#[tokio::test]
async fn what_is_left_out_takes_no_run_with_it_that_begins_later() {
    let host = Host::new(&format!("{DAILY}\njitter = \"30m\"\ncatch_up = false"));
    assert!(!host.look("2026-03-01T12:00:00Z").await);
    let runs = next_runs(&host.job, &host.world.parts.agent, at("2026-03-02T12:00:00Z"));
    let run = runs.into_iter().find(|run| run.jitter > Duration::from_secs(6 * 60)).unwrap();
    let boot = run.due + SignedDuration::from_mins(5);
    assert!(!host.look_at(boot).await, "the night before is left out");
    let expected = expected_by(&host.world.parts, &host.job, Duration::from_secs(7_200)).await.unwrap();
    assert_eq!(expected, Some(run.begins + SignedDuration::from_hours(2)), "and is not expected, but this one is");
    assert_eq!(upcoming(&host.world.parts, &host.job, boot).unwrap(), Some(run));
    assert!(!host.look_at(run.begins - SignedDuration::from_secs(1)).await);
    assert!(host.look_at(run.begins).await);

    let host = Host::new(&format!("{DAILY}\nblackout = [\"01:00-04:00\"]\ncatch_up = false"));
    assert!(host.looks("2026-03-01T12:00:00Z", "2026-03-02T05:00:00Z").await.len() == 1);
    assert!(!host.look("2026-03-04T03:00:00Z").await, "the night before is left out");
    assert_eq!(host.expected("2026-03-04T03:00:00Z").await.unwrap(), "2026-03-04T06:00:00Z");
    assert!(host.look("2026-03-04T04:00:00Z").await);
}

#[tokio::test]
async fn what_is_made_up_for_waits_until_the_blackout_is_over() {
    let host = Host::new(&format!("{DAILY}\nblackout = [\"07:00-18:00\"]"));
    let (parts, files, layout) = (&host.world.parts, &*host.world.parts.files, &host.world.parts.layout);
    assert!(host.look("2026-03-02T02:00:00Z").await);
    for (now, free) in [("2026-03-03T07:00:00Z", false), ("2026-03-03T17:59:59Z", false), ("2026-03-03T18:00:00Z", true)] {
        let run = upcoming(parts, &host.job, at(now)).unwrap().unwrap();
        assert_eq!((run.due, run.blackout), (at("2026-03-03T02:00:00Z"), !free), "{now}");
        assert_eq!(run.begins, at(if free { "2026-03-03T02:00:00Z" } else { "2026-03-03T18:00:00Z" }), "{now}");
        let next = if free { "2026-03-04T02:00:00Z" } else { "2026-03-03T18:00:00Z" };
        assert_eq!(next_begin(parts, &host.job, at(now)).unwrap().unwrap().begins, at(next), "{now}");
        assert_eq!(host.look(now).await, free, "{now}");
    }
    assert!(!host.look("2026-03-03T18:00:01Z").await, "once");

    Pause::new(at("2026-03-03T20:00:00Z"), Some(at("2026-03-04T08:00:00Z")), "me", None).begin(files, layout).unwrap();
    assert_eq!(host.looks("2026-03-04T01:00:00Z", "2026-03-04T23:00:00Z").await, ["2026-03-04T18:00:00Z"], "after a pause");

    host.world.clock.set_wall(at("2026-03-05T02:00:00Z"));
    assert!(host.begin().await);
    host.world.clock.set_wall(at("2026-03-06T08:00:00Z"));
    assert!(!host.begin().await, "the transfer is open");
    host.finish().await;
    assert_eq!(host.looks("2026-03-06T08:15:00Z", "2026-03-06T23:00:00Z").await, ["2026-03-06T18:00:00Z"], "after a transfer");
}

#[tokio::test]
async fn without_catch_up_lateness_counts_from_the_end_of_the_blackout() {
    let timing =
        "schedule = \"58 6 * * *\"\ntime_zone = \"UTC\"\ncatch_up = false\nblackout = [\"07:00-18:00\", \"18:02-20:00\"]";
    for (end, begins) in [
        ("2026-03-02T18:01:00Z", true),
        ("2026-03-02T18:03:00Z", false),
        ("2026-03-02T20:05:00Z", true),
        ("2026-03-02T20:05:01Z", false),
    ] {
        let host = Host::new(timing);
        assert!(!host.look("2026-03-01T12:00:00Z").await);
        assert!(!host.look("2026-03-02T07:01:00Z").await, "it waits for the end of the blackout");
        let begins_by_list = upcoming(&host.world.parts, &host.job, at("2026-03-02T07:01:00Z")).unwrap().unwrap().begins;
        assert_eq!(begins_by_list, at("2026-03-02T18:00:00Z"));
        assert_eq!(host.look(end).await, begins, "{end}");
    }
    // What was too late before the blackout began is left out at once, and is not announced.
    let host = Host::new(&format!("{DAILY}\ncatch_up = false\nblackout = [\"07:00-18:00\"]"));
    assert!(!host.look("2026-03-01T12:00:00Z").await);
    assert!(!host.look("2026-03-02T12:00:00Z").await);
    assert_eq!(
        next_begin(&host.world.parts, &host.job, at("2026-03-02T12:00:00Z")).unwrap().unwrap().begins,
        at("2026-03-03T02:00:00Z")
    );
    assert!(host.looks("2026-03-02T12:15:00Z", "2026-03-03T02:00:00Z").await.is_empty());
}

#[tokio::test]
async fn a_clock_that_is_behind_at_boot_and_put_right_sends_nothing_again() {
    for timing in [DAILY.to_owned(), format!("{DAILY}\ncatch_up = false")] {
        for behind in ["1970-01-01T00:00:30Z", "2026-03-01T10:00:00Z", "2026-03-02T01:50:00Z"] {
            let host = Host::new(&timing);
            assert!(host.look("2026-03-02T02:00:00Z").await);
            assert!(!host.look(behind).await, "{behind}");
            assert!(!host.look_at(at(behind) + SignedDuration::from_secs(30)).await, "{behind}");
            assert_eq!(host.expected("2026-03-02T09:00:00Z").await.unwrap(), "2026-03-03T04:00:00Z", "{behind}");
            let shown = upcoming(&host.world.parts, &host.job, at("2026-03-02T09:00:00Z")).unwrap().unwrap();
            assert_eq!(shown.due, at("2026-03-03T02:00:00Z"), "{behind}");
            let nights = host.looks("2026-03-02T09:00:00Z", "2026-03-05T00:00:00Z").await;
            assert_eq!(nights, ["2026-03-03T02:00:00Z", "2026-03-04T02:00:00Z"], "{behind}");
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_behind_at_boot_forgets_nothing_of_a_job_that_was_not_sent() {
    let host = Host::new(&format!("{DAILY}\ncatch_up = false"));
    assert!(!host.look("2026-03-01T12:00:00Z").await);
    assert!(!host.look("2026-03-03T12:00:00Z").await, "left out");
    for _ in 0..2 {
        assert!(!host.look("1970-01-01T00:00:30Z").await);
        assert!(!host.look("2000-01-01T00:00:30Z").await);
        assert!(!host.look("1980-01-01T00:00:30Z").await);
        assert_eq!(host.expected("2026-03-03T12:05:00Z").await.unwrap(), "2026-03-04T04:00:00Z");
        assert!(!host.look("2026-03-03T12:05:00Z").await);
        assert_eq!(host.expected("2026-03-03T12:06:00Z").await.unwrap(), "2026-03-04T04:00:00Z");
    }
    assert!(host.look("2026-03-04T02:00:00Z").await);
}

#[tokio::test]
async fn a_clock_that_is_behind_at_boot_and_a_lost_file_send_nothing_again() {
    let host = Host::new(DAILY);
    assert!(host.look("2026-03-02T02:00:00Z").await);
    host.world.parts.files.remove(&host.world.parts.layout.schedule()).unwrap();
    assert!(!host.look("2026-02-20T10:00:00Z").await);
    assert_eq!(host.looks("2026-03-02T09:00:00Z", "2026-03-04T00:00:00Z").await, ["2026-03-03T02:00:00Z"]);
}

#[tokio::test]
async fn the_night_that_a_clock_ahead_had_settled_is_begun_when_it_really_comes() {
    let host = Host::new(DAILY);
    // Ahead by exactly a day: the true night comes at the very time that was settled.
    assert!(!host.look("2026-03-02T12:00:00Z").await);
    assert!(host.look("2026-03-03T02:00:00Z").await);
    assert!(!host.look("2026-03-02T02:01:00Z").await);
    assert!(!host.look("2026-03-03T01:59:50Z").await);
    assert!(host.look("2026-03-03T02:00:20Z").await);
    assert!(!host.look("2026-03-03T02:00:50Z").await);
}

#[tokio::test]
async fn a_clock_that_is_put_right_just_after_a_run_does_not_send_it_again() {
    for behind in ["1970-01-01T01:58:00Z", "2026-03-01T01:59:30Z", "2026-03-02T01:50:00Z", "2026-03-02T01:54:59Z"] {
        for right in ["2026-03-02T02:00:30Z", "2026-03-02T02:00:59Z"] {
            let host = Host::new(DAILY);
            assert!(host.look("2026-03-02T02:00:00Z").await);
            assert!(!host.look(behind).await, "{behind}");
            assert!(!host.look(right).await, "{behind}, {right}");
            assert_eq!(host.expected(right).await.unwrap(), "2026-03-03T04:00:00Z", "{behind}, {right}");
            let nights = host.looks("2026-03-02T02:15:00Z", "2026-03-04T00:00:00Z").await;
            assert_eq!(nights, ["2026-03-03T02:00:00Z"], "{behind}, {right}");
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_put_back_a_little_does_not_send_twice() {
    let host = Host::new(DAILY);
    assert!(host.look("2026-03-02T02:00:00Z").await);
    for now in ["2026-03-02T01:56:00Z", "2026-03-02T01:59:59Z", "2026-03-02T02:00:00Z", "2026-03-02T02:00:01Z"] {
        assert!(!host.look(now).await, "{now}");
    }
}

#[tokio::test]
async fn another_time_zone_loses_and_doubles_no_night() {
    for (before, after) in [
        ("Europe/Berlin", "America/New_York"),
        ("America/New_York", "Europe/Berlin"),
        ("Europe/Berlin", "Asia/Tokyo"),
        ("UTC", "Australia/Lord_Howe"),
    ] {
        for hour in 0..24 {
            let mut host = Host::new(&format!("schedule = \"02:00\"\ntime_zone = \"{before}\""));
            assert!(!host.look("2026-07-01T12:00:00Z").await);
            let moved = at("2026-07-05T00:00:00Z") + SignedDuration::from_hours(hour);
            let mut begun = Vec::new();
            let mut now = at("2026-07-01T12:00:00Z");
            while now < at("2026-07-09T12:00:00Z") {
                if now == moved {
                    host.job = job(&format!("schedule = \"02:00\"\ntime_zone = \"{after}\""));
                }
                if host.look_at(now).await {
                    begun.push(now);
                }
                now += SignedDuration::from_hours(1);
            }
            let told = format!("from {before} to {after} at {moved}: {begun:?}");
            assert!((7..=9).contains(&begun.len()), "{told}");
            for two in begun.windows(2) {
                let hours = two[1].duration_since(two[0]).as_hours();
                assert!((12..=38).contains(&hours), "{hours} h {told}");
            }
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_loses_no_night_and_doubles_none() {
    let host = Host::new(DAILY);
    assert!(host.look("2026-03-02T02:00:00Z").await);
    for damaged in ["", "{}", "{\"version\":7,\"jobs\":{}}", "\u{0}\u{0}"] {
        crate::small_file::write(&*host.world.files, &host.world.parts.layout.schedule(), damaged.as_bytes()).unwrap();
        assert!(!host.look("2026-03-02T03:00:00Z").await, "{damaged}");
    }
    host.world.parts.files.remove(&host.world.parts.layout.schedule()).unwrap();
    assert!(host.look("2026-03-03T07:00:00Z").await);
}

#[tokio::test]
async fn the_relay_expects_the_oldest_run_that_it_has_not_got() {
    let host = Host::new(DAILY);
    assert_eq!(Host::new("").expected("2026-03-01T12:00:00Z").await, None);
    assert_eq!(host.expected("2026-03-01T12:00:00Z").await.unwrap(), "2026-03-02T04:00:00Z");
    assert!(!host.look("2026-03-01T12:00:00Z").await);
    host.world.clock.set_wall(at("2026-03-02T02:00:00Z"));
    assert!(host.begin().await);
    let open = "begun is not arrived";
    assert_eq!(host.expected("2026-03-02T02:30:00Z").await.unwrap(), "2026-03-02T04:00:00Z", "{open}");
    assert_eq!(host.expected("2026-03-04T02:30:00Z").await.unwrap(), "2026-03-02T04:00:00Z", "{open}, and the oldest counts");
    host.world.clock.set_wall(at("2026-03-04T02:31:00Z"));
    host.finish().await;
    // The transfer was made for the second, and the third and fourth are not answered yet.
    assert_eq!(host.expected("2026-03-04T02:40:00Z").await.unwrap(), "2026-03-03T04:00:00Z");
    assert!(host.look("2026-03-04T02:41:00Z").await);
    assert_eq!(host.expected("2026-03-04T02:50:00Z").await.unwrap(), "2026-03-05T04:00:00Z");
}

#[tokio::test]
async fn what_waits_for_the_end_of_a_blackout_is_expected_after_it() {
    let host = Host::new(&format!("{DAILY}\nblackout = [\"07:00-18:00\"]"));
    assert!(host.look("2026-03-02T02:00:00Z").await);
    assert!(!host.look("2026-03-03T07:00:00Z").await, "the host was off all night");
    assert_eq!(host.expected("2026-03-03T07:00:01Z").await.unwrap(), "2026-03-03T20:00:00Z");
    host.world.clock.set_wall(at("2026-03-03T18:00:00Z"));
    assert!(host.begin().await);
    assert_eq!(host.expected("2026-03-03T18:00:01Z").await.unwrap(), "2026-03-03T20:00:00Z", "it is on its way");
    assert_eq!(host.expected("2026-03-04T03:00:00Z").await.unwrap(), "2026-03-03T20:00:00Z", "and late in the end");
    host.world.clock.set_wall(at("2026-03-04T03:00:01Z"));
    host.finish().await;
    assert_eq!(host.expected("2026-03-04T03:00:02Z").await.unwrap(), "2026-03-04T04:00:00Z", "the next one waits for nothing");

    let (files, layout) = (&*host.world.parts.files, &host.world.parts.layout);
    Pause::new(at("2026-03-04T03:01:00Z"), Some(at("2026-03-04T08:00:00Z")), "me", None).begin(files, layout).unwrap();
    assert_eq!(host.expected("2026-03-04T03:02:00Z").await.unwrap(), "2026-03-04T20:00:00Z", "the pause ends in a blackout");
}

#[tokio::test]
async fn what_the_app_lacks_is_sent_in_full_when_the_blackout_is_over() {
    let host = Host::new(&format!("{DAILY}\nblackout = [\"07:00-18:00\"]"));
    assert!(host.look("2026-03-02T02:00:00Z").await);
    host.world.far.reject(Some(Rejection { code: Code::BaseMissing, detail: "lost".into() }));
    assert!(host.look("2026-03-03T02:00:00Z").await);
    host.world.far.reject(None);
    for now in ["2026-03-03T07:00:00Z", "2026-03-03T12:00:00Z", "2026-03-03T17:59:59Z"] {
        assert!(!host.look(now).await, "{now}");
    }
    assert!(host.look("2026-03-03T18:00:00Z").await);
    assert!(!host.look("2026-03-03T18:00:30Z").await, "once");
}

#[tokio::test]
async fn while_paused_nothing_is_planned_and_nothing_expected_before_the_end() {
    let host = Host::new(DAILY);
    let (files, layout) = (&*host.world.parts.files, &host.world.parts.layout);
    assert!(host.look("2026-03-02T02:00:00Z").await);
    Pause::new(at("2026-03-02T12:00:00Z"), Some(at("2026-03-04T08:00:00Z")), "me", None).begin(files, layout).unwrap();
    assert!(!host.look("2026-03-03T02:00:00Z").await);
    assert_eq!(host.expected("2026-03-03T02:00:00Z").await.unwrap(), "2026-03-04T10:00:00Z");
    assert!(host.look("2026-03-04T08:00:00Z").await, "made up for, once");
    assert!(!host.look("2026-03-04T08:00:30Z").await);
    Pause::new(at("2026-03-04T12:00:00Z"), None, "me", None).begin(files, layout).unwrap();
    assert_eq!(host.expected("2026-03-06T02:00:00Z").await, None);
    Pause::end(files, layout, at("2026-03-06T02:00:00Z")).unwrap();
    assert_eq!(host.expected("2026-03-06T02:00:00Z").await.unwrap(), "2026-03-05T04:00:00Z");
}

#[tokio::test]
async fn two_that_plan_at_once_begin_one_transfer() {
    let world = World::new();
    let name = "main".parse().unwrap();
    let both = futures::future::join_all((0..8).map(|_| plan(&world.parts, &name, false))).await;
    let ids: std::collections::BTreeSet<_> = both.iter().map(|plan| plan.as_ref().unwrap().record().key.id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(both.iter().filter(|plan| matches!(plan, Ok(Plan::New(_)))).count(), 1);
}
