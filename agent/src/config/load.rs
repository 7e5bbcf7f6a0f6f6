//! Reads the configuration file into checked values.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::Spanned;
use towpath_host::{ConfigMistake, config};
use towpath_transfer::{Failure, JobName};

use super::{
    Config, DailyTime, DownlinkConfig, ExtractConfig, JobConfig, MAX_JOBS, MAX_WORKERS, PushConfig, ReceiptConfig, SourceConfig,
    StateConfig, Trust, delivery, network::RawNetwork, source, table,
};

/// A configuration and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedConfig {
    /// The file.
    pub file: PathBuf,
    /// Its content, checked.
    pub config: Config,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    #[serde(default)]
    trust: Trust,
    #[serde(default)]
    state: StateConfig,
    #[serde(default)]
    network: RawNetwork,
    #[serde(default)]
    extract: Section<ExtractConfig>,
    #[serde(default)]
    push: PushConfig,
    #[serde(default)]
    receipt: Section<ReceiptConfig>,
    #[serde(default)]
    downlink: DownlinkConfig,
    #[serde(default, rename = "job")]
    jobs: Vec<Spanned<RawJob>>,
    #[serde(default, rename = "delivery")]
    deliveries: Vec<delivery::RawDelivery>,
}

/// A section that may be absent, and where it stands when it is not.
type Section<T> = Option<Spanned<T>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawJob {
    name: Spanned<JobName>,
    schedule: Option<DailyTime>,
    source: Spanned<source::RawSource>,
    #[serde(default, rename = "table")]
    tables: Vec<table::RawTable>,
}

impl LoadedConfig {
    /// Reads `file`. Relative paths in it count from its folder.
    ///
    /// # Errors
    /// `config-missing` where there is no such file, `config-invalid` with line and column where it has a mistake.
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let text = config::read_text(file)?;
        Ok(Self { file: file.to_owned(), config: Config::parse(&text, file)? })
    }
}

impl Config {
    /// Reads the text of a configuration file; `file` names it in mistakes, and its folder resolves relative paths.
    ///
    /// # Errors
    /// The first [`ConfigMistake`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigMistake> {
        let raw: RawConfig = config::parse(text, file)?;
        let check = Check { file, text };
        let extract_span = raw.extract.as_ref().map(Spanned::span);
        let extract = raw.extract.map(Spanned::into_inner).unwrap_or_default();
        if !(1..=MAX_WORKERS).contains(&extract.workers) {
            return Err(check.at(extract_span, format!("workers must be 1 to {MAX_WORKERS}")));
        }
        let receipt_span = raw.receipt.as_ref().map(Spanned::span);
        let receipt = raw.receipt.map(Spanned::into_inner).unwrap_or_default();
        if receipt.poll < Duration::from_millis(100) {
            return Err(check.at(receipt_span, "poll must be at least 100ms"));
        }
        let folder = file.parent().unwrap_or(Path::new(""));
        let state = StateConfig { folder: raw.state.folder.map(|state| folder.join(state)) };
        let network = raw.network.check(folder, |span, problem| check.at(span, problem))?;
        let jobs = check.jobs(raw.jobs, folder)?;
        let deliveries = delivery::deliveries(raw.deliveries, folder, &|span, problem| check.at(span, problem))?;
        Ok(Self { trust: raw.trust, state, network, extract, push: raw.push, receipt, downlink: raw.downlink, jobs, deliveries })
    }
}

struct Check<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Check<'_> {
    fn at(&self, span: Option<std::ops::Range<usize>>, problem: impl Into<String>) -> ConfigMistake {
        ConfigMistake::at(self.file, self.text, span, problem)
    }

    fn jobs(&self, raw: Vec<Spanned<RawJob>>, folder: &Path) -> Result<Vec<JobConfig>, ConfigMistake> {
        let mut names = HashSet::new();
        let mut jobs = Vec::new();
        for job in raw {
            let span = job.span();
            if jobs.len() >= MAX_JOBS {
                return Err(self.at(Some(span), format!("there are more than {MAX_JOBS} jobs")));
            }
            let RawJob { name, schedule, source, tables } = job.into_inner();
            if !names.insert(name.get_ref().clone()) {
                return Err(self.at(Some(name.span()), format!("another job is called {:?}", name.get_ref().as_str())));
            }
            if tables.is_empty() {
                return Err(self.at(Some(span), format!("job {:?} has no [[job.table]]", name.get_ref().as_str())));
            }
            let at: source::At<'_> = &|span, problem| self.at(span, problem);
            let source_span = source.span();
            let source = source.into_inner().check(source_span, folder, at)?;
            let of_files = matches!(source, SourceConfig::Files(_));
            let tables = table::tables(tables, of_files, at)?;
            jobs.push(JobConfig { name: name.into_inner(), schedule, source, tables });
        }
        Ok(jobs)
    }
}

#[cfg(test)]
mod tests {
    use towpath_transfer::{Code, manifest::SqlType};

    use super::*;
    use crate::config::{EXAMPLE, MAX_TABLES};

