//! Reads the configuration file into checked values.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::Deserialize;
use towpath_alert::RawAlert;
use towpath_host::{ConfigMistake, LogConfig, Spanned, config};
use towpath_transfer::{Code, Failure, JobName};

use super::{
    Config, DownlinkConfig, EXAMPLE, ExtractConfig, JobConfig, MAX_JOBS, MAX_WORKERS, ReceiptConfig, SourceConfig, StateConfig,
    Trust,
    bandwidth::RawBandwidth,
    delivery,
    network::RawNetwork,
    profile::{self, Profile},
    source, table,
    timing::RawTiming,
    update::RawUpdate,
};

/// A configuration and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedConfig {
    /// The file.
    pub file: PathBuf,
    /// Its content, checked.
    pub config: Config,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Configuration of towpath-agent", rename = "Config")]
struct RawConfig {
    /// Whom the agent believes to be the receiver.
    #[serde(default)]
    trust: Trust,
    /// Where the agent keeps what it must not lose.
    #[serde(default)]
    state: StateConfig,
    /// What is logged, and where.
    #[serde(default)]
    log: LogConfig,
    /// Who is told once when a run has failed or is missing, and once when all is well again.
    #[serde(default)]
    alert: RawAlert,
    /// How the relay is reached.
    #[serde(default)]
    network: RawNetwork,
    /// How much of the host an extract may use.
    #[serde(default)]
    extract: Section<ExtractConfig>,
    /// How much of the line the agent takes.
    #[serde(default)]
    bandwidth: RawBandwidth,
    /// How receipts are fetched.
    #[serde(default)]
    receipt: Section<ReceiptConfig>,
    /// How return files are asked for.
    #[serde(default)]
    downlink: Section<DownlinkConfig>,
    /// Whether a new version is taken from the relay, and when.
    #[serde(default)]
    update: RawUpdate,
    /// One for each ERP company on this host.
    #[serde(default, rename = "job")]
    jobs: Vec<Spanned<RawJob>>,
    /// One for each kind of return files: where they go.
    #[serde(default, rename = "delivery")]
    deliveries: Vec<delivery::RawDelivery>,
}

/// A section that may be absent, and where it stands when it is not.
type Section<T> = Option<Spanned<T>>;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Job")]
struct RawJob {
    /// The job's name, unique on this host.
    #[schemars(with = "String", regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    name: Spanned<JobName>,
    /// When `run` sends it: a time of day such as 02:00, or cron's five fields such as 0 2 * * mon-fri. Without it by hand only.
    schedule: Option<Spanned<String>>,
    /// By the clock of which time zone, with its IANA name such as Europe/Berlin; this host's own where it is not said.
    time_zone: Option<Spanned<String>>,
    /// A run begins up to so much later than it is due; always the same for the same agent, job and day.
    #[schemars(with = "Option<super::time::Long>")]
    jitter: Option<Spanned<String>>,
    /// Windows of the week in which no run begins, such as mon-fri 07:00-18:00.
    blackout: Option<Spanned<Vec<Spanned<String>>>>,
    /// Whether what was due while this host was off, or the agent paused, is made up for, once.
    catch_up: Option<Spanned<bool>>,
    /// Ready tables for an ERP: a name of `towpath-agent profile list`, or the path of a file.
    profile: Option<Spanned<String>>,
    /// What the profile leaves to the job.
    #[schemars(with = "BTreeMap<String, ParameterValue>")]
    #[serde(default)]
    profile_parameters: BTreeMap<String, Spanned<toml::Value>>,
    /// Where the rows come from.
    source: Spanned<source::RawSource>,
    /// What is read; all from one state of the database.
    #[serde(default, rename = "table")]
    tables: Vec<table::RawTable>,
}

/// What a parameter of a profile may be.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used; `profile::value` reads it")]
enum ParameterValue {
    Text(String),
    Number(i64),
}

/// The JSON Schema of the configuration file, from the types that read it.
///
/// # Errors
/// `internal`, never while the tests pass.
pub fn schema() -> Result<String, Failure> {
    towpath_host::schema::text_of::<RawConfig>()
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

    /// As [`LoadedConfig::read`], for a person who asks what is wrong: every mistake is told, on standard error or as JSON on standard
    /// output.
    ///
    /// # Errors
    /// As [`LoadedConfig::read`].
    pub fn checked(file: &Path, json: bool) -> Result<Self, Failure> {
        let config = config::checked(file, EXAMPLE, json, &|text| Config::parse(text, file))?;
        Ok(Self { file: file.to_owned(), config })
    }
}

