//! `cargo xtask fuzz`: libFuzzer looks for input that breaks a parser's promise.
//!
//! The targets are those of `tests/fuzz`. All of them are one program, built by the stable compiler with the instrumentation of
//! `tests/fuzz/rustc.sh`; dependencies are not built again, but for a long search. What breaks a target is kept in its corpus, where
//! the tests replay it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
};

use clap::Args;

use crate::{
    console::{Watch, complain, say},
    needs::Needs,
    repository,
};

/// The corpora, a folder for each target.
const CORPUS: &str = "tests/fuzz/corpus";
/// The variable that names the target to the program; `towpath_fuzz::TARGET_VARIABLE`.
const TARGET_VARIABLE: &str = "TOWPATH_FUZZ_TARGET";
/// What a target may take, in megabytes: none holds more than its input and what it may mean.
const MOST_MEGABYTES: u32 = 512;
/// The longest one input may take, in seconds; generous, because other work shares the machine.
const LONGEST_INPUT: u32 = 60;
/// The longest input that is tried, in bytes. Each target takes less.
const LONGEST_BYTES: u32 = 9_000;
/// The profile of `Cargo.toml` that a long search is built with.
const LONG_PROFILE: &str = "fuzzing";
/// How long each target is fuzzed, in seconds.
const SECONDS: u32 = 10;
/// The same in a long search.
const LONG_SECONDS: u32 = 3_600;
/// The lines of a failed run that are shown.
const SHOWN_LINES: usize = 40;

/// What to fuzz, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Targets to fuzz, each a folder of tests/fuzz/corpus; all of them where none is named.
    targets: Vec<String>,
    /// An hour for each target instead of 10 s, by a program that tries two to ten times as many inputs in a second. It is built with
    /// optimisation, which takes two cores some 8 minutes where nothing is there, and still checks every arithmetic.
    #[arg(long)]
    long: bool,
    /// How long to fuzz each target, in seconds [default: 10, or 3600 with --long].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// How many targets to fuzz at the same time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    at_once: u32,
    /// The most inputs to try for each target; without a bound where this is not given.
    #[arg(long)]
    inputs: Option<u32>,
    /// Where libFuzzer begins to draw; 0 for another place each time.
    #[arg(long, default_value_t = 0)]
    seed: u32,
    /// Keep what reaches new code in the committed corpus; else it stays in the target folder.
    #[arg(long)]
    keep: bool,
}

impl Default for Options {
    /// What CI does: 10 s for each target, from the same seed each time. Whoever looks for more takes another one.
    fn default() -> Self {
        Self { targets: Vec::new(), long: false, seconds: None, at_once: 2, inputs: None, seed: 1, keep: false }
    }
}

impl Options {
    /// How long to fuzz each target, in seconds.
    fn seconds(&self) -> u32 {
        self.seconds.unwrap_or(if self.long { LONG_SECONDS } else { SECONDS })
    }
}

