//! Where configuration and state lie.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

#[cfg(not(windows))]
use directories::ProjectDirs;
use towpath_transfer::{Code, Failure};

/// The usual place of a program's configuration file: what systemd gives, `/etc/towpath` for root, or the user's own
/// folder; on Windows the machine's folder, whoever asks. `program` is its one word, such as `relay`.
#[must_use]
pub fn usual_config(program: &str) -> Option<PathBuf> {
    let file = format!("{program}.toml");
    if let Some(folder) = first_of("CONFIGURATION_DIRECTORY") {
        return Some(folder.join(file));
    }
    config_folder().map(|folder| folder.join(file))
}

/// The state folder: the first that is given (command line, then configuration), what systemd gives, `/var/lib/towpath`
/// for root, or the user's own folder; on Windows the machine's, whoever asks. Absolute.
///
/// # Errors
/// `config-invalid` where none of them is known.
pub fn state(program: &str, given: [Option<&Path>; 2]) -> Result<PathBuf, Failure> {
    let usual = || state_folder().map(|folder| folder.join(program));
    let given = given.into_iter().flatten().next().map(Path::to_owned);
    let unknown = || Failure::park(Code::ConfigInvalid, "it is not known where the state shall lie: say --state DIR");
    let state = given.or_else(|| first_of("STATE_DIRECTORY")).or_else(usual).ok_or_else(unknown)?;
    std::path::absolute(&state)
        .map_err(|e| Failure::park(Code::ConfigInvalid, format!("{} cannot be a state folder", state.display())).caused_by(e))
}

/// Makes the folders above a state folder where there are none. They are closed to nobody, as the state folder itself is: the
/// service's user has to pass through them, also where root has made them.
///
/// # Errors
/// As the disk reports.
pub fn make_above(state: &Path) -> io::Result<()> {
    let Some(parent) = state.parent() else { return Ok(()) };
    let missing: Vec<&Path> =
        parent.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).collect();
    fs::create_dir_all(parent)?;
    // The name of each is written before anything below it is said to be there.
    missing.into_iter().filter_map(Path::parent).try_for_each(sync)
}

#[cfg(unix)]
fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all()
}

/// NTFS journals names by itself.
#[cfg(not(unix))]
fn sync(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(not(windows))]
fn config_folder() -> Option<PathBuf> {
    if is_root() { Some(PathBuf::from("/etc/towpath")) } else { own().map(|dirs| dirs.config_dir().to_owned()) }
}

#[cfg(not(windows))]
fn state_folder() -> Option<PathBuf> {
    if is_root() { Some(PathBuf::from("/var/lib/towpath")) } else { own().map(|dirs| dirs.data_dir().to_owned()) }
}

/// Service, administrators and whoever else asks mean the same one.
#[cfg(windows)]
fn config_folder() -> Option<PathBuf> {
    towpath_platform::folders::data().ok()
}

#[cfg(windows)]
fn state_folder() -> Option<PathBuf> {
    config_folder()
}

#[cfg(not(windows))]
fn own() -> Option<ProjectDirs> {
    ProjectDirs::from("", "", "towpath")
}

/// systemd joins several folders with colons; the first is ours.
fn first_of(variable: &str) -> Option<PathBuf> {
    let value = env::var(variable).ok()?;
    value.split(':').next().filter(|first| !first.is_empty()).map(PathBuf::from)
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn the_folders_above_are_as_open_as_any() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("any")).unwrap();
        for _ in 0..2 {
            make_above(&folder.path().join("deep/er/state")).unwrap();
        }
        let mode = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!([mode("deep"), mode("deep/er")], [mode("any"); 2]);
        assert!(!folder.path().join("deep/er/state").exists());
        make_above(Path::new("/")).unwrap();
    }

    #[test]
    fn what_is_given_first_counts_and_is_made_absolute() {
        let a = std::path::absolute("/a").unwrap();
        let b = Path::new("b");
        assert_eq!(state("relay", [Some(&a), Some(b)]).unwrap(), a);
        let relative = state("relay", [None, Some(b)]).unwrap();
        assert!(relative.is_absolute() && relative.ends_with("b"));
    }
}