impl Config {
    /// As [`Config::parse`], with every mistake.
    ///
    /// # Errors
    /// The mistakes, in the order of their places.
    pub fn every_mistake(text: &str, file: &Path) -> Result<Self, Vec<ConfigMistake>> {
        config::every_mistake(text, file, EXAMPLE, &|text| Self::parse(text, file))
    }

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
        let downlink_span = raw.downlink.as_ref().map(Spanned::span);
        let downlink = raw.downlink.map(Spanned::into_inner).unwrap_or_default();
        if downlink.unpacked_file.0 == 0 {
            return Err(check.at(downlink_span, "unpacked_file must be at least 1B: nothing would ever be taken"));
        }
        let folder = file.parent().unwrap_or(Path::new(""));
        let state = StateConfig { folder: raw.state.folder.map(|state| folder.join(state)), ..raw.state };
        let log = raw.log.resolved(folder);
        let alert = raw.alert.check(folder, &|span, problem| check.at(span, problem))?;
        let network = raw.network.check(folder, |span, problem| check.at(span, problem))?;
        let bandwidth = raw.bandwidth.check(|span, problem| check.at(span, problem))?;
        let update = raw.update.check(|span, problem| check.at(span, problem))?;
        let jobs = check.jobs(raw.jobs, folder)?;
        let deliveries = delivery::deliveries(raw.deliveries, folder, &|span, problem| check.at(span, problem))?;
        Ok(Self { trust: raw.trust, state, log, alert, network, extract, bandwidth, receipt, downlink, update, jobs, deliveries })
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
        let mut folders = HashSet::new();
        let mut jobs = Vec::new();
        for job in raw {
            let span = job.span();
            if jobs.len() >= MAX_JOBS {
                return Err(self.at(Some(span), format!("there are more than {MAX_JOBS} jobs")));
            }
            let RawJob { name, schedule, time_zone, jitter, blackout, catch_up, profile, profile_parameters, source, tables } =
                job.into_inner();
            if !names.insert(name.get_ref().clone()) {
                return Err(self.at(Some(name.span()), format!("another job is called {:?}", name.get_ref().as_str())));
            }
            if tables.is_empty() && profile.is_none() {
                let told = format!("job {:?} has no [[job.table]] and no `profile`", name.get_ref().as_str());
                return Err(self.at(Some(span), told));
            }
            let at: source::At<'_> = &|span, problem| self.at(span, problem);
            let source_span = source.span();
            let source = source.into_inner().check(source_span.clone(), folder, at)?;
            if let SourceConfig::Files(files) = &source {
                let archive = files.archive.clone().unwrap_or_else(|| files.folder.join(super::DEFAULT_ARCHIVE));
                if !folders.insert(files.folder.clone()) || !folders.insert(archive) {
                    let told = "another job has the same folder or the same archive: each would take the files of the other";
                    return Err(self.at(Some(source_span), told));
                }
            }
            let of_files = matches!(source, SourceConfig::Files(_));
            let tables = table::tables(tables, of_files, at)?;
            let mut job = JobConfig::new(name.into_inner(), source, tables);
            RawTiming { schedule, time_zone, jitter, blackout, catch_up }.check(&mut job, self.text, at)?;
            if let Some(profile) = profile {
                self.add_profile(&mut job, &profile, profile_parameters, folder)?;
            } else if let Some((_, value)) = profile_parameters.first_key_value() {
                return Err(self.at(Some(value.span()), "`profile_parameters` belong to a `profile`"));
            }
            jobs.push(job);
        }
        Ok(jobs)
    }

    /// Puts the tables of a profile under a job's own.
    fn add_profile(
        &self,
        job: &mut JobConfig,
        reference: &Spanned<String>,
        parameters: BTreeMap<String, Spanned<toml::Value>>,
        folder: &Path,
    ) -> Result<(), ConfigMistake> {
        let span = Some(reference.span());
        let mut given = BTreeMap::new();
        for (name, value) in parameters {
            let text = profile::value(value.get_ref()).map_err(|problem| self.at(Some(value.span()), problem))?;
            given.insert(name, text);
        }
        let wrong = |problem: String| {
            let names = Profile::names();
            let mistake = self.at(span.clone(), problem);
            if mistake.problem.starts_with("there is no profile") { mistake.meaning(reference.get_ref(), names) } else { mistake }
        };
        let own = std::mem::take(&mut job.tables);
        job.use_profile(reference.get_ref(), given, folder, &wrong)?;
        job.tables = profile::merged(std::mem::take(&mut job.tables), own);
        table::check_files(&job.tables).map_err(&wrong)
    }
}

