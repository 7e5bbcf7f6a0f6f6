//! The settings of a job that say when it is sent.

use std::ops::Range;

use towpath_host::{ConfigMistake, Spanned};

use super::{
    JobConfig, MAX_JITTER, MAX_WINDOWS, Schedule, Window, parse_duration, schedule::InvalidSchedule, source::At,
    window::leave_time,
};

pub(super) struct RawTiming {
    pub(super) schedule: Option<Spanned<String>>,
    pub(super) time_zone: Option<Spanned<String>>,
    pub(super) jitter: Option<Spanned<String>>,
    pub(super) blackout: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) catch_up: Option<Spanned<bool>>,
}

impl RawTiming {
    /// Puts the settings into `job`; `text` is the whole file.
    pub(super) fn check(self, job: &mut JobConfig, text: &str, at: At<'_>) -> Result<(), ConfigMistake> {
        let Some(schedule) = self.schedule else { return self.nothing_without_schedule(at) };
        let parsed = schedule.get_ref().parse::<Schedule>();
        let wrong = |InvalidSchedule { place, problem }| at(Some(within(text, &schedule, place)), problem);
        job.schedule = Some(parsed.map_err(wrong)?);
        if let Some(zone) = self.time_zone {
            job.time_zone = Some(zone.get_ref().parse().map_err(|problem| at(Some(zone.span()), problem))?);
        }
        if let Some(jitter) = self.jitter {
            let wrong = |problem: String| at(Some(jitter.span()), problem);
            job.jitter = parse_duration(jitter.get_ref()).map_err(|problem| wrong(problem.to_owned()))?;
            if job.jitter > MAX_JITTER {
                return Err(wrong(format!("jitter must be at most {} hours", MAX_JITTER.as_secs() / 3_600)));
            }
        }
        if let Some(blackout) = self.blackout {
            job.blackout = windows(blackout, at)?;
        }
        job.catch_up = self.catch_up.is_none_or(Spanned::into_inner);
        Ok(())
    }

    fn nothing_without_schedule(self, at: At<'_>) -> Result<(), ConfigMistake> {
        let text = |key: Option<Spanned<String>>| key.map(|key| key.span());
        let keys = [
            ("time_zone", text(self.time_zone)),
            ("jitter", text(self.jitter)),
            ("blackout", self.blackout.map(|key| key.span())),
            ("catch_up", self.catch_up.map(|key| key.span())),
        ];
        match keys.into_iter().find(|(_, span)| span.is_some()) {
            Some((key, span)) => Err(at(span, format!("`{key}` belongs to a `schedule`, and the job has none"))),
            None => Ok(()),
        }
    }
}

fn windows(raw: Spanned<Vec<Spanned<String>>>, at: At<'_>) -> Result<Vec<Window>, ConfigMistake> {
    let span = raw.span();
    let raw = raw.into_inner();
    if raw.len() > MAX_WINDOWS {
        return Err(at(Some(span), format!("there are more than {MAX_WINDOWS} windows")));
    }
    let parsed = raw.iter().map(|text| text.get_ref().parse().map_err(|error| at(Some(text.span()), format!("{error}"))));
    let windows = parsed.collect::<Result<Vec<Window>, _>>()?;
    if !leave_time(&windows) {
        return Err(at(Some(span), "the blackouts leave no time of the week in which a run could begin".to_owned()));
    }
    Ok(windows)
}

