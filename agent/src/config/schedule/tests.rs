use jiff::{SignedDuration, ToSpan as _, civil::date};
use proptest::prelude::*;

use super::*;

const ZONES: [&str; 3] = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

/// The changes of clocks from 2020 to 2030.
fn changes(zone: &TimeZone) -> Vec<Timestamp> {
    let (from, to) = (at("2020-01-01T00:00:00Z"), at("2031-01-01T00:00:00Z"));
    zone.following(from).map(|change| change.timestamp()).take_while(|change| *change < to).collect()
}

fn between(schedule: &Schedule, zone: &TimeZone, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    schedule.after(from, zone).map(|occurrence| occurrence.at).take_while(|at| *at < to).collect()
}

#[test]
fn around_every_change_of_ten_years_a_daily_run_comes_once_a_day_at_its_time() {
    let days = SignedDuration::from_hours(3 * 24);
    for name in ZONES {
        let zone = TimeZone::get(name).unwrap();
        let changes = changes(&zone);
        assert!(changes.len() >= 20, "{name} has {}", changes.len());
        for change in changes {
            let first = zone.to_datetime(change - days).date();
            let changes_on = zone.to_datetime(change).date();
            for (hour, minute) in (0..5_i8).flat_map(|hour| (0..60_i8).map(move |minute| (hour, minute))) {
                let told = format!("{hour:02}:{minute:02} in {name} around {change}");
                let time = jiff::civil::time(hour, minute, 0, 0);
                let runs = schedule(&format!("{minute} {hour} * * *")).after(change - days, &zone);
                let runs: Vec<Occurrence> = runs.take_while(|run| run.at < change + days).collect();
                let on: Vec<Date> = runs.iter().map(|run| zone.to_datetime(run.at).date()).collect();
                let starts_at = *on.first().unwrap();
                assert!(starts_at == first || starts_at == first.tomorrow().unwrap(), "{told}: {on:?}");
                for two in on.windows(2) {
                    assert_eq!(two[0].tomorrow().unwrap(), two[1], "{told}");
                }
                assert!((5..=7).contains(&on.len()), "{told}: {on:?}");
                for run in runs {
                    assert_eq!(run.local.time(), time, "{told}");
                    let wall = zone.to_datetime(run.at);
                    if wall != run.local {
                        assert_eq!((run.at, wall.date()), (change, changes_on), "{told}: what is skipped comes right after");
                        assert!(wall > run.local, "{told}");
                    }
                }
            }
        }
    }
}

#[test]
fn of_an_hour_that_comes_twice_the_first_counts_and_a_skipped_time_comes_right_after() {
    let zone = berlin();
    let days = |from: &str, text: &str| between(&schedule(text), &zone, at(from), at(from) + SignedDuration::from_hours(48));
    let twice = days("2026-10-24T12:00:00Z", "02:30");
    assert_eq!(twice, [at("2026-10-25T00:30:00Z"), at("2026-10-26T01:30:00Z")]);
    let skipped = days("2026-03-28T12:00:00Z", "02:30");
    assert_eq!(skipped, [at("2026-03-29T01:00:00Z"), at("2026-03-30T00:30:00Z")]);
    // Several in one skipped hour, and one right after it, are one.
    let many = days("2026-03-28T12:00:00Z", "*/15 2,3 * * *");
    assert_eq!(many[..3], [at("2026-03-29T01:00:00Z"), at("2026-03-29T01:15:00Z"), at("2026-03-29T01:30:00Z")]);
    assert_eq!(many.len(), 4 + 8);
}

#[test]
fn intervals_go_by_real_time() {
    for name in ZONES {
        let zone = TimeZone::get(name).unwrap();
        for change in changes(&zone) {
            let (from, to) = (change - SignedDuration::from_hours(6), change + SignedDuration::from_hours(6));
            let runs = between(&schedule("*/15 * * * *"), &zone, from, to);
            assert_eq!(runs.len(), 12 * 4 - 1, "{name} around {change}");
            assert!(runs.windows(2).all(|two| two[1].duration_since(two[0]).as_mins() == 15), "{name} around {change}");
        }
    }
    let hourly = between(&schedule("0 * * * *"), &berlin(), at("2026-10-24T22:30:00Z"), at("2026-10-25T03:30:00Z"));
    assert_eq!(hourly.len(), 5);
}