    const JOB: &str =
        "[[job]]\nname = \"main\"\n[job.source]\nkind = \"sqlite\"\npath = \"erp.sqlite\"\n[[job.table]]\nname = \"items\"\n";

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/towpath/agent.toml")).unwrap()
    }

    fn mistake(text: &str) -> String {
        Config::parse(text, Path::new("agent.toml")).unwrap_err().to_string()
    }

    #[test]
    fn the_example_is_the_defaults() {
        let example = parse(EXAMPLE);
        let least = parse(JOB);
        assert_eq!(Config { jobs: Vec::new(), ..example }, Config { jobs: Vec::new(), ..least });
        // Every setting with a default stands in the example and is not commented out.
        for key in ["trust", "workers", "max_bytes_per_second", "poll"] {
            assert!(EXAMPLE.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
        }
    }

    #[test]
    fn relative_paths_count_from_the_file() {
        let SourceConfig::Sqlite { path, busy_timeout } = parse(JOB).jobs.remove(0).source else { panic!("another kind") };
        assert_eq!(path, Path::new("/etc/towpath/erp.sqlite"));
        assert_eq!(busy_timeout, None);
    }

    #[test]
    fn a_table_has_query_types_and_file() {
        let text = format!("{JOB}query = \"SELECT 1\"\nfile = \"artikel.csv\"\n[job.table.types]\nprice = \"DECIMAL(30,10)\"\n");
        let table = parse(&text).jobs.remove(0).tables.remove(0);
        assert_eq!(table.csv_name().unwrap().as_str(), "artikel.csv");
        assert_eq!(table.types.get("price"), Some(&SqlType::Decimal { precision: 30, scale: 10 }));
    }

    #[test]
    fn unknown_keys_are_refused_with_place_and_suggestion() {
        let said = mistake(&JOB.replace("name = \"items\"", "nmae = \"items\""));
        assert!(said.starts_with("agent.toml:7:1: unknown field `nmae`"), "{said}");
        assert!(said.ends_with("did you mean `name`?"), "{said}");
        let said = mistake(&JOB.replace("kind = \"sqlite\"", "kind = \"sqlit\""));
        assert!(said.starts_with("agent.toml:4:8: "), "{said}");
        assert!(said.contains("did you mean `sqlite`?"), "{said}");
        let said = mistake("trsut = \"approve\"\n");
        assert!(said.contains("did you mean `trust`?"), "{said}");
        let said = mistake(&JOB.replace("path = ", "pth = "));
        assert!(said.starts_with("agent.toml:5:1: unknown field `pth`"), "{said}");
    }

    #[test]
    fn what_contradicts_itself_is_refused_where_it_stands() {
        let twice = format!("{JOB}\n{JOB}");
        assert!(mistake(&twice).starts_with("agent.toml:10:8: another job is called \"main\""), "{}", mistake(&twice));
        let tables = format!("{JOB}[[job.table]]\nname = \"ITEMS\"\n");
        assert!(mistake(&tables).contains("agent.toml:9:8: another table"), "{}", mistake(&tables));
        let files = format!("{JOB}[[job.table]]\nname = \"other\"\nfile = \"Items.csv\"\n");
        assert!(mistake(&files).contains("writes the file Items.csv"), "{}", mistake(&files));
        let none = JOB.replace("[[job.table]]\nname = \"items\"\n", "");
        assert!(mistake(&none).contains("no [[job.table]]"));
        assert!(mistake(&JOB.replace("path = \"erp.sqlite\"\n", "")).contains("needs `path`"));
        assert!(mistake(&JOB.replace("\"items\"", "\"a/b\"")).contains("give it a `file`"));
        assert!(mistake(&JOB.replace("name = \"items\"", "name = \"manifest\"\nfile = \"manifest.json\"")).contains("reserved"));
        assert!(mistake("[extract]\nworkers = 0\n").contains("agent.toml:1:"));
        assert!(mistake("[receipt]\npoll = \"1ms\"\n").contains("at least 100ms"));
        assert!(mistake("[receipt]\npoll = \"soon\"\n").contains("agent.toml:2:8: a duration looks like"));
        assert!(mistake(&JOB.replace("[job.source]", "schedule = \"2am\"\n[job.source]")).contains("agent.toml:3:12: "));
        assert!(mistake(&format!("{JOB}query = \" \"\n")).contains("the query is empty"));
    }

    #[test]
    fn the_limits_hold() {
        let tables: String = (0..=MAX_TABLES).map(|n| format!("[[job.table]]\nname = \"t{n}\"\n")).collect();
        assert!(mistake(&JOB.replace("[[job.table]]\nname = \"items\"\n", &tables)).contains("more than 10000 tables"));
        let jobs: String = (0..=MAX_JOBS).map(|n| JOB.replace("main", &format!("j{n}"))).collect();
        assert!(mistake(&jobs).contains("more than 100 jobs"));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, "#".repeat(config::MAX_CONFIG_BYTES + 1)).unwrap();
        assert_eq!(LoadedConfig::read(&file).unwrap_err().code(), Code::ConfigInvalid);
        assert_eq!(LoadedConfig::read(&folder.path().join("none.toml")).unwrap_err().code(), Code::ConfigMissing);
    }
}
