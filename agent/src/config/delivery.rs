//! `[downlink]` and `[[delivery]]`: how return files are asked for, where they go, and what follows.

use std::{
    collections::HashSet,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use towpath_host::{
    Bytes, ConfigMistake, Spanned,
    process::{filled, unknown_placeholder},
};
use towpath_transfer::{JobName, ReturnKind, codec::DEFAULT_UNPACK_LIMIT, manifest::Label};

use super::time;
use crate::downlink::action::{ActionFile, ActionOf};

/// The most deliveries one agent has.
pub const MAX_DELIVERIES: usize = 100;
/// The most arguments of one program.
pub const MAX_ARGUMENTS: usize = 100;
/// The shortest interval between two questions.
pub const SHORTEST_POLL: Duration = Duration::from_secs(1);
/// How long a program may take unless the delivery says otherwise.
pub const DEFAULT_RUN_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// The longest time that a program may be given.
pub const MAX_RUN_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);
/// The column that gets the transfer's id unless the delivery says otherwise.
pub const DEFAULT_TRANSFER_COLUMN: &str = "towpath_transfer";
/// What may stand in an argument.
const PLACEHOLDERS: [&str; 4] = ["{file}", "{folder}", "{kind}", "{transfer}"];

/// `[downlink]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Downlink")]
pub struct DownlinkConfig {
    /// How the relay is asked for return files: `long` for a question that is answered as soon as there is one, or an interval.
    #[schemars(with = "PollText")]
    pub poll: Poll,
    /// The most bytes that one return file may unpack to; a transfer with a larger one is rejected before any payload is fetched.
    pub unpacked_file: Bytes,
}

impl Default for DownlinkConfig {
    fn default() -> Self {
        Self { poll: Poll::default(), unpacked_file: Bytes(DEFAULT_UNPACK_LIMIT) }
    }
}

/// How the relay is asked for return files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Poll {
    /// It answers as soon as there is one; asked again at once.
    #[default]
    Long,
    /// Asked after each such time.
    Every(Duration),
}

/// What stands in the file.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used; `Poll` reads it")]
enum PollText {
    Long(LongPoll),
    Every(time::Long),
}

/// Answered as soon as there is something.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum LongPoll {
    Long,
}

impl Serialize for Poll {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Long => to.serialize_str("long"),
            Self::Every(pause) => time::duration::serialize(pause, to),
        }
    }
}

impl<'de> Deserialize<'de> for Poll {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "long" {
            return Ok(Self::Long);
        }
        let pause =
            time::parse_duration(&text).map_err(|why| D::Error::custom(format!("poll is \"long\" or an interval; {why}")))?;
        if pause < SHORTEST_POLL {
            return Err(D::Error::custom(format!("poll is \"long\", or an interval of at least {} s", SHORTEST_POLL.as_secs())));
        }
        Ok(Self::Every(pause))
    }
}

/// One `[[delivery]]`: where return files of a kind go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeliveryConfig {
    /// What the files are.
    pub kind: ReturnKind,
    /// Only those of this job; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobName>,
    /// The ERP's folder.
    pub folder: PathBuf,
    /// The program that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunConfig>,
    /// The load that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadConfig>,
}

/// What follows a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionConfig {
    /// A program.
    Run(RunConfig),
    /// A load into a table of the ERP.
    Load(LoadConfig),
}

impl DeliveryConfig {
    /// What follows the delivery, if anything.
    #[must_use]
    pub fn action(&self) -> Option<ActionConfig> {
        let run = self.run.clone().map(ActionConfig::Run);
        run.or_else(|| self.load.clone().map(ActionConfig::Load))
    }
}

/// `[delivery.run]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunConfig {
    /// The program's file, or a name that the system finds.
    pub program: PathBuf,
    /// Its arguments, with placeholders.
    pub arguments: Vec<String>,
    /// How long it may take.
    #[serde(with = "time::duration")]
    pub timeout: Duration,
}

impl RunConfig {
    /// Whether it is run for each file, and not once for the transfer.
    #[must_use]
    pub fn is_per_file(&self) -> bool {
        self.arguments.iter().any(|argument| argument.contains("{file}"))
    }

