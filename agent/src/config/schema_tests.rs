//! The schema, held against what the program itself reads.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{Config, EXAMPLE, schema};

fn validator() -> &'static jsonschema::Validator {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| {
        let schema: serde_json::Value = serde_json::from_str(&schema().unwrap()).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    })
}

fn as_json(text: &str) -> serde_json::Value {
    serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
}

fn is_valid(text: &str) -> bool {
    validator().is_valid(&as_json(text))
}

fn loads(text: &str) -> bool {
    Config::parse(text, Path::new("/etc/towpath/agent.toml")).is_ok()
}

fn why_not(text: &str) -> Vec<String> {
    let value = as_json(text);
    let mut why: Vec<String> = validator().iter_errors(&value).map(|error| error.to_string()).collect();
    why.extend(Config::every_mistake(text, Path::new("agent.toml")).err().unwrap_or_default().iter().map(ToString::to_string));
    why
}

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.schema.json");
    let made = schema().unwrap();
    let committed = std::fs::read_to_string(path).unwrap();
    assert!(committed == made, "run: cargo run -p towpath-agent -- config schema > agent/config.schema.json");
}

const JOB: &str =
    "[[job]]\nname = \"main\"\n[job.source]\nkind = \"sqlite\"\npath = \"erp.sqlite\"\n[[job.table]]\nname = \"items\"\n";

#[test]
fn what_the_one_refuses_the_other_refuses_too() {
    assert!(is_valid(JOB) && loads(JOB) && is_valid(EXAMPLE) && loads(EXAMPLE) && is_valid("") && loads(""));
    let source = |settings: &str| JOB.replace("kind = \"sqlite\"\npath = \"erp.sqlite\"", settings);
    let mistakes = [
        "trust = \"aprove\"\n".to_owned(),
        "trsut = \"approve\"\n".to_owned(),
        "[extract]\nworkers = 0\n".to_owned(),
        "[extract]\nworkers = \"2\"\n".to_owned(),
        "[extract]\nworkers = 65\n".to_owned(),
        "[receipt]\npoll = 5\n".to_owned(),
        "[receipt]\npoll = \"soon!\"\n".to_owned(),
        "[downlink]\npoll = \"!\"\n".to_owned(),
        "[log]\nlevel = \"loud\"\n".to_owned(),
        "[log]\nmax_bytes = \"10 megs\"\n".to_owned(),
        "[alert]\nlate_after = 5\n".to_owned(),
        "[bandwidth]\nmax_bytes_per_second = -1\n".to_owned(),
        "[[bandwidth.window]]\nmax_bytes_per_second = 1\n".to_owned(),
        "[network]\nways = \"ssh:443\"\n".to_owned(),
        "[network]\nproxy = \"http://p\"\nproxy_user = \"u\"\nproxy_password = \"hunter2\"\n".to_owned(),
        JOB.replace("\"main\"", "\"Main Job\""),
        JOB.replace("name = \"main\"\n", ""),
        JOB.replace("[job.source]", "schedule = 2\n[job.source]"),
        JOB.replace("[job.source]", "[job.sauce]"),
        JOB.replace("\"items\"", "5"),
        format!("{JOB}qurey = \"x\"\n"),
        format!("{JOB}nul = \"ignore\"\n"),
        format!("{JOB}[job.table.drift]\nadded = \"maybe\"\n"),
        format!("{JOB}key = [\"id\"]\n[job.table.incremental]\nwatermark = \"id\"\n"),
        source("kind = \"oracle\""),
        source("kind = \"sqlite\""),
        source("kind = \"postgresql\"\ndatabase = \"d\""),
        source("kind = \"mariadb\"\nuser = \"u\""),
        source("kind = \"odbc\""),
        source("kind = \"files\""),
        source("kind = \"postgresql\"\ndatabase = \"d\"\nuser = \"u\"\nport = \"5432\""),
        source("kind = \"postgresql\"\ndatabase = \"d\"\nuser = \"u\"\nport = 65536"),
        source("kind = \"postgresql\"\ndatabase = \"d\"\nuser = \"u\"\ntls = \"always\""),
        "[[delivery]]\nkind = \"orders\"\n".to_owned(),
        "[[delivery]]\nkind = \"orders\"\nfolder = \"in\"\n[delivery.run]\narguments = []\n".to_owned(),
        "[[delivery]]\nkind = \"orders\"\nfolder = \"in\"\n[delivery.load]\nkind = \"mysql\"\n".to_owned(),
    ];
    for text in mistakes {
        assert_eq!((is_valid(&text), loads(&text)), (false, false), "{text}");
    }
}

