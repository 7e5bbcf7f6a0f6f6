//! Cron expressions: `minute hour day-of-month month day-of-week`, as cron(5) has them, with `L` and `#` for last and nth days.
//!
//! Not a library: what the known ones mean by a time that the clock skips or shows twice differs from what is promised here, and
//! they do not say where in the expression a mistake is.

use std::ops::Range;

use jiff::civil::{Date, Weekday, date};

/// Weekdays by cron's numbers, 0 for Sunday.
pub(super) const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
/// What stands for an expression.
const SHORTHANDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];
/// After so many years dates fall on the same weekdays again, so what has not come until then never does.
const CALENDAR_CYCLE_YEARS: i16 = 400;

/// What is wrong in an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Bytes of the text.
    pub(super) place: Range<usize>,
    /// What is wrong and what is right.
    pub(super) problem: String,
}

/// A cron expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    last_day: bool,
    months: u64,
    weekdays: u64,
    /// Weekdays whose last one in a month counts.
    last_weekdays: u64,
    /// For each week of a month, the weekdays that count.
    nth_weekdays: [u64; 5],
    /// Whether a date needs both its day of the month and its weekday; else one is enough.
    both: bool,
    /// Whether the hours do not matter.
    every_hour: bool,
}

struct Field {
    what: &'static str,
    least: u8,
    most: u8,
    names: &'static [&'static str],
    /// The number of the first name.
    first_name: u8,
    wraps: bool,
}

const MINUTE: Field = Field { what: "minute", least: 0, most: 59, names: &[], first_name: 0, wraps: false };
const HOUR: Field = Field { what: "hour", least: 0, most: 23, names: &[], first_name: 0, wraps: false };
const DAY: Field = Field { what: "day of the month", least: 1, most: 31, names: &[], first_name: 0, wraps: false };
const MONTH: Field = Field { what: "month", least: 1, most: 12, names: &MONTHS, first_name: 1, wraps: false };
const WEEKDAY: Field = Field { what: "day of the week", least: 0, most: 7, names: &WEEKDAYS, first_name: 0, wraps: true };

/// A piece of the expression and where it begins.
#[derive(Clone, Copy)]
struct Piece<'t> {
    text: &'t str,
    start: usize,
}

impl<'t> Piece<'t> {
    fn wrong(self, problem: impl Into<String>) -> Mistake {
        Mistake { place: self.start..self.start + self.text.len(), problem: problem.into() }
    }

    fn split(self, separator: char) -> impl Iterator<Item = Self> {
        let mut start = self.start;
        self.text.split(separator).map(move |text| {
            let piece = Self { text, start };
            start += text.len() + separator.len_utf8();
            piece
        })
    }

    fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let (before, after) = self.text.split_once(separator)?;
        let start = self.start + before.len() + separator.len_utf8();
        Some((Self { text: before, start: self.start }, Piece { text: after, start }))
    }

    fn strip_suffix(self, suffix: &str) -> Option<Piece<'t>> {
        let kept = self.text.len().checked_sub(suffix.len())?;
        let end = self.text.get(kept..)?;
        end.eq_ignore_ascii_case(suffix).then_some(Self { text: self.text.get(..kept)?, start: self.start })
    }
}

