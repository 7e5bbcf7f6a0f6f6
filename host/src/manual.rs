//! What a package has beside a program: manual pages, and what completes its command line in the usual shells. Both are made from
//! the definition of the command line itself.

use std::{fs, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;
use towpath_transfer::{Code, Failure, failure::Result};

/// Shells whose completions are made. That of bash is named `<program>.bash`, of zsh `_<program>`, of fish `<program>.fish`.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes the pages (`<program>.1`, and `<program>-<command>.1` for each command) and the completions into `folder`, which is made
/// where it is missing.
///
/// # Errors
/// `file-failed` where they cannot be written.
pub fn write<Arguments: CommandFactory>(folder: &Path) -> Result<()> {
    let failed = |error: std::io::Error| {
        Failure::park(Code::FileFailed, format!("writing the manual to {}", folder.display())).caused_by(error)
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command, &name, folder).map_err(failed)?;
    }
    clap_mangen::generate_to(command, folder).map_err(failed)
}

#[cfg(test)]
mod tests {
    use clap::{Parser, Subcommand};

    use super::*;

    /// Carries things.
    #[derive(Parser)]
    #[command(name = "carrier", version)]
    struct Arguments {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Subcommand)]
    enum Command {
        /// Puts one thing down.
        Put,
        #[command(hide = true)]
        Secretly,
    }

    #[test]
    fn there_is_a_page_for_every_command_and_a_file_for_every_shell() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new");
        write::<Arguments>(&out).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert!(names.starts_with(&["_carrier".to_owned()]) && names.contains(&"carrier.1".to_owned()), "{names:?}");
        for name in ["carrier.bash", "carrier.fish", "carrier-put.1"] {
            assert!(names.contains(&name.to_owned()), "{name} is missing in {names:?}");
        }
        assert!(!names.contains(&"carrier-secretly.1".to_owned()), "{names:?}");
        assert!(fs::read_to_string(out.join("carrier-put.1")).unwrap().contains("Puts one thing down"));
        fs::write(folder.path().join("file"), b"").unwrap();
        assert_eq!(write::<Arguments>(&folder.path().join("file")).unwrap_err().code(), Code::FileFailed);
    }
}