/// A line that a comment marker hides and that is a setting or a section.
fn hidden(line: &str) -> Option<&str> {
    let setting = line.strip_prefix("# ")?;
    let key = setting.split(" = ").next()?;
    let is_key = setting.contains(" = ") && !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let is_section = setting.starts_with('[') && setting.ends_with(']') && !setting.contains(' ');
    (is_key || is_section).then_some(setting)
}

/// The example with every setting that is commented out and that `takes` takes, by its section.
fn with_hidden(takes: &dyn Fn(&str) -> bool) -> String {
    let mut section = String::new();
    let mut lines: Vec<String> = Vec::new();
    for line in EXAMPLE.lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        }
        let Some(setting) = hidden(line) else {
            lines.push(line.to_owned());
            continue;
        };
        if setting.starts_with('[') {
            section = setting.to_owned();
        }
        if takes(&section) {
            lines.push(setting.to_owned());
        }
    }
    lines.join("\n")
}

/// Blocks of the example from a line that begins so to the next empty line, without the comment markers.
fn block(begins: &str, nth: usize) -> String {
    let mut lines = EXAMPLE.lines().peekable();
    let mut found = 0;
    while let Some(line) = lines.next() {
        if line == begins {
            if found == nth {
                let rest =
                    std::iter::once(line).chain(lines.by_ref().take_while(|line| !line.is_empty() && !line.starts_with('[')));
                return rest.filter_map(hidden).map(|line| format!("{line}\n")).collect();
            }
            found += 1;
        }
    }
    panic!("the example has no {begins} number {nth}")
}

/// The names of all settings that the schema knows.
fn names(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(entries) => {
            let properties = entries.get("properties").and_then(|properties| properties.as_object());
            found.extend(properties.into_iter().flat_map(|properties| properties.keys().cloned()));
            entries.values().for_each(|entry| names(entry, found));
        }
        serde_json::Value::Array(entries) => entries.iter().for_each(|entry| names(entry, found)),
        _ => {}
    }
}

#[test]
fn every_setting_stands_in_the_example() {
    let mut known = BTreeSet::new();
    names(&serde_json::from_str(&schema().unwrap()).unwrap(), &mut known);
    let shown = |name: &String| {
        let settings = EXAMPLE.lines().map(|line| hidden(line).unwrap_or(line));
        let mut keys = settings.map(|line| line.split(" = ").next().unwrap().trim_matches(['[', ']']));
        keys.any(|key| key.split('.').any(|part| part == name))
    };
    let missing: Vec<&String> = known.iter().filter(|name| !shown(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(known.len() > 80, "{}", known.len());
}

#[test]
fn every_setting_that_the_example_shows_commented_out_is_one() {
    let job = |source: &str, table: &str| format!("[[job]]\nname = \"main\"\n{source}[[job.table]]\nname = \"items\"\n{table}");
    let tables = EXAMPLE.rsplit_once("[[job.table]]").unwrap().1.split("\n# [[delivery]]").next().unwrap();
    let (of_databases, of_files) = tables.split_once("# For files:").unwrap();
    let lines = |text: &str| text.lines().filter_map(hidden).map(|line| format!("{line}\n")).collect::<String>();
    let [server, odbc, files] = [0, 1, 2].map(|nth| block("# [job.source]", nth));
    let top = with_hidden(&|section| !section.contains("job") && !section.contains("delivery"));
    let sqlite = "[job.source]\nkind = \"sqlite\"\npath = \"x\"\n";
    let delivery = EXAMPLE.split("\n# [[delivery]]").nth(1).unwrap();
    let (delivered, loaded) = delivery.split_once("# [delivery.load]").unwrap();
    let delivered = format!("[[delivery]]\n{}", lines(delivered));
    let (simple, run) = delivered.split_once("[delivery.run]").unwrap();
    let timing = "schedule = \"02:00\"\ntime_zone = \"Europe/Berlin\"\njitter = \"10m\"\nblackout = [\"mon-fri 07:00-18:00\"]\ncatch_up = true\n";
    let marker = files.replace("complete = \"stable\"\nstable_for = \"10s\"\n", "complete = \"marker\"\n");
    let stable = files.replace("marker_suffix = \".ready\"\n", "");
    let texts = [
        top,
        job(&format!("{sqlite}busy_timeout = \"30s\"\n"), ""),
        job(sqlite, &lines(of_databases).replace("schema = \"dbo\"\n", "")),
        job(&server.replace("tls = \"prefer\"", "tls = \"verify\""), ""),
        job(&server.replace("\"postgresql\"", "\"mariadb\"").replace("ca = ", "# ca = "), ""),
        job(&odbc, "schema = \"dbo\"\n"),
        job(&stable, &lines(of_files)),
        job(&marker, &lines(of_files)),
        format!("{simple}[delivery.run]{run}"),
        format!("{simple}[delivery.load]\n{}", lines(loaded)),
        job(&server.replace("ca = ", "# ca = "), "").replace(
            "[job.source]",
            &format!("{timing}profile = \"tryton\"\n[job.profile_parameters]\ncompany = 1\n[job.source]"),
        ),
    ];
    for text in &texts {
        assert!(why_not(text).is_empty(), "{text}\n{:#?}", why_not(text));
    }
    // Every setting that the example hides was among them.
    for setting in EXAMPLE.lines().filter_map(hidden).filter(|line| !line.starts_with('[')) {
        let key = setting.split(" = ").next().unwrap();
        assert!(texts.iter().any(|text| text.lines().any(|line| line.starts_with(&format!("{key} =")))), "{key} was not tried");
    }
}

/// Every file below a folder of the repository whose name ends so.
fn files(folder: &Path, end: &str, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, end, into);
        } else if name.ends_with(end) {
            into.push(path);
        }
    }
}

