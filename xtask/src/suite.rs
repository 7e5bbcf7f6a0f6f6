//! `cargo xtask test`: everything that must hold before a change is taken, with the tests and their summary last.

mod windows;

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use clap::Args;
use towpath_servers::{MariaDb, Postgres};

use crate::{
    console::{Watch, complain, say},
    fuzz,
    needs::{self, Needs},
    package, repository, tidy,
};

/// What to run.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Run the interop tests (named `interop_…`) and nothing else: other people's programs as peers, and as judges (ssh-audit,
    /// testssl.sh, schemathesis).
    #[arg(long)]
    interop: bool,
    /// Run the long tests (named `long_…`) too, and let the others count higher (sets TOWPATH_LONG=1).
    #[arg(long)]
    long: bool,
    /// Install nothing; tests with other people's programs and servers are left out where one of these is missing. Not in CI.
    #[arg(long)]
    skip_install: bool,
    /// Build the agent for Windows, make its packages, and run the tests that install them (named `windows_…`) under Wine, and
    /// nothing else. Installs what it needs.
    #[arg(long, conflicts_with_all = ["interop", "long", "skip_install"])]
    windows: bool,
}

/// Numbers and names the steps, and remembers which failed.
struct Steps {
    tell: fn(&str),
    at: usize,
    of: usize,
    failed: Vec<&'static str>,
}

impl Steps {
    fn step(&mut self, name: &'static str, work: impl FnOnce() -> Result<(), String>) {
        self.at += 1;
        (self.tell)(&format!("== [{}/{}] {name}", self.at, self.of));
        let watch = Watch::start();
        match work() {
            Ok(()) => (self.tell)(&format!("== {name}: ok, {}", watch.elapsed())),
            Err(problem) => {
                (self.tell)(&format!("== {name}: FAILED after {}: {problem}", watch.elapsed()));
                self.failed.push(name);
            }
        }
    }
}

/// Runs the checks. True when all passed. The runner's own summary of the tests comes after all other steps.
///
/// # Errors
/// Only where the chore itself cannot work; a check that fails is `Ok(false)`.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let watch = Watch::start();
    let root = repository::root()?;
    if options.windows {
        return windows::run(&root);
    }
    let fuzzes = repository::is_ci() && !options.interop;
    let of = if options.interop { 4 } else { 9 + usize::from(fuzzes) };
    let mut steps = Steps { tell: say, at: 0, of, failed: Vec::new() };

    let mut needs = Needs::look(&root);
    steps.step("programs for the interop tests", || {
        needs = prepare(&root, options)?;
        Ok(())
    });
    if !options.interop {
        steps.step("formats", || succeed(repository::cargo(&root, &["fmt", "--all", "--check"])));
        steps.step("tidy", || if tidy::run()? { Ok(()) } else { Err("see above".to_owned()) });
        steps.step("clippy", || {
            let mut clippy = whole(&root, &needs, &["clippy", "--all-targets", "--quiet"]);
            clippy.args(["--", "-D", "warnings"]);
            succeed(clippy)
        });
        steps.step("docs", || {
            let mut doc = whole(&root, &needs, &["doc", "--no-deps", "--quiet"]);
            doc.env("RUSTDOCFLAGS", "-D warnings");
            succeed(doc)
        });
    }
    steps.step("build", || succeed(whole(&root, &needs, &["build", "--all-targets", "--quiet"])));
    steps.step("packages", || packages(&root, &needs));
    if !options.interop {
        steps.step("examples in docs", || succeed(whole(&root, &needs, &["test", "--doc", "--quiet"])));
    }
    if fuzzes {
        let found = || Err("see above".to_owned());
        steps.step("fuzz", || if fuzz::run(&fuzz::Options::default())? { Ok(()) } else { found() });
    }
    if !steps.failed.is_empty() {
        complain(&format!("xtask test: failed so far: {}; the tests run all the same", steps.failed.join(", ")));
    }
    steps.step("tests", || tests(&root, options, &needs));

    if steps.failed.is_empty() {
        say(&format!("xtask test: everything passed in {}", watch.elapsed()));
    } else {
        complain(&format!("xtask test: FAILED: {} ({})", steps.failed.join(", "), watch.elapsed()));
    }
    Ok(steps.failed.is_empty())
}

/// The versions of the packages that the tests install one after the other. What changes is nothing but the version.
const PACKAGED: [&str; 2] = ["0.1.0", "0.1.1"];

