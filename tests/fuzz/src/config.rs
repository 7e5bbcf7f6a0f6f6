//! Configuration files, and schedules.

use std::path::Path;

use jiff::{Timestamp, tz::TimeZone};
use towpath_agent::config::Schedule;

use crate::texts;

/// Where files of configurations would lie; nothing is read there.
const FILE: &str = "/nonexistent/towpath.toml";

fn told<T>(text: &str, parsed: Result<T, towpath_host::ConfigMistake>) {
    if let Err(mistake) = parsed {
        let said = mistake.to_string();
        assert!(said.starts_with(FILE), "a mistake has its place: {said}");
        // Whatever is wrong with a file, what is said of it stays readable.
        assert!(said.len() <= text.len().saturating_mul(4) + 16 * 1024);
    }
}

pub(crate) fn agent(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = towpath_agent::config::Config::parse(text, Path::new(FILE));
    let every = towpath_agent::config::Config::every_mistake(text, Path::new(FILE));
    assert_eq!(parsed.as_ref().ok(), every.as_ref().ok(), "the first mistake is one of them");
    assert!(every.err().is_none_or(|mistakes| !mistakes.is_empty()));
    told(text, parsed);
}

pub(crate) fn agent_seeds() -> Vec<Vec<u8>> {
    let job = "[[job]]\nname = \"main\"\nschedule = \"0 2 * * mon-fri\"\nzone = \"Europe/Berlin\"\n[job.source]\nkind = \"sqlite\"\n\
        file = \"erp.sqlite\"\n[[job.table]]\nname = \"items\"\nkey = [\"id\"]\npseudonymise = [\"name\"]\n[job.table.types]\nid = \"BIGINT\"\n";
    let files = "[[job]]\nname = \"drop\"\n[job.source]\nkind = \"files\"\nfolder = \"/srv/drop\"\n[[job.table]]\nname = \"items\"\n\
        files = \"items-*.csv\"\n[job.table.csv]\ndelimiter = \";\"\nquote = \"\"\nencoding = \"cp850\"\n";
    let delivery =
        "[[delivery]]\nkind = \"orders\"\nfolder = \"/srv/in\"\n[delivery.run]\nprogram = \"import\"\narguments = [\"{file}\"]\n";
    let mut all = texts(&[job, files, delivery]);
    all.extend(pieces(towpath_agent::config::EXAMPLE));
    all
}

/// The tables of an example, each by itself, so that a short input has a chance to be valid.
fn pieces(example: &str) -> Vec<Vec<u8>> {
    let plain = example.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty());
    let mut all: Vec<String> = vec![String::new()];
    for line in plain {
        if line.starts_with('[') {
            all.push(String::new());
        }
        if let Some(last) = all.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    all.into_iter().filter(|text| !text.is_empty()).map(String::into_bytes).collect()
}

pub(crate) fn relay(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = towpath_relay::config::Config::parse(text, Path::new(FILE));
    if let Ok(config) = &parsed {
        let (ssh, web) = (config.ssh.limits(), config.web_limits());
        assert!(ssh.unauthenticated > 0 && web.body_bytes > 0 && config.spool_limits().total_bytes > 0);
    }
    told(text, parsed);
}

pub(crate) fn relay_seeds() -> Vec<Vec<u8>> {
    pieces(towpath_relay::config::EXAMPLE)
}

pub(crate) fn receiver(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = towpath_receiver::config::Config::parse(text, Path::new(FILE));
    if let Ok(config) = &parsed {
        let _ = config.warnings();
    }
    told(text, parsed);
}

pub(crate) fn receiver_seeds() -> Vec<Vec<u8>> {
    pieces(towpath_receiver::config::EXAMPLE)
}

pub(crate) fn schedule(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let schedule = match text.parse::<Schedule>() {
        Ok(schedule) => schedule,
        Err(wrong) => {
            assert!(wrong.place.start <= wrong.place.end && wrong.place.end <= text.len(), "{wrong:?}");
            assert!(text.get(wrong.place.clone()).is_some(), "{wrong:?} is between characters");
            return;
        }
    };
    let zone = TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::UTC);
    let start: Timestamp = "2025-03-29T12:00:00Z".parse().unwrap();
    let mut before = start;
    for due in schedule.after(start, &zone).take(4) {
        assert!(due.at > before, "each is later than the one before");
        before = due.at;
    }
    assert!(before > start, "what is accepted has a day");
    let mut after = start;
    for due in schedule.until(start, &zone).take(3) {
        assert!(due.at <= after);
        after = due.at;
    }
}

pub(crate) fn schedule_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "02:00",
        "0 2 * * mon-fri",
        "*/15 * * * *",
        "30 2 29 2 *",
        "0 0 L * *",
        "0 0 * * friL,sun#2",
        "0 0 1,15-20/2 jan-dec fri-mon",
        "@monthly",
        "0 0 31 2 *",
    ])
}