/// Fuzzes the targets. True when nothing was found.
///
/// # Errors
/// A name that is no target, or a build that fails.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let root = repository::root()?;
    let chosen = choose(&targets(&root.join(CORPUS))?, &options.targets)?;
    let watch = Watch::start();
    say(&format!("   building {} targets", chosen.len()));
    let program = build(&root, options.long)?;
    say(&format!("   built in {}", watch.elapsed()));
    let work = Mutex::new(chosen.into_iter());
    let failed = Mutex::new(Vec::new());
    let lock = |what: &Mutex<std::vec::IntoIter<String>>| what.lock().ok().and_then(|mut all| all.next());
    thread::scope(|scope| {
        for _ in 0..options.at_once {
            scope.spawn(|| {
                while let Some(name) = lock(&work) {
                    match one(&root, &program, &name, options) {
                        Ok(line) => say(&format!("   {line}")),
                        Err(problem) => {
                            complain(&problem);
                            if let Ok(mut failed) = failed.lock() {
                                failed.push(name);
                            }
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().map_err(|_| "a thread has failed".to_owned())?;
    if !failed.is_empty() {
        complain(&format!("xtask fuzz: broken: {} ({})", failed.join(", "), watch.elapsed()));
    }
    Ok(failed.is_empty())
}

fn targets(corpus: &Path) -> Result<Vec<String>, String> {
    let failed = |error: std::io::Error| format!("reading {} failed: {error}", corpus.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(corpus).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn choose(known: &[String], wanted: &[String]) -> Result<Vec<String>, String> {
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        return Err(format!("{unknown} is no fuzz target; there are: {}", known.join(", ")));
    }
    Ok(if wanted.is_empty() { known.to_vec() } else { wanted.to_vec() })
}

/// Builds the one program. In the usual form it has the features of every other build, so that they share their dependencies.
fn build(root: &Path, long: bool) -> Result<PathBuf, String> {
    let mut features = "towpath-fuzz/libfuzzer".to_owned();
    let of_form: &[&str] = if long {
        &["--package", "towpath-fuzz", "--profile", LONG_PROFILE]
    } else {
        if Needs::look(root).odbc() {
            features.push_str(",towpath-agent/odbc");
        }
        &["--workspace"]
    };
    let arguments = [&["build", "--quiet", "--locked", "--example", "libfuzzer", "--features", &features], of_form].concat();
    let mut command = repository::cargo(root, &arguments);
    command.env("RUSTC_WORKSPACE_WRAPPER", root.join("tests/fuzz/rustc.sh"));
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("starting cargo failed: {e}"))?;
    if !status.success() {
        return Err("the fuzz targets could not be built; libFuzzer needs a C++ compiler (Debian: g++)".to_owned());
    }
    let folder = if long { LONG_PROFILE } else { "debug" };
    Ok(repository::target(root).join(folder).join("examples/libfuzzer"))
}

/// Fuzzes one target; a line that says how often it ran, or what was found.
fn one(root: &Path, program: &Path, name: &str, options: &Options) -> Result<String, String> {
    let corpus = root.join(CORPUS).join(name);
    let scratch = repository::target(root).join("fuzz").join(name);
    let log = repository::target(root).join("fuzz").join(format!("{name}.log"));
    fs::create_dir_all(&scratch).map_err(|e| format!("making {} failed: {e}", scratch.display()))?;
    let file = File::create(&log).map_err(|e| format!("making {} failed: {e}", log.display()))?;
    let mut command = Command::new(program);
    if !options.keep {
        // libFuzzer writes into the first folder.
        command.arg(&scratch);
    }
    command.arg(&corpus).env(TARGET_VARIABLE, name).env("RUST_BACKTRACE", "1").current_dir(&scratch);
    command.args([
        format!("-max_total_time={}", options.seconds()),
        format!("-seed={}", options.seed),
        format!("-runs={}", options.inputs.map_or(-1, i64::from)),
        "-reload=0".to_owned(),
        format!("-rss_limit_mb={MOST_MEGABYTES}"),
        format!("-timeout={LONGEST_INPUT}"),
        format!("-max_len={LONGEST_BYTES}"),
        format!("-artifact_prefix={}/", corpus.display()),
        "-print_final_stats=1".to_owned(),
    ]);
    let watch = Watch::start();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).status();
    let status = status.map_err(|e| format!("starting {} failed: {e}", program.display()))?;
    let said = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    if status.success() {
        return Ok(format!("{name}: {} inputs in {}, nothing found", executed(&said), watch.elapsed()));
    }
    let lines: Vec<&str> = said.lines().collect();
    let shown = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default().join("\n");
    Err(format!(
        "{shown}\n{name}: BROKEN ({status}). The input is kept in {CORPUS}/{name}; replay it with: \
         cargo nextest run -p towpath-fuzz {}",
        name.replace('-', "_")
    ))
}

/// How many inputs a run has tried, as libFuzzer counts them.
fn executed(said: &str) -> u64 {
    let count = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_targets_or_those_named() {
        let known = ["csv".to_owned(), "token".to_owned()];
        assert_eq!(choose(&known, &[]), Ok(known.to_vec()));
        assert_eq!(choose(&known, &known[1..]), Ok(vec!["token".to_owned()]));
        assert!(choose(&known, &["cvs".to_owned()]).unwrap_err().contains("there are: csv, token"));
    }

    #[test]
    fn a_long_search_takes_an_hour_where_nothing_else_is_said() {
        let seconds = |long, seconds| Options { long, seconds, ..Options::default() }.seconds();
        assert_eq!((seconds(false, None), seconds(true, None)), (10, 3_600));
        assert_eq!((seconds(false, Some(5)), seconds(true, Some(60))), (5, 60));
    }

    #[test]
    fn every_target_has_its_folder() {
        let corpus = repository::root().unwrap().join(CORPUS);
        assert!(targets(&corpus).unwrap().len() > 30);
        assert!(targets(&corpus.join("nothing")).is_err());
    }

    #[test]
    fn what_was_tried_is_counted() {
        assert_eq!(executed("x\nstat::number_of_executed_units: 4711\n"), 4711);
        assert_eq!(executed("nothing"), 0);
    }

    #[test]
    fn a_broken_target_says_how_to_replay_it() {
        let root = tempfile::tempdir().unwrap();
        let error = one(root.path(), Path::new("/bin/false"), "sftp-server", &Options::default()).unwrap_err();
        assert!(error.contains("corpus/sftp-server") && error.contains("nextest run -p towpath-fuzz sftp_server"), "{error}");
        assert!(one(root.path(), Path::new("/bin/true"), "csv", &Options::default()).unwrap().contains("csv: 0 inputs in "));
    }
}