impl Cron {
    /// Every day at a time of day.
    pub(super) const fn daily(hour: u8, minute: u8) -> Self {
        Self {
            minutes: 1 << minute,
            hours: 1 << hour,
            days: u64::MAX,
            last_day: false,
            months: u64::MAX,
            weekdays: u64::MAX,
            last_weekdays: 0,
            nth_weekdays: [0; 5],
            both: true,
            every_hour: false,
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, Mistake> {
        let whole = Piece { text, start: 0 };
        if text.trim_start().starts_with('@') {
            let known = SHORTHANDS.iter().find(|(word, _)| text.trim().eq_ignore_ascii_case(word));
            let words = "@hourly, @daily, @weekly, @monthly and @yearly";
            let (_, meant) = known.ok_or_else(|| whole.wrong(format!("there are only {words}; or write five fields")))?;
            return Self::parse(meant);
        }
        let fields: Vec<Piece<'_>> = whole.split(' ').filter(|piece| !piece.text.is_empty()).collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else { return Err(wrong_number(whole, &fields)) };
        let (minutes, hours, months) = (plain(&MINUTE, minute)?, plain(&HOUR, hour)?, plain(&MONTH, month)?);
        let mut cron = Self { minutes, hours, months, days: 0, weekdays: 0, ..Self::daily(0, 0) };
        cron.every_hour = hour.text.starts_with('*') || hours == (1 << 24) - 1;
        cron.both = day.text.starts_with('*') || weekday.text.starts_with('*');
        for item in day.split(',') {
            if item.text.eq_ignore_ascii_case("l") {
                cron.last_day = true;
            } else {
                cron.days |= values(&DAY, item)?;
            }
        }
        for item in weekday.split(',') {
            cron.add_weekday(item)?;
        }
        if !cron.has_a_day() {
            return Err(whole.wrong("no day is like that, so it would never begin"));
        }
        Ok(cron)
    }

    fn add_weekday(&mut self, item: Piece<'_>) -> Result<(), Mistake> {
        if let Some((weekday, nth)) = item.split_once('#') {
            let bit = 1 << (number(&WEEKDAY, weekday)? % 7);
            let week = nth.text.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).and_then(|n| self.nth_weekdays.get_mut(n));
            *week.ok_or_else(|| nth.wrong("the week of the month is 1 to 5, as in fri#2"))? |= bit;
        } else if let Some(weekday) = item.strip_suffix("l") {
            if weekday.text.is_empty() {
                return Err(item.wrong("say which weekday is to be the month's last, as in friL"));
            }
            self.last_weekdays |= 1 << (number(&WEEKDAY, weekday)? % 7);
        } else {
            let bits = values(&WEEKDAY, item)?;
            self.weekdays |= (bits | bits >> 7) & 0x7f;
        }
        Ok(())
    }

    /// Whether anything begins on this date.
    pub(super) fn is_on(&self, date: Date) -> bool {
        let bit = |set: u64, number: i8| set >> number & 1 == 1;
        if !bit(self.months, date.month()) {
            return false;
        }
        let weekday = date.weekday().to_sunday_zero_offset();
        let (day, last) = (date.day(), date.days_in_month());
        let nth = usize::try_from((day - 1) / 7).ok().and_then(|week| self.nth_weekdays.get(week)).copied().unwrap_or(0);
        let by_day = bit(self.days, day) || self.last_day && day == last;
        let by_weekday = bit(self.weekdays, weekday) || bit(nth, weekday) || bit(self.last_weekdays, weekday) && day + 7 > last;
        if self.both { by_day && by_weekday } else { by_day || by_weekday }
    }

    /// The times of day, in order.
    pub(super) fn times(&self) -> impl Iterator<Item = jiff::civil::Time> + '_ {
        let hours = (0..24_i8).filter(|hour| self.hours >> hour & 1 == 1);
        hours.flat_map(|hour| {
            let minutes = (0..60_i8).filter(|minute| self.minutes >> minute & 1 == 1);
            minutes.map(move |minute| jiff::civil::time(hour, minute, 0, 0))
        })
    }

    /// Whether it goes by intervals, whatever the hour is.
    pub(super) const fn is_every_hour(&self) -> bool {
        self.every_hour
    }

    fn has_a_day(&self) -> bool {
        let mut day = Some(date(2000, 1, 1));
        while let Some(date) = day.filter(|date| date.year() < 2000 + CALENDAR_CYCLE_YEARS) {
            if self.is_on(date) {
                return true;
            }
            day = date.tomorrow().ok();
        }
        false
    }
}

fn wrong_number(whole: Piece<'_>, fields: &[Piece<'_>]) -> Mistake {
    const FORM: &str = "minute hour day-of-month month day-of-week, as in \"0 2 * * *\"";
    match fields {
        [first, _, _, _, _, _] => first.wrong(format!("there are six fields: leave out the seconds; five are {FORM}")),
        _ => whole.wrong(format!("a schedule is a time of day such as \"02:00\", or five fields: {FORM}")),
    }
}