/// Makes the packages that the tests install, of the programs that were just built.
fn packages(root: &Path, needs: &Needs) -> Result<(), String> {
    if !needs.complete() {
        say("   left out: the tools for packages are missing");
        return Ok(());
    }
    for version in PACKAGED {
        package::run(&package::Options::of_tests(root, repository::target(root).join("debug"), version))?;
    }
    Ok(())
}

/// A call of cargo for the whole workspace, with everything that can be built here.
fn whole(root: &Path, needs: &Needs, arguments: &[&str]) -> Command {
    let mut command = repository::cargo(root, arguments);
    command.args(["--workspace", "--locked"]);
    if needs.odbc() {
        command.args(["--features", "towpath-agent/odbc"]);
    }
    command
}

/// Sees to it that the interop tests can run; else this step fails and says what to do.
fn prepare(root: &Path, options: &Options) -> Result<Needs, String> {
    let needs = Needs::look(root);
    let needs = match (needs.complete(), options.skip_install) {
        (true, _) => needs,
        (false, false) => needs.install(root)?,
        (false, true) if repository::is_ci() => {
            return Err(format!("CI leaves no test out, and these are missing:\n{}", needs.advice()));
        }
        (false, true) => {
            say(&format!("   the interop tests are left out; missing:\n{}", needs.advice()));
            return Ok(needs);
        }
    };
    needs::privilege_separation_folder()?;
    Ok(needs)
}

fn tests(root: &Path, options: &Options, needs: &Needs) -> Result<(), String> {
    let choice = Choice { only_interop: options.interop, interop: needs.complete(), long: options.long };
    if choice.only_interop && !choice.interop {
        return Err("the interop tests cannot run without the programs above".to_owned());
    }
    let has_nextest = repository::cargo(root, &["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    let mut command = if has_nextest { nextest(root, needs, &choice) } else { libtest(root, needs, &choice) };
    // They end when this function does.
    let servers = if choice.interop { Some((Postgres::try_start()?, MariaDb::try_start()?)) } else { None };
    if let Some((postgres, mariadb)) = &servers {
        command.env(Postgres::VARIABLE, postgres.variable()).env(MariaDb::VARIABLE, mariadb.variable());
    }
    if choice.long {
        command.env("TOWPATH_LONG", "1");
    }
    if let Some(python) = needs.python.as_ref().filter(|_| choice.interop) {
        command.env(needs::PYTHON_VARIABLE, absolute(root, python));
    }
    if has_nextest { succeed(command) } else { counted(command, say) }
}

fn absolute(root: &Path, path: &Path) -> PathBuf {
    root.join(path)
}

/// Which tests to run.
struct Choice {
    only_interop: bool,
    interop: bool,
    long: bool,
}

/// A test of this name, in whatever module: `interop_x`, `sftp::interop_x`, `interop::x`.
const INTEROP: &str = "test(/(^|::)interop(_|::)/)";
/// A test with a database server or an ODBC driver, in whatever module.
const SERVER: &str = "test(/(^|::|_)(postgres|mariadb|odbc)(_|::|$)/)";
const SERVER_WORDS: [&str; 3] = ["postgres", "mariadb", "odbc"];
const LONG: &str = "test(/(^|::)long(_|::)/)";
/// A test of the packages for Windows, which has a build of its own.
const WINDOWS: &str = "test(/(^|::)wine::([a-z]+::)?windows_/)";

impl Choice {
    /// The choice as nextest's filter expression.
    fn expression(&self) -> String {
        let mut terms = vec![format!("not {WINDOWS}")];
        if self.only_interop {
            terms.push(INTEROP.to_owned());
        }
        if !self.interop {
            terms.push(format!("not {INTEROP}"));
            terms.push(format!("not {SERVER}"));
        }
        if !self.long {
            terms.push(format!("not {LONG}"));
        }
        terms.join(" and ")
    }

    /// The choice as arguments of the built-in harness, which knows substrings only.
    fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = Vec::new();
        if self.only_interop {
            arguments.push("interop_");
        }
        arguments.extend(["--skip", "wine::"]);
        if !self.interop {
            arguments.extend(["--skip", "interop_"]);
            arguments.extend(SERVER_WORDS.iter().flat_map(|word| ["--skip", word]));
        }
        if !self.long {
            // A bare `long_` would leave out `too_long_…`, too.
            arguments.extend(["--skip", "::long_", "--skip", "long::"]);
        }
        arguments
    }
}

/// How many tests run at once. Many of them wait: for a slow line, a time limit, somebody else's server. So there are half as many
/// again as there are cores; where `NEXTEST_TEST_THREADS` says how many, that holds.
fn at_once() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores + cores.div_ceil(2)
}

