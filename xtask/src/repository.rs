//! Where the repository is, and the commands that work in it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The root of the checkout that this program was built from.
pub(crate) fn root() -> Result<PathBuf, String> {
    let here = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent().map(Path::to_path_buf).ok_or_else(|| format!("{} has no parent folder", here.display()))
}

/// Cargo's target folder.
pub(crate) fn target(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// A call of the cargo that runs this program, in the root.
pub(crate) fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root);
    // What cargo tells this program about its own package must not reach the build of the others: build scripts that look at it
    // would run anew, and everything above them, after every call of cargo that was not made here.
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_package(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    // In CI nothing is built twice, and what makes a second build quicker only costs time and disk.
    if is_ci() {
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// Whether cargo says by a variable of this name something of the package that it runs.
fn is_of_package(name: &str) -> bool {
    ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether this is a run where a missing server is a failure.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| says_yes(&value.to_string_lossy()))
}

fn says_yes(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "false" | "no")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ci_is_on_for_any_value_that_says_yes() {
        for (value, yes) in [("true", true), ("1", true), ("TRUE", true), ("false", false), ("0", false), ("", false)] {
            assert_eq!(says_yes(value), yes, "{value:?}");
        }
    }

    /// This test is run by cargo, which tells it of this package.
    #[test]
    fn what_cargo_says_of_this_package_does_not_reach_other_builds() {
        let command = cargo(Path::new("."), &[]);
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION_MAJOR"] {
            assert!(env::var_os(name).is_some() && removed.contains(&std::ffi::OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().unwrap().join("Cargo.lock").exists());
    }
}