fn plain(field: &Field, piece: Piece<'_>) -> Result<u64, Mistake> {
    piece.split(',').try_fold(0, |bits, item| Ok(bits | values(field, item)?))
}

/// `*`, `5`, `1-5`, each but the second with `/2` as well, as a set.
fn values(field: &Field, item: Piece<'_>) -> Result<u64, Mistake> {
    let (base, step) = match item.split_once('/') {
        Some((base, step)) => {
            let number = step.text.parse::<u8>().ok().filter(|n| (1..=field.most).contains(n));
            let wrong = || step.wrong(format!("a step of the {} is 1 to {}", field.what, field.most));
            (base, Some(number.ok_or_else(wrong)?))
        }
        None => (item, None),
    };
    let (from, to) = if base.text == "*" {
        // Seven is Sunday once more.
        (field.least, if field.wraps { field.most - 1 } else { field.most })
    } else if let Some((from, to)) = base.split_once('-') {
        (number(field, from)?, number(field, to)?)
    } else {
        let only = number(field, base)?;
        if step.is_some() {
            return Err(item.wrong(format!("a step needs a range: */{0} or {only}-{1}/{0}", step.unwrap_or(1), field.most)));
        }
        (only, only)
    };
    // Weekdays go round: fri-mon are four days.
    let to = match to < from {
        true if field.wraps => to + 7,
        true => return Err(base.wrong("the range goes backwards")),
        false => to,
    };
    let set = (from..=to).step_by(usize::from(step.unwrap_or(1)));
    Ok(set.fold(0, |bits, n| bits | 1 << if field.wraps { n % 7 } else { n }))
}

fn number(field: &Field, piece: Piece<'_>) -> Result<u8, Mistake> {
    let digits = !piece.text.is_empty() && piece.text.bytes().all(|byte| byte.is_ascii_digit());
    let number = piece.text.parse::<u8>().ok().filter(|n| digits && (field.least..=field.most).contains(n));
    let named = || field.names.iter().zip(field.first_name..).find(|(name, _)| piece.text.eq_ignore_ascii_case(name));
    number.or_else(|| named().map(|(_, n)| n)).ok_or_else(|| piece.wrong(no_number(field, piece.text)))
}

fn no_number(field: &Field, given: &str) -> String {
    let names = if field.names.is_empty() { String::new() } else { format!(", or one of {}", field.names.join(" ")) };
    let hint = match given {
        "?" => "; write * for any",
        "L" | "l" => "; L is for the last day of the month, and friL for its last Friday",
        _ if given.ends_with(['W', 'w']) => "; W is not known here",
        _ => "",
    };
    format!("{given:?} is no {}: that is {} to {}{names}{hint}", field.what, field.least, field.most)
}

/// The bit of a weekday in a set by cron's numbers.
pub(super) fn weekday_bit(weekday: Weekday) -> u64 {
    1 << weekday.to_sunday_zero_offset()
}