fn nextest(root: &Path, needs: &Needs, choice: &Choice) -> Command {
    let mut command = whole(root, needs, &["nextest", "run", "--no-fail-fast", "--filterset", &choice.expression()]);
    if std::env::var_os("NEXTEST_TEST_THREADS").is_none() {
        command.args(["--test-threads", &at_once().to_string()]);
    }
    command
}

fn libtest(root: &Path, needs: &Needs, choice: &Choice) -> Command {
    let mut command = whole(root, needs, &["test", "--lib", "--bins", "--tests", "--no-fail-fast"]);
    command.arg("--").args(choice.arguments());
    command
}

fn succeed(mut command: Command) -> Result<(), String> {
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("starting {command:?} failed: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo ended with {status}")) }
}

/// Runs `cargo test`, which sums up every test program by itself, and closes with the sum of them all.
fn counted(mut command: Command, tell: fn(&str)) -> Result<(), String> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| format!("starting cargo test failed: {e}"))?;
    let mut sum = (0, 0);
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line.map_err(|e| format!("reading what cargo test says failed: {e}"))?;
            tell(&line);
            if let Some((passed, failed)) = counts(&line) {
                sum = (sum.0 + passed, sum.1 + failed);
            }
        }
    }
    let status = child.wait().map_err(|e| format!("waiting for cargo test failed: {e}"))?;
    tell(&format!("{} passed, {} failed", sum.0, sum.1));
    if !status.success() {
        return Err(format!("cargo ended with {status}"));
    }
    if sum == (0, 0) { Err("no test ran".to_owned()) } else { Ok(()) }
}

/// Passed and failed of a line `test result: ok. 5 passed; 0 failed; …`.
fn counts(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?;
    let count = |what: &str| rest.split(['.', ';']).find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok());
    Some((count("passed")?, count("failed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_run_leaves_out_long_tests_only() {
        let plain = Choice { only_interop: false, interop: true, long: false };
        assert_eq!(plain.expression(), format!("not {WINDOWS} and not {LONG}"));
        assert!(!plain.arguments().contains(&"interop_"));
        let all = Choice { only_interop: false, interop: true, long: true };
        assert_eq!(all.expression(), format!("not {WINDOWS}"));
        assert_eq!(all.arguments(), ["--skip", "wine::"]);
    }

    #[test]
    fn interop_is_chosen_or_left_out_as_a_whole() {
        let only = Choice { only_interop: true, interop: true, long: true };
        assert_eq!(only.expression(), format!("not {WINDOWS} and {INTEROP}"));
        assert_eq!(only.arguments(), ["interop_", "--skip", "wine::"]);
        let without = Choice { only_interop: false, interop: false, long: true };
        assert_eq!(without.expression(), format!("not {WINDOWS} and not {INTEROP} and not {SERVER}"));
        let words = ["wine::", "interop_", "postgres", "mariadb", "odbc"];
        assert_eq!(without.arguments(), words.iter().flat_map(|word| ["--skip", *word]).collect::<Vec<_>>());
    }

    #[test]
    fn the_summary_of_the_built_in_harness_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out; finished in 0.25s";
        assert_eq!(counts(line), Some((12, 3)));
        assert_eq!(counts("test a::test_result ... ok"), None);
    }

    #[test]
    fn runs_are_summed_up_and_judged_by_the_exit_status() {
        let script = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]);
            command
        };
        let ok = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'";
        assert_eq!(counted(script(ok), |_| {}), Ok(()));
        assert!(counted(script(&format!("{ok}; exit 101")), |_| {}).is_err());
        assert!(counted(script("true"), |_| {}).unwrap_err().contains("no test ran"));
    }

    #[test]
    fn a_failed_step_is_remembered_and_the_next_one_runs() {
        let mut steps = Steps { tell: |_| {}, at: 0, of: 2, failed: Vec::new() };
        let mut ran = false;
        steps.step("first", || Err("no".to_owned()));
        steps.step("second", || {
            ran = true;
            Ok(())
        });
        assert!(ran && steps.failed == ["first"] && steps.at == 2);
    }
}