/// The place in the file of a part of a text, where the text stands there as it is; else the place of the text.
fn within(file: &str, value: &Spanned<String>, part: Range<usize>) -> Range<usize> {
    let inside = value.span().start + 1;
    let is_plain = file.get(inside..).is_some_and(|rest| rest.starts_with(value.get_ref().as_str()));
    if is_plain { inside + part.start..inside + part.end } else { value.span() }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use crate::config::Config;

    fn read(timing: &str) -> Result<Config, String> {
        let text = format!(
            "[[job]]\nname = \"main\"\n{timing}\n[job.source]\nkind = \"sqlite\"\npath = \"erp.sqlite\"\n[[job.table]]\nname = \"t\"\n"
        );
        Config::parse(&text, Path::new("agent.toml")).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn a_job_says_when_it_is_sent() {
        let config = read(
            "schedule = \"0 2 * * mon-fri\"\ntime_zone = \"Europe/Berlin\"\njitter = \"10m\"\nblackout = [\"mon-fri 07:00-18:00\"]\ncatch_up = false",
        );
        let job = config.unwrap().jobs.remove(0);
        assert_eq!(job.schedule.as_ref().unwrap().to_string(), "0 2 * * mon-fri");
        assert_eq!(job.zone().iana_name(), Some("Europe/Berlin"));
        assert_eq!((job.jitter, job.blackout.len(), job.catch_up), (Duration::from_secs(600), 1, false));
        let shown = toml::to_string(&job).unwrap();
        for line in ["schedule = \"0 2 * * mon-fri\"", "time_zone = \"Europe/Berlin\"", "jitter = \"10m\"", "catch_up = false"] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
        assert!(read("schedule = \"02:00\"").unwrap().jobs[0].catch_up);
    }

    #[test]
    fn mistakes_stand_where_they_are_made() {
        let said = |timing: &str, place: &str, problem: &str| {
            let said = read(timing).unwrap_err();
            assert!(said.starts_with(&format!("agent.toml:3:{place}: ")) && said.contains(problem), "{said}");
        };
        said("schedule = \"0 25 * * *\"", "15", "\"25\" is no hour");
        said("schedule = '0 2 * * wen'", "21", "is no day of the week");
        said("schedule = \"0 2 * * \\u0031x\"", "12", "is no day of the week");
        said("schedule = \"2am\"", "13", "a time of day such as");
        said("schedule = \"2:00\"", "13", "two digits each");
        said("schedule = \"25:00\"", "13", "\"25:00\" is no time of day, which goes from \"00:00\" to \"23:59\"");
        said("schedule = \"0 0 2 * * *\"", "13", "leave out the seconds");
        said("catch_up = true", "12", "`catch_up` belongs to a `schedule`");
        let after = |timing: &str, problem: &str| {
            let said = read(&format!("schedule = \"02:00\"\n{timing}")).unwrap_err();
            assert!(said.starts_with("agent.toml:4:") && said.contains(problem), "{said}");
        };
        after("time_zone = \"berlin\"", "did you mean `Europe/Berlin`?");
        after("time_zone = \"Mars/Base\"", "there is no time zone");
        after("jitter = \"13h\"", "at most 12 hours");
        after("jitter = \"soon\"", "a duration looks like");
        after("blackout = [\"07:00-18:00\", \"mo 1-2\"]", "is no day of the week");
        after("blackout = [\"06:00-22:00\", \"22:00-06:00\"]", "leave no time");
        let many = vec!["\"07:00-18:00\""; crate::config::MAX_WINDOWS + 1].join(",");
        after(&format!("blackout = [{many}]"), "more than 50 windows");
    }

    #[test]
    fn the_bandwidth_has_windows() {
        let read = |text: &str| Config::parse(text, Path::new("agent.toml"));
        let window = |during: &str| format!("[[bandwidth.window]]\nduring = \"{during}\"\nmax_bytes_per_second = 250_000\n");
        let config = read(&format!("[bandwidth]\nmax_bytes_per_second = 9\n{}", window("mon-fri 07:00-18:00"))).unwrap();
        assert_eq!(config.bandwidth.windows[0].max_bytes_per_second, 250_000);
        let said = read(&window("monday")).unwrap_err().to_string();
        assert!(said.starts_with("agent.toml:2:10: a window looks like"), "{said}");
        assert!(read(&window("07:00-08:00").repeat(51)).unwrap_err().to_string().contains("more than 50 windows"));
    }
}