    /// The arguments of one run. What a placeholder stands for is never looked through for placeholders.
    #[must_use]
    pub fn arguments_for(&self, of: &ActionOf, file: Option<&ActionFile>) -> Vec<String> {
        let value = |placeholder: &str| match placeholder {
            "{file}" => file.map_or_else(String::new, |file| file.delivered.display().to_string()),
            "{folder}" => of.folder.display().to_string(),
            "{kind}" => of.kind.to_string(),
            _ => of.transfer.to_string(),
        };
        self.arguments.iter().map(|argument| filled(argument, &PLACEHOLDERS, value)).collect()
    }
}

/// `[delivery.load]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum LoadConfig {
    /// Into a table of an SQLite database.
    Sqlite {
        /// The database file, which must exist.
        path: PathBuf,
        /// The table, which must exist.
        table: Label,
        /// The column that gets the transfer's id.
        transfer_column: Label,
    },
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Delivery")]
pub(super) struct RawDelivery {
    /// What the files are, as the app names them.
    #[schemars(with = "String", regex(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
    kind: Spanned<ReturnKind>,
    /// Only those of this job; all where it is not said.
    #[schemars(with = "Option<String>")]
    job: Option<JobName>,
    /// The ERP's folder, which must exist.
    folder: Spanned<PathBuf>,
    /// The program that follows.
    run: Option<Spanned<RawRun>>,
    /// Or the load into a table that follows.
    load: Option<Spanned<RawLoad>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Run")]
struct RawRun {
    /// The program's file, or a name that the system finds.
    program: Spanned<PathBuf>,
    /// Its arguments, without a shell; with {file}, {folder}, {kind} and {transfer}.
    #[serde(default)]
    arguments: Vec<Spanned<String>>,
    /// How long it may take; 10m where it is not said.
    #[schemars(with = "Option<time::Long>")]
    #[serde(default, with = "time::optional_duration")]
    timeout: Option<Duration>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Load")]
struct RawLoad {
    /// What the database is.
    kind: LoadKind,
    /// The database file.
    path: Option<PathBuf>,
    /// The table, which must exist.
    #[schemars(with = "Option<String>")]
    table: Option<Label>,
    /// The column that gets the transfer's id; towpath_transfer where it is not said.
    #[schemars(with = "Option<String>")]
    transfer_column: Option<Label>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum LoadKind {
    /// An SQLite database file.
    Sqlite,
}

/// A place in the file, and what is wrong there.
type At<'a> = &'a dyn Fn(Option<Range<usize>>, String) -> ConfigMistake;

/// Checks every `[[delivery]]`; relative paths count from `folder`.
pub(super) fn deliveries(raw: Vec<RawDelivery>, folder: &Path, at: At<'_>) -> Result<Vec<DeliveryConfig>, ConfigMistake> {
    let mut seen = HashSet::new();
    let mut deliveries = Vec::new();
    for RawDelivery { kind, job, folder: target, run, load } in raw {
        let span = Some(kind.span());
        if deliveries.len() >= MAX_DELIVERIES {
            return Err(at(span, format!("there are more than {MAX_DELIVERIES} deliveries")));
        }
        if !seen.insert((kind.get_ref().clone(), job.clone())) {
            return Err(at(span, format!("another [[delivery]] is for kind {:?} and the same job", kind.get_ref().as_str())));
        }
        if target.get_ref().as_os_str().is_empty() {
            return Err(at(Some(target.span()), "the folder has no name".into()));
        }
        if let (Some(_), Some(load)) = (&run, &load) {
            return Err(at(
                Some(load.span()),
                "a delivery is followed by [delivery.run] or by [delivery.load], not by both".into(),
            ));
        }
        deliveries.push(DeliveryConfig {
            kind: kind.into_inner(),
            job,
            folder: folder.join(target.into_inner()),
            run: run.map(|run| checked_run(run.into_inner(), folder, at)).transpose()?,
            load: load.map(|load| checked_load(load, folder, at)).transpose()?,
        });
    }
    Ok(deliveries)
}

fn checked_run(raw: RawRun, folder: &Path, at: At<'_>) -> Result<RunConfig, ConfigMistake> {
    let RawRun { program, arguments, timeout } = raw;
    let span = Some(program.span());
    let program = program.into_inner();
    if program.as_os_str().is_empty() {
        return Err(at(span, "the program has no name".into()));
    }
    if arguments.len() > MAX_ARGUMENTS {
        return Err(at(span, format!("the program has more than {MAX_ARGUMENTS} arguments")));
    }
    let timeout = timeout.unwrap_or(DEFAULT_RUN_TIMEOUT);
    if !(Duration::from_secs(1)..=MAX_RUN_TIMEOUT).contains(&timeout) {
        return Err(at(span, format!("the program's timeout must be 1s to {} h", MAX_RUN_TIMEOUT.as_secs() / 3_600)));
    }
    for argument in &arguments {
        if let Some(unknown) = unknown_placeholder(argument.get_ref(), &PLACEHOLDERS) {
            let known = PLACEHOLDERS.join(", ");
            return Err(at(Some(argument.span()), format!("{unknown} is no placeholder; there are {known}")));
        }
    }
    // A bare name is looked for where the system looks for programs.
    let is_bare = program.components().count() == 1 && !program.is_absolute();
    let program = if is_bare { program } else { folder.join(program) };
    Ok(RunConfig { program, arguments: arguments.into_iter().map(Spanned::into_inner).collect(), timeout })
}

fn checked_load(raw: Spanned<RawLoad>, folder: &Path, at: At<'_>) -> Result<LoadConfig, ConfigMistake> {
    let span = Some(raw.span());
    let RawLoad { kind, path, table, transfer_column } = raw.into_inner();
    let missing = |what: &str| at(span.clone(), format!("a load of kind \"sqlite\" needs {what}"));
    match kind {
        LoadKind::Sqlite => {
            let path = path.ok_or_else(|| missing("`path`, the database file"))?;
            let table = table.ok_or_else(|| missing("`table`, which takes the rows"))?;
            let default = || DEFAULT_TRANSFER_COLUMN.parse().map_err(|_| missing("`transfer_column`"));
            let transfer_column = transfer_column.map_or_else(default, Ok)?;
            Ok(LoadConfig::Sqlite { path: folder.join(path), table, transfer_column })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, EXAMPLE};

    const DELIVERY: &str = "[[delivery]]\nkind = \"recommended-orders\"\nfolder = \"in\"\n";

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/towpath/agent.toml")).unwrap()
    }

    fn mistake(text: &str) -> String {
        Config::parse(text, Path::new("agent.toml")).unwrap_err().to_string()
    }

    #[test]
    fn the_examples_of_deliveries_are_right() {
        let from = EXAMPLE.find("# [[delivery]]").unwrap();
        let uncommented = |text: &str| -> String {
            let setting = |line: &&str| line.starts_with("# [") || line.get(2..).is_some_and(|rest| rest.contains(" = "));
            text.lines().filter(setting).map(|line| format!("{}\n", line.strip_prefix("# ").unwrap())).collect()
        };
        let all = uncommented(EXAMPLE.get(from..).unwrap());
        let (runs, loads) = all.split_once("[delivery.load]").unwrap();
        let config = parse(runs);
        let run = config.deliveries[0].run.clone().unwrap();
        assert!(run.is_per_file());
        assert_eq!(run.timeout, DEFAULT_RUN_TIMEOUT);
        let load = parse(&format!("{DELIVERY}[delivery.load]{loads}")).deliveries.remove(0).load.unwrap();
        let LoadConfig::Sqlite { path, transfer_column, .. } = load;
        assert_eq!(path, Path::new("/etc/towpath/erp.sqlite"));
        assert_eq!(transfer_column.as_str(), DEFAULT_TRANSFER_COLUMN);
    }

    #[test]
    fn a_delivery_is_found_by_kind_and_job() {
        let config = parse(&format!("{DELIVERY}{}", DELIVERY.replace("folder = \"in\"", "folder = \"/b\"\njob = \"b\"")));
        let folder = |kind: &str, job: &str| {
            config.delivery(&kind.parse().unwrap(), &job.parse().unwrap()).map(|one| one.folder.display().to_string())
        };
        assert_eq!(folder("recommended-orders", "main"), Some("/etc/towpath/in".into()));
        assert_eq!(folder("recommended-orders", "b"), Some("/b".into()));
        assert_eq!(folder("reports", "b"), None);
    }

    #[test]
    fn polls_are_long_or_an_interval() {
        assert_eq!(parse("").downlink.poll, Poll::Long);
        assert_eq!(parse("[downlink]\npoll = \"5m\"\n").downlink.poll, Poll::Every(Duration::from_secs(300)));
        for bad in ["soon", "500ms"] {
            assert!(mistake(&format!("[downlink]\npoll = \"{bad}\"\n")).contains("agent.toml:2:8: poll is \"long\""));
        }
        let shown = toml::to_string(&parse("[downlink]\npoll = \"5m\"\n").downlink).unwrap();
        assert_eq!(toml::from_str::<DownlinkConfig>(&shown).unwrap().poll, Poll::Every(Duration::from_secs(300)));
    }

    #[test]
    fn placeholders_are_filled_once_and_unknown_ones_refused() {
        let of = ActionOf {
            transfer: "01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b".parse().unwrap(),
            kind: "recommended-orders".parse().unwrap(),
            folder: "/erp".into(),
            files: Vec::new(),
            log: PathBuf::new(),
            done: PathBuf::new(),
        };
        let file = ActionFile { name: "a".parse().unwrap(), delivered: "/erp/{kind}.csv".into(), plain: PathBuf::new() };
        let text = format!(
            "{DELIVERY}[delivery.run]\nprogram = \"bin/go\"\narguments = [\"{{\\\"a\\\": 1}}\", \"-{{file}}-{{transfer}}\", \"{{folder}}{{kind}}\"]\n"
        );
        let run = parse(&text).deliveries.remove(0).run.unwrap();
        assert_eq!(run.program, Path::new("/etc/towpath/bin/go"));
        let filled = run.arguments_for(&of, Some(&file));
        assert_eq!(filled, ["{\"a\": 1}", "-/erp/{kind}.csv-01922c1e-8a4f-7d3a-9b5e-0c1d2e3f4a5b", "/erprecommended-orders"]);
        assert!(mistake(&text.replace("{kind}", "{knd}")).contains("{knd} is no placeholder"));
        assert_eq!(parse(&text.replace("bin/go", "go")).deliveries[0].run.clone().unwrap().program, Path::new("go"));
    }

    #[test]
    fn what_contradicts_itself_is_refused_where_it_stands() {
        assert!(mistake(&format!("{DELIVERY}{DELIVERY}")).starts_with("agent.toml:5:8: another [[delivery]]"));
        assert!(mistake(&DELIVERY.replace("\"in\"", "\"\"")).contains("no name"));
        let both = format!("{DELIVERY}[delivery.run]\nprogram = \"x\"\n[delivery.load]\nkind = \"sqlite\"\n");
        assert!(mistake(&both).contains("not by both"), "{}", mistake(&both));
        assert!(mistake(&format!("{DELIVERY}[delivery.load]\nkind = \"sqlite\"\n")).contains("needs `path`"));
        assert!(mistake(&format!("{DELIVERY}[delivery.load]\nkind = \"sqlite\"\npath = \"x\"\n")).contains("needs `table`"));
        assert!(mistake(&format!("{DELIVERY}[delivery.run]\nprogram = \"x\"\ntimeout = \"0s\"\n")).contains("timeout"));
        assert!(mistake(&format!("{DELIVERY}[delivery.run]\nprogram = \"\"\n")).contains("no name"));
        assert!(mistake(&format!("{DELIVERY}[delivery.run]\nprogramm = \"x\"\n")).contains("did you mean `program`"));
        let many: String = (0..=MAX_DELIVERIES).map(|n| DELIVERY.replace("recommended-orders", &format!("k{n}"))).collect();
        assert!(mistake(&many).contains("more than 100 deliveries"));
        let arguments = vec!["\"a\""; MAX_ARGUMENTS + 1].join(",");
        assert!(
            mistake(&format!("{DELIVERY}[delivery.run]\nprogram = \"x\"\narguments = [{arguments}]\n"))
                .contains("more than 100 arguments")
        );
    }
}
