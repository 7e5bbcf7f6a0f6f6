//! Days as an ERP writes them: ISO text without zone.

use std::sync::Arc;

use jiff::{ToSpan, civil::Date};

use super::random::Random;

/// The first day with sales.
pub(super) const FIRST_DAY: Date = jiff::civil::date(2014, 1, 2);
/// The last day before the ERP is touched again; a fixed one, so that the same seed gives the same data for ever.
pub(super) const LAST_DAY: Date = jiff::civil::date(2025, 12, 30);
/// "Without end", as ERP systems write it.
pub(super) const NEVER: &str = "9999-12-31";
/// "Without end" as a timestamp.
pub(super) const NEVER_AT: &str = "9999-12-31 23:59:59";
/// Days that no program expects: the empty date of old clients, the first day of a calendar, a birth in another century.
pub(super) const ODD_DAYS: &[&str] = &["1899-12-30", "1753-01-01", "0001-01-01", "1848-03-18", "2000-02-29", NEVER];
/// A time that no clock showed in Central Europe; a timestamp without zone holds it all the same.
pub(super) const SPRING_GAP: &str = "2024-03-31 02:30:00";

/// Every day from the first to the last that is no Sunday.
pub(super) fn working_days() -> Vec<Arc<str>> {
    let days = std::iter::successors(Some(FIRST_DAY), |day| day.tomorrow().ok()).take_while(|day| *day <= LAST_DAY);
    days.filter(|day| day.weekday() != jiff::civil::Weekday::Sunday).map(text).collect()
}

/// The next day that is no Sunday; the same day at the end of time.
pub(super) fn next_working_day(day: Date) -> Date {
    let next = day.tomorrow().unwrap_or(day);
    if next.weekday() == jiff::civil::Weekday::Sunday { next.tomorrow().unwrap_or(next) } else { next }
}

pub(super) fn text(day: Date) -> Arc<str> {
    Arc::from(day.to_string())
}

/// A day from the years of the ERP.
pub(super) fn past(random: &mut Random) -> String {
    let days = random.between(0, 4_300);
    FIRST_DAY.checked_add(days.days()).unwrap_or(LAST_DAY).to_string()
}

/// A day within about a year after [`LAST_DAY`].
pub(super) fn soon(random: &mut Random) -> String {
    let days = random.between(1, 360);
    LAST_DAY.checked_add(days.days()).unwrap_or(LAST_DAY).to_string()
}

/// A time of `day` in office hours; a few with milliseconds.
pub(super) fn at(random: &mut Random, day: &str) -> String {
    let seconds = random.between(6 * 3_600, 20 * 3_600 - 1);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if random.percent(3) {
        return format!("{day} {hour:02}:{minute:02}:{second:02}.{:03}", random.below(1_000));
    }
    format!("{day} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_days_are_years_without_a_sunday() {
        let days = working_days();
        assert_eq!(days.first().map(AsRef::as_ref), Some("2014-01-02"));
        assert_eq!(days.last().map(AsRef::as_ref), Some("2025-12-30"));
        assert!(days.len() > 3_700);
        assert!(!days.iter().any(|day| day.as_ref() == "2014-01-05"));
        assert_eq!(next_working_day(jiff::civil::date(2026, 1, 3)), jiff::civil::date(2026, 1, 5));
        assert_eq!(next_working_day(Date::MAX), Date::MAX);
    }

    #[test]
    fn draws_are_days_and_times() {
        let mut random = Random::new(1, 1, "days");
        for _ in 0..1_000 {
            let day = past(&mut random);
            assert!((FIRST_DAY..=LAST_DAY).contains(&day.parse::<Date>().unwrap()));
            assert!(at(&mut random, &day).parse::<jiff::civil::DateTime>().is_ok());
            assert!(soon(&mut random).parse::<Date>().unwrap() > LAST_DAY);
        }
    }
}
