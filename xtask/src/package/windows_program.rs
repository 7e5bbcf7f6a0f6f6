//! The agent as a program of Windows, built here by the linker of mingw-w64.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::{done, said};
use crate::repository;

/// The target: the one that is built without Microsoft's own tools.
pub(crate) const TARGET: &str = "x86_64-pc-windows-gnu";
/// Its linker.
const LINKER: &str = "x86_64-w64-mingw32-gcc";

/// How the program is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As it is published, with ODBC.
    Release,
    /// As tests run it, with failpoints, as quickly as it can be built.
    Test,
}

/// Builds it; where it lies.
///
/// # Errors
/// Without the target, with what to do; a build that fails.
pub(crate) fn build(root: &Path, profile: Profile) -> Result<PathBuf, String> {
    check_target()?;
    let mut arguments = vec!["build", "--locked", "--quiet", "-p", "towpath-agent", "--target", TARGET];
    let folder = match profile {
        Profile::Release => {
            arguments.extend(["--release", "--features", "odbc"]);
            "release"
        }
        Profile::Test => {
            arguments.extend(["--features", "failpoints"]);
            "debug"
        }
    };
    done(repository::cargo(root, &arguments).env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", LINKER))?;
    Ok(repository::target(root).join(TARGET).join(folder).join("towpath-agent.exe"))
}

/// The rooms whose own tests run on Windows as well: what it alone has, files and connections, the journal, programs and logs.
pub(crate) const TESTED: [&str; 4] = ["towpath-platform", "towpath-transport", "towpath-journal", "towpath-host"];

/// Builds the tests of [`TESTED`]; where their programs lie, in that order.
///
/// # Errors
/// As [`build`].
pub(crate) fn tests(root: &Path) -> Result<Vec<PathBuf>, String> {
    check_target()?;
    let mut arguments = vec!["test", "--no-run", "--locked", "--quiet", "--lib", "--target", TARGET, "--message-format=json"];
    arguments.extend(TESTED.iter().flat_map(|room| ["-p", room]));
    let told = said(repository::cargo(root, &arguments).env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", LINKER))?;
    let built = told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let programs: Vec<_> = built.filter_map(|message| program_of(&message)).collect();
    let find = |room: &&str| {
        let crate_name = room.replace('-', "_");
        let found = programs.iter().find(|(name, _)| *name == crate_name).map(|(_, program)| program.clone());
        found.ok_or_else(|| format!("cargo names no program with the tests of {room}"))
    };
    TESTED.iter().map(find).collect()
}

/// The crate and the program that a message of cargo tells of.
fn program_of(message: &serde_json::Value) -> Option<(String, PathBuf)> {
    let name = message.get("target")?.get("name")?.as_str()?;
    Some((name.to_owned(), message.get("executable")?.as_str()?.into()))
}

fn check_target() -> Result<(), String> {
    let libraries = said(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))?;
    if Path::new(&libraries).is_dir() {
        return Ok(());
    }
    Err(format!("the target {TARGET} is missing here: rustup target add {TARGET}"))
}