/// A set of weekdays such as `mon-fri` or `sat,sun`, by cron's numbers.
pub(super) fn weekdays(text: &str) -> Result<u64, String> {
    plain(&WEEKDAY, Piece { text, start: 0 }).map_err(|mistake| mistake.problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days(cron: &str, year: i16, month: i8) -> Vec<i8> {
        let cron = Cron::parse(cron).unwrap();
        let first = date(year, month, 1);
        (1..=first.days_in_month()).filter(|day| cron.is_on(date(year, month, *day))).collect()
    }

    fn times(cron: &str) -> Vec<String> {
        Cron::parse(cron).unwrap().times().map(|time| time.strftime("%H:%M").to_string()).collect()
    }

    fn wrong(cron: &str) -> (Range<usize>, String) {
        let mistake = Cron::parse(cron).unwrap_err();
        (mistake.place, mistake.problem)
    }

    #[test]
    fn times_of_day_are_lists_ranges_and_steps() {
        assert_eq!(times("0 2 * * *"), ["02:00"]);
        assert_eq!(times("*/20 9-11/2 * * *"), ["09:00", "09:20", "09:40", "11:00", "11:20", "11:40"]);
        assert_eq!(times("5,59 0,23 * * *"), ["00:05", "00:59", "23:05", "23:59"]);
        assert_eq!(times("* * * * *").len(), 1440);
        assert_eq!(times("@hourly").len(), 24);
    }

    #[test]
    fn days_are_numbers_names_last_and_nth_ones() {
        // July 2026 begins on a Wednesday.
        assert_eq!(days("0 2 1,15 * *", 2026, 7), [1, 15]);
        assert_eq!(days("0 2 L * *", 2026, 2), [28]);
        assert_eq!(days("0 2 L FEB *", 2028, 2), [29]);
        assert_eq!(days("0 2 L feb *", 2028, 3), Vec::<i8>::new());
        assert_eq!(days("0 2 * * mon", 2026, 7), [6, 13, 20, 27]);
        assert_eq!(days("0 2 * * 0", 2026, 7), days("0 2 * * 7", 2026, 7));
        assert_eq!(days("0 2 * * sat-sun", 2026, 7), [4, 5, 11, 12, 18, 19, 25, 26]);
        assert_eq!(days("0 2 * * 5-7", 2026, 7), days("0 2 * * fri,sat,sun", 2026, 7));
        assert_eq!(days("0 2 * * FRI-MON", 2026, 7), days("0 2 * * 0,1,5,6", 2026, 7));
        assert_eq!(days("0 2 * * fri#2", 2026, 7), [10]);
        assert_eq!(days("0 2 * * 5#5", 2026, 7), [31]);
        assert_eq!(days("0 2 * * friL,monl", 2026, 7), [27, 31]);
        assert_eq!(days("0 2 * * *", 2026, 7).len(), 31);
        assert_eq!(days("0 2 * * */2", 2026, 7), days("0 2 * * sun,tue,thu,sat", 2026, 7));
    }

    #[test]
    fn a_day_of_the_month_and_a_weekday_are_either_or_as_in_cron() {
        assert_eq!(days("0 2 13 * fri", 2026, 7), [3, 10, 13, 17, 24, 31]);
        // A star on either side needs both, also with a step.
        assert_eq!(days("0 2 */2 * fri", 2026, 7), [3, 17, 31]);
        assert_eq!(days("0 2 13 * *", 2026, 7), [13]);
    }

    #[test]
    fn mistakes_name_their_place_and_what_is_right() {
        assert_eq!(wrong("60 2 * * *").0, 0..2);
        assert!(wrong("60 2 * * *").1.contains("\"60\" is no minute: that is 0 to 59"));
        assert_eq!(wrong("0 2 * * mon,wen").0, 12..15);
        assert!(wrong("0 2 * * mon,wen").1.contains("or one of sun mon tue wed"));
        assert_eq!(wrong("0 2 0 * *").0, 4..5);
        assert!(wrong("0 0 2 * * *").1.contains("leave out the seconds"));
        assert!(wrong("0 2 * *").1.contains("five fields"));
        assert!(wrong("").1.contains("five fields"));
        assert!(wrong("0 5-2 * * *").1.contains("backwards"));
        assert!(wrong("5/15 * * * *").1.contains("*/15 or 5-59/15"));
        assert!(wrong("*/0 * * * *").1.contains("a step of the minute is 1 to 59"));
        assert!(wrong("0 2 ? * *").1.contains("write * for any"));
        assert!(wrong("0 2 15W * *").1.contains("W is not known"));
        assert!(wrong("0 2 * * L").1.contains("friL"));
        assert!(wrong("0 2 * * fri#6").1.contains("1 to 5"));
        assert!(wrong("@reboot").1.contains("@daily"));
        assert!(wrong("0 2 +1 * *").1.contains("is no day of the month"));
        assert!(wrong("0 2, * * *").1.contains("is no hour"));
        assert!(wrong("0 2 * jän *").1.contains("is no month"));
    }

    #[test]
    fn what_never_comes_is_refused() {
        assert!(wrong("0 2 30 2 *").1.contains("never"));
        assert!(wrong("0 2 31 4,6 *").1.contains("never"));
        assert!(Cron::parse("0 2 29 2 *").is_ok());
        assert!(Cron::parse("0 2 30 2 mon").is_ok(), "Mondays in February");
    }
}
