//! `cargo xtask test --windows`: the agent's packages for Windows, made here and installed under Wine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Steps, WINDOWS, counted, succeed, whole};
use crate::{
    console::{Watch, complain, say},
    needs::{self, Needs},
    package, repository,
};

/// What has to be here, and the packages of Debian that bring it.
const TOOLS: [(&str, &[&str]); 5] = [
    ("x86_64-w64-mingw32-gcc", &["gcc-mingw-w64-x86-64-win32"]),
    ("x86_64-w64-mingw32-strip", &["binutils-mingw-w64-x86-64"]),
    ("wixl", &["wixl"]),
    ("msibuild", &["msitools"]),
    ("/usr/lib/wine/wine64", &["wine", "wine64"]),
];

/// The version whose program does not work.
const BROKEN: &str = "0.1.2";

/// True when all passed.
pub(super) fn run(root: &Path) -> Result<bool, String> {
    let watch = Watch::start();
    let mut steps = Steps { tell: say, at: 0, of: 4, failed: Vec::new() };
    steps.step("programs for Windows", || needs::install_tools(&TOOLS));
    steps.step("the agent for Windows", || {
        package::windows_program::build(root, package::windows_program::Profile::Test).map(drop)
    });
    steps.step("packages", || packages(root));
    if steps.failed.is_empty() {
        steps.step("tests", || tests(root));
    }
    if steps.failed.is_empty() {
        say(&format!("xtask test --windows: everything passed in {}", watch.elapsed()));
    } else {
        complain(&format!("xtask test --windows: FAILED: {} ({})", steps.failed.join(", "), watch.elapsed()));
    }
    Ok(steps.failed.is_empty())
}

fn packages(root: &Path) -> Result<(), String> {
    let programs = repository::target(root).join(package::windows_program::TARGET).join("debug");
    for version in super::PACKAGED {
        package::run(&package::Options::of_windows_tests(root, programs.clone(), version))?;
    }
    package::run(&package::Options::of_windows_tests(root, broken(root)?, BROKEN))
}

/// Where a program lies that takes the agent's place and does nothing at all: its set-up succeeds, and its service never works.
fn broken(root: &Path) -> Result<PathBuf, String> {
    let folder = repository::target(root).join("broken-of-windows-tests");
    fs::create_dir_all(&folder).map_err(|e| format!("making {}: {e}", folder.display()))?;
    let source = folder.join("broken.c");
    fs::write(&source, "int main(void) { return 0; }\n").map_err(|e| format!("writing {}: {e}", source.display()))?;
    let program = folder.join("towpath-agent.exe");
    let compiled = Command::new("x86_64-w64-mingw32-gcc").arg("-o").arg(program).arg(&source).status();
    let status = compiled.map_err(|e| format!("starting x86_64-w64-mingw32-gcc failed: {e}"))?;
    if !status.success() {
        return Err(format!("compiling {} ended with {status}", source.display()));
    }
    Ok(folder)
}

/// Tests that talk to a relay and a receiver of this system. The whole workspace is named, so that what `cargo xtask test` has built
/// is not built anew.
fn tests(root: &Path) -> Result<(), String> {
    let needs = Needs::look(root);
    let has_nextest = repository::cargo(root, &["nextest", "--version"]).output().is_ok_and(|output| output.status.success());
    if has_nextest {
        return succeed(whole(root, &needs, &["nextest", "run", "--filterset", WINDOWS]));
    }
    let mut command = whole(root, &needs, &["test", "--test", "e2e"]);
    command.args(["--", "wine::"]);
    counted(command, say)
}