impl JobConfig {
    /// The job with the tables of a profile in the place of its own. A relative path counts from `folder`. Parameters that are not
    /// given are those that the job has, where it has this profile.
    ///
    /// # Errors
    /// `config-invalid`: there is no such profile, it has a mistake, lacks a parameter, or is not for this kind of source.
    pub fn with_profile(&self, reference: &str, mut given: BTreeMap<String, String>, folder: &Path) -> Result<Self, Failure> {
        let wrong = |problem: String| Failure::park(Code::ConfigInvalid, problem);
        let mut job = self.clone();
        if self.profile.as_deref() == Some(&resolved(reference, folder)) {
            for (name, value) in &self.profile_parameters {
                given.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        job.use_profile(reference, given, folder, &wrong)?;
        Ok(job)
    }

    /// The profile that the job names, with its parameters in it.
    ///
    /// # Errors
    /// As [`JobConfig::with_profile`], where its file has changed since the configuration was read.
    pub fn read_profile(&self) -> Result<Option<Profile>, Failure> {
        let wrong = |problem: String| Failure::park(Code::ConfigInvalid, problem);
        let Some(reference) = &self.profile else { return Ok(None) };
        let profile = Profile::find(reference, Path::new(""), wrong)?;
        Ok(Some(profile.filled(&self.profile_parameters).map_err(wrong)?))
    }

    fn use_profile<E: From<ConfigMistake>>(
        &mut self,
        reference: &str,
        given: BTreeMap<String, String>,
        folder: &Path,
        wrong: &dyn Fn(String) -> E,
    ) -> Result<(), E> {
        let profile = Profile::find(reference, folder, wrong)?;
        profile.fits(&self.source).map_err(wrong)?;
        self.tables = profile.filled(&given).map_err(wrong)?.tables;
        self.profile = Some(resolved(reference, folder));
        self.profile_parameters = given;
        Ok(())
    }
}

/// A profile's name, or the path of its file from anywhere.
fn resolved(reference: &str, folder: &Path) -> String {
    Profile::path(reference, folder).map_or_else(|| reference.to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use towpath_transfer::manifest::SqlType;

    use super::*;
    use crate::config::MAX_TABLES;

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
        for key in ["trust", "workers", "max_bytes_per_second", "poll", "mode"] {
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
    fn every_mistake_of_a_file_is_found() {
        let text = JOB
            .replace("path = \"erp.sqlite\"", "path = \"erp.sqlite\"\nhost = \"x\"\nbusy_timeout = 5")
            .replace("name = \"items\"", "name = \"items\"\nqurey = \"x\"\n[[job.table]]\nname = \"a/b\"");
        let text =
            format!("[extract]\nworkers = 0\n[push]\nx = 1\n{text}profile = \"x\"\n[receipt]\npoll = \"soon\"\nworkers = 1\n");
        let mistakes = Config::every_mistake(&text, Path::new("agent.toml")).unwrap_err();
        let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        let expected = [
            "agent.toml:1:1: workers must be",
            "agent.toml:3:2: unknown field `push`",
            "agent.toml:10:8: a source of kind \"sqlite\" has no `host`",
            "agent.toml:11:16: ",
            "agent.toml:14:1: unknown field `qurey`",
            "agent.toml:16:8: ",
            "agent.toml:17:1: unknown field `profile`",
            "agent.toml:19:8: a duration looks like",
            "agent.toml:20:1: unknown field `workers`",
        ];
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told}, not {expected}");
        }
        assert!(told[8].contains("`workers` belongs to [extract]"), "{}", told[8]);
        assert!(told[6].contains("`profile` belongs to [[job]]"), "{}", told[6]);
        assert!(Config::every_mistake(EXAMPLE, Path::new("agent.toml")).is_ok());
        let named =
            Config::every_mistake(&JOB.replace("[job.source]", "profile = \"tryon\"\n[job.source]"), Path::new("agent.toml"));
        assert!(named.unwrap_err()[0].to_string().ends_with("did you mean `tryton`?"));
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
        assert!(mistake("[downlink]\nunpacked_file = \"0B\"\n").contains("at least 1B"));
        assert!(mistake("[receipt]\npoll = \"soon\"\n").contains("agent.toml:2:8: a duration looks like"));
        assert!(mistake(&JOB.replace("[job.source]", "schedule = \"2am\"\n[job.source]")).contains("agent.toml:3:13: "));
        assert!(mistake(&format!("{JOB}query = \" \"\n")).contains("the query is empty"));
    }

    #[test]
    fn two_jobs_never_take_each_others_files() {
        let job = |name: &str, folder: &str, archive: &str| {
            format!(
                "[[job]]\nname = \"{name}\"\n[job.source]\nkind = \"files\"\nfolder = \"{folder}\"\n{archive}[[job.table]]\nname = \"t\"\n"
            )
        };
        let done = "archive = \"done\"\n";
        for (one, other) in [
            (job("a", "drop", ""), job("b", "drop", done)),
            (job("a", "a", done), job("b", "b", done)),
            (job("a", "a", ""), job("b", "b", "archive = \"a/archive\"\n")),
        ] {
            let said = mistake(&format!("{one}{other}"));
            assert!(said.contains("the same folder or the same archive"), "{said}");
        }
        assert_eq!(parse(&format!("{}{}", job("a", "a", ""), job("b", "b", ""))).jobs.len(), 2);
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