#[test]
fn backwards_is_the_same_the_other_way() {
    for name in ZONES {
        let zone = TimeZone::get(name).unwrap();
        for text in ["02:30", "15 2 * * *", "*/20 * * * *", "0 0-4 * * sun", "30 1,2 L * *"] {
            let schedule = schedule(text);
            for change in changes(&zone).into_iter().take(4) {
                let (from, to) = (change - SignedDuration::from_hours(50), change + SignedDuration::from_hours(50));
                let forward: Vec<Occurrence> = schedule.after(from, &zone).take_while(|run| run.at <= to).collect();
                let mut back: Vec<Occurrence> = schedule.until(to, &zone).take_while(|run| run.at > from).collect();
                back.reverse();
                let times = |runs: &[Occurrence]| runs.iter().map(|run| run.at).collect::<Vec<_>>();
                assert_eq!(times(&forward), times(&back), "{text} in {name} around {change}");
            }
        }
    }
}

#[test]
fn the_bound_itself_counts_backwards_and_not_forwards() {
    let (zone, two) = (TimeZone::UTC, at("2026-01-15T02:00:00Z"));
    let daily = schedule("02:00");
    assert_eq!(daily.after(two, &zone).next().unwrap().at, at("2026-01-16T02:00:00Z"));
    assert_eq!(daily.until(two, &zone).next().unwrap().at, two);
    let before = two - SignedDuration::from_nanos(1);
    assert_eq!(daily.after(before, &zone).next().unwrap().at, two);
    assert_eq!(daily.until(before, &zone).next().unwrap().at, at("2026-01-14T02:00:00Z"));
}

#[test]
fn a_midnight_that_is_skipped_and_a_day_that_is_skipped_lose_and_double_nothing() {
    let beirut = TimeZone::get("Asia/Beirut").unwrap();
    let runs = between(&schedule("00:30"), &beirut, at("2026-03-27T12:00:00Z"), at("2026-03-30T12:00:00Z"));
    assert_eq!(runs, [at("2026-03-27T22:30:00Z"), at("2026-03-28T22:00:00Z"), at("2026-03-29T21:30:00Z")]);
    // Samoa had no 30 December 2011.
    let apia = TimeZone::get("Pacific/Apia").unwrap();
    let runs = between(&schedule("00:00"), &apia, at("2011-12-29T00:00:00Z"), at("2012-01-01T00:00:00Z"));
    assert_eq!(runs, [at("2011-12-29T10:00:00Z"), at("2011-12-30T10:00:00Z"), at("2011-12-31T10:00:00Z")]);
}

#[test]
fn what_comes_rarely_is_found() {
    let leap = schedule("0 2 29 2 *").after(at("2096-03-01T00:00:00Z"), &TimeZone::UTC).next().unwrap();
    assert_eq!(leap.at, at("2104-02-29T02:00:00Z"));
}

#[test]
fn there_is_an_end_where_the_calendar_ends() {
    assert!(schedule("02:00").after(Timestamp::MAX, &berlin()).next().is_none());
    assert!(schedule("02:00").until(Timestamp::MIN, &berlin()).next().is_none());
}

#[test]
fn zones_have_their_names() {
    assert_eq!("Europe/Berlin".parse::<Zone>().unwrap().to_string(), "Europe/Berlin");
    assert_eq!("UTC".parse::<Zone>().unwrap().to_string(), "UTC");
    assert!("new york".parse::<Zone>().unwrap_err().contains("did you mean `America/New_York`?"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Every day has its run, and no day has two, whenever one looks and however far one steps.
    #[test]
    fn a_daily_run_is_once_a_day(hour in 0_i8..24, minute in 0_i8..60, zone in 0_usize..3, day in 0_i32..3_900, seconds in 0_i64..86_400) {
        let zone = TimeZone::get(ZONES[zone]).unwrap();
        let schedule = schedule(&format!("{hour:02}:{minute:02}"));
        let start = date(2020, 1, 1).checked_add(day.days()).unwrap().to_zoned(zone.clone()).unwrap().timestamp();
        let start = start + SignedDuration::from_secs(seconds);
        let runs: Vec<Occurrence> = schedule.after(start, &zone).take(40).collect();
        for two in runs.windows(2) {
            prop_assert_eq!(two[0].local.date().tomorrow().unwrap(), two[1].local.date());
            prop_assert!(two[1].at > two[0].at);
            prop_assert_eq!(zone.to_datetime(two[0].at).date(), two[0].local.date());
            prop_assert_eq!(schedule.until(two[1].at - SignedDuration::from_nanos(1), &zone).next().map(|run| run.at), Some(two[0].at));
        }
        let before = schedule.until(start, &zone).next().unwrap();
        prop_assert!(before.at <= start && schedule.after(before.at, &zone).next().unwrap().at == runs[0].at);
    }

    /// Nothing that an expression can be stops the search or panics.
    #[test]
    fn any_text_is_read_or_refused(text in "[0-9*,/#LWa-z@: -]{0,24}") {
        if let Ok(schedule) = text.parse::<Schedule>() {
            let next = schedule.after(at("2026-01-01T00:00:00Z"), &berlin()).next().unwrap();
            prop_assert!(next.at > at("2026-01-01T00:00:00Z"));
        }
    }
}