/// The settings of a documented piece, put where they belong.
fn completed(block: &str) -> Vec<String> {
    let table = "[[job.table]]\nname = \"items\"\n";
    let sqlite = "[job.source]\nkind = \"sqlite\"\npath = \"x\"\n";
    let source = format!("[[job]]\nname = \"main\"\n[job.source]\n{block}\n{table}");
    let of_job = format!("[[job]]\nname = \"main\"\n{block}\n{sqlite}{table}");
    let under_job = format!("[[job]]\nname = \"main\"\n{sqlite}{block}\n");
    let source_only = format!("[[job]]\nname = \"main\"\n{block}\n{table}");
    let whole_job = format!("[[job]]\nname = \"main\"\n{block}\n");
    let of_table = format!("[[job]]\nname = \"main\"\n{sqlite}{table}{block}\n");
    let network = format!("[network]\n{block}\n");
    vec![block.to_owned(), source, of_job, under_job, source_only, whole_job, of_table, network]
}

#[test]
fn every_documented_piece_of_a_configuration_is_valid_and_loads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages = vec![root.join("README.md")];
    files(&root.join("docs"), ".md", &mut pages);
    let mut tried = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for piece in text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            tried += 1;
            let fits =
                completed(piece).into_iter().any(|text| text.parse::<toml::Table>().is_ok() && is_valid(&text) && loads(&text));
            assert!(
                fits,
                "{}:\n{piece}\n{:#?}",
                page.display(),
                completed(piece).iter().map(|text| text.parse::<toml::Table>().map(|_| why_not(text))).collect::<Vec<_>>()
            );
        }
    }
    assert!(tried >= 5, "{tried} pieces were found");
}

#[test]
fn every_sample_of_a_configuration_is_valid_and_loads() {
    let mut samples = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cmd"), ".toml", &mut samples);
    let wrong = ["misspelt.toml", "mistakes.toml", "one-mistake.toml"];
    samples.retain(|path| !wrong.iter().any(|name| path.ends_with(name)));
    assert!(samples.len() >= 4, "{samples:?}");
    for sample in samples {
        let text = std::fs::read_to_string(&sample).unwrap();
        let is_answers =
            Config::parse(&text, &sample).is_err_and(|mistake| mistake.problem.starts_with("unknown field `receiver`"));
        assert!(is_answers || is_valid(&text) && loads(&text), "{}: {:#?}", sample.display(), why_not(&text));
    }
}
