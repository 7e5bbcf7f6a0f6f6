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

/// Builds the tests of what only Windows has; where their program lies.
///
/// # Errors
/// As [`build`].
pub(crate) fn platform_tests(root: &Path) -> Result<PathBuf, String> {
    check_target()?;
    let arguments = ["test", "--no-run", "--locked", "--quiet", "-p", "towpath-platform", "--lib", "--target", TARGET];
    let mut command = repository::cargo(root, &arguments);
    let told = said(command.arg("--message-format=json").env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", LINKER))?;
    let built = told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let program = built.filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from)).next_back();
    program.ok_or_else(|| "cargo names no program with the tests of towpath-platform".to_owned())
}

fn check_target() -> Result<(), String> {
    let libraries = said(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]))?;
    if Path::new(&libraries).is_dir() {
        return Ok(());
    }
    Err(format!("the target {TARGET} is missing here: rustup target add {TARGET}"))
}
