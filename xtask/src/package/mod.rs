//! `cargo xtask package`: what an administrator installs, with its check sums, in one folder.
//!
//! Programs are staged as files of a system, once for each; the tools of the distributions make packages of that
//! ([`deb`], [`rpm`], [`windows`]). What changes from run to run is nothing but the programs: files have the time of the commit.

mod deb;
mod icon;
mod licences;
mod linux;
mod release;
mod rpm;
mod windows;
pub(crate) mod windows_program;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::{Args, ValueEnum};

use crate::{
    console::{Watch, say},
    needs::Needs,
    repository,
};

/// What is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Debian, Ubuntu
    Deb,
    /// RHEL, Rocky, SUSE
    Rpm,
    /// Windows, the agent only
    Windows,
}

/// Which packages to make, of what, and where.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Kinds of packages; all of them where none is named.
    #[arg(value_enum)]
    kinds: Vec<Kind>,
    /// The folder for them; made anew.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Package the programs of this folder, as the tests do, instead of building them for a release.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// The version of the packages, where it is not that of the programs.
    #[arg(long)]
    package_version: Option<String>,
    /// The oldest version that this one follows as an update, and to which one can go back from it, where it is not the usual one.
    #[arg(long, value_name = "VERSION")]
    follows: Option<String>,
    /// A shell command that signs the program and the packages of Windows: it gets the path of a file, and signs it where it lies.
    #[arg(long, value_name = "COMMAND", env = "TOWPATH_SIGN")]
    sign: Option<String>,
}

impl Options {
    /// What the tests install on Linux: the programs that they have built, as they are.
    pub(crate) fn of_tests(root: &Path, programs: PathBuf, package_version: &str) -> Self {
        Self::made_of(vec![Kind::Deb, Kind::Rpm], for_tests(root, package_version), programs, package_version)
    }

    /// What the tests install on Windows, signed by a command.
    pub(crate) fn of_windows_tests(root: &Path, programs: PathBuf, package_version: &str, sign: &str) -> Self {
        let made = Self::made_of(vec![Kind::Windows], for_windows_tests(root, package_version), programs, package_version);
        Self { sign: Some(sign.to_owned()), ..made }
    }

    fn made_of(kinds: Vec<Kind>, out: PathBuf, programs: PathBuf, package_version: &str) -> Self {
        let (out, programs, package_version) = (Some(out), Some(programs), Some(package_version.to_owned()));
        Self { kinds, out, programs, package_version, follows: None, sign: None }
    }
}

/// Where the packages lie that the tests install.
pub(crate) fn for_tests(root: &Path, package_version: &str) -> PathBuf {
    repository::target(root).join("packages-of-tests").join(package_version)
}

/// Where the packages lie that the tests install on Windows.
pub(crate) fn for_windows_tests(root: &Path, package_version: &str) -> PathBuf {
    repository::target(root).join("packages-of-windows-tests").join(package_version)
}

/// A program that is packaged, with what makes it a service.
pub(crate) struct Product {
    /// `agent`, `relay` or `receiver`.
    pub(crate) role: &'static str,
    /// The user of the service.
    pub(crate) user: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) description: &'static str,
    /// Whether its configuration comes with the package. That of the agent is written for it, by `init` or by its administrator.
    pub(crate) conffile: bool,
}

/// Before the agent's package is removed: what `service install` has made goes with the program that it starts.
const AGENT_UNINSTALL: &str = "    \
    if grep -qs '^# Written by: towpath-agent service install' /etc/systemd/system/towpath-agent.service; then
        towpath-agent service uninstall >/dev/null || true
    fi
";

/// The units beside the agent's own: root's part of an update.
const AGENT_UNITS: [&str; 2] = ["towpath-agent-update.path", "towpath-agent-update.service"];

/// Once the agent's package is there: what sees that an update lies ready. Without an administrator who allows updates it sees nothing.
const AGENT_WATCHED: &str = "        systemctl --system start towpath-agent-update.path >/dev/null || true\n";

/// When the agent's package is purged: what updates have left.
const AGENT_PURGED: &str = "    rm -rf /var/lib/towpath/update
    rm -f /etc/systemd/system/towpath-agent-update-run.service
    rm -f /etc/systemd/system/multi-user.target.wants/towpath-agent-update-run.service
    rm -rf /etc/systemd/system/towpath-agent-update.service.d
";

pub(crate) const PRODUCTS: [Product; 3] = [
    Product {
        role: "agent",
        user: "towpath",
        summary: "Sends tables of an ERP to an app, and brings its answers back",
        description: "The agent runs beside an ERP. It extracts tables to CSV, packs and signs them, pushes them\n\
                      over SFTP to a relay, and keeps them until the app's side has signed for the import.",
        conffile: false,
    },
    Product {
        role: "relay",
        user: "towpath-relay",
        summary: "Relays files between the agents and the app servers of many tenants",
        description: "The relay takes files from agents over SFTP on ports 443 and 80, forwards them to the app\n\
                      server of their tenant, and carries return files and signed receipts back.",
        conffile: true,
    },
    Product {
        role: "receiver",
        user: "towpath-receiver",
        summary: "Checks what the relay forwards and imports it into the app's database",
        description: "The receiver runs beside an app. It verifies signatures and check sums of what the relay has\n\
                      forwarded, imports it exactly once, signs for it, and sends files back to the ERP.",
        conffile: true,
    },
];

impl Product {
    /// The name of package, program and unit.
    pub(crate) fn name(&self) -> String {
        format!("towpath-{}", self.role)
    }

    /// The files of its units.
    pub(crate) fn units(&self) -> Vec<String> {
        let more = if self.role == "agent" { AGENT_UNITS.map(str::to_owned).to_vec() } else { Vec::new() };
        std::iter::once(format!("{}.service", self.name())).chain(more).collect()
    }

    /// The units that are started with the host; the others are started by these.
    fn started(&self) -> Vec<String> {
        let own = format!("{}.service", self.name());
        self.units().into_iter().filter(|unit| *unit == own || !unit.ends_with(".service")).collect()
    }

    pub(crate) fn state(&self) -> String {
        format!("/var/lib/towpath/{}", self.role)
    }

    pub(crate) fn config(&self) -> String {
        format!("/etc/towpath/{}.toml", self.role)
    }

    /// A text of `packaging/linux` with this product's names in it.
    pub(crate) fn filled(&self, text: &str) -> String {
        let of_agent = |text: &str| if self.role == "agent" { text.to_owned() } else { String::new() };
        let names = [
            ("@PACKAGE@", self.name()),
            ("@USER@", self.user.to_owned()),
            ("@STATE@", self.state()),
            ("@CONFIG@", self.config()),
            ("@LOGS@", format!("/var/log/towpath/{}", self.role)),
            ("@UNINSTALL@", of_agent(AGENT_UNINSTALL)),
            ("@WATCHED@", of_agent(AGENT_WATCHED)),
            ("@PURGED@", of_agent(AGENT_PURGED)),
            ("@UNITS@", self.started().join(" ")),
        ];
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

/// What every kind of package is made from.
pub(crate) struct Job {
    pub(crate) root: PathBuf,
    pub(crate) version: String,
    /// Where the staged files of each product lie, by its name.
    pub(crate) stages: PathBuf,
    pub(crate) out: PathBuf,
    /// The time of every file in a package, in seconds of 1970: that of the commit.
    pub(crate) time: String,
    /// Whether packages are made for tests, which are not compressed well.
    pub(crate) quick: bool,
    /// What signs files of Windows.
    pub(crate) sign: Option<String>,
}

/// Makes the packages. True, always: what goes wrong is an error.
///
/// # Errors
/// A build that fails, a tool that is missing, as the disk reports.
pub(crate) fn run(options: &Options) -> Result<bool, String> {
    let root = repository::root()?;
    let watch = Watch::start();
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| format!("{}: {e}", path.display()));
    let target = repository::target(&root);
    let out = absolute(&options.out.clone().unwrap_or_else(|| target.join("package")))?;
    let job = Job {
        version: options.package_version.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        // Beside the packages, so that two runs with folders of their own do not meet.
        stages: out.join(".stage"),
        out,
        time: said(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(&root))?,
        quick: options.programs.is_some(),
        sign: options.sign.clone().filter(|command| !command.is_empty()),
        root,
    };
    for folder in [&job.out, &job.stages] {
        anew(folder)?;
    }
    let all = [Kind::Deb, Kind::Rpm, Kind::Windows];
    let kinds = if options.kinds.is_empty() { &all } else { options.kinds.as_slice() };
    let of_linux: Vec<Kind> = kinds.iter().copied().filter(|kind| *kind != Kind::Windows).collect();
    if options.programs.is_none() && std::env::var_os(release::KEYS).is_none() {
        say(&format!(
            "   note: {} is not set, so the agent of these packages takes no updates (docs/operations.md)",
            release::KEYS
        ));
    }
    if !of_linux.is_empty() {
        make_of_linux(&job, options, &of_linux)?;
    }
    if kinds.contains(&Kind::Windows) {
        let program = match &options.programs {
            Some(folder) => folder.join("towpath-agent.exe"),
            None => {
                let built = windows_program::build(&job.root, windows_program::Profile::Release)?;
                release::refuse_programs_of_tests(std::slice::from_ref(&built))?;
                built
            }
        };
        for made in windows::make(&job, &program)? {
            say(&format!("   {}", made.display()));
        }
    }
    fs::remove_dir_all(&job.stages).map_err(|e| format!("removing {}: {e}", job.stages.display()))?;
    release::document(&job.out, &job.version, options.follows.as_deref().unwrap_or(release::FOLLOWS))?;
    checksums(&job.out)?;
    say(&format!("   packages of version {} in {} ({})", job.version, job.out.display(), watch.elapsed()));
    Ok(true)
}

/// Deb and rpm, of every product.
fn make_of_linux(job: &Job, options: &Options, kinds: &[Kind]) -> Result<(), String> {
    let programs = match &options.programs {
        Some(folder) => folder.clone(),
        None => build(&job.root)?,
    };
    let licences = licences::collect(job, None)?;
    licences.write_beside(&job.out, "linux", &PRODUCTS.each_ref().map(Product::name))?;
    for product in &PRODUCTS {
        linux::stage(job, product, &programs, &licences)?;
        for kind in kinds {
            let made = match kind {
                Kind::Deb => deb::make(job, product)?,
                Kind::Rpm => rpm::make(job, product)?,
                Kind::Windows => continue,
            };
            say(&format!("   {}", made.display()));
        }
    }
    Ok(())
}

/// Builds the programs for a release; the folder that they lie in.
fn build(root: &Path) -> Result<PathBuf, String> {
    let mut arguments =
        vec!["build", "--release", "--locked", "-p", "towpath-agent", "-p", "towpath-relay", "-p", "towpath-receiver"];
    if !Needs::look(root).odbc() {
        return Err("the packages' agent reads ODBC sources; install unixodbc-dev".to_owned());
    }
    arguments.extend(["--features", "towpath-agent/odbc"]);
    done(&mut repository::cargo(root, &arguments))?;
    let built = repository::target(root).join("release");
    release::refuse_programs_of_tests(&PRODUCTS.iter().map(|product| built.join(product.name())).collect::<Vec<_>>())?;
    Ok(built)
}

/// `SHA256SUMS`, as `sha256sum -c` reads it.
fn checksums(out: &Path) -> Result<(), String> {
    let mut names: Vec<String> = entries(out)?.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    names.sort();
    let sums = said(Command::new("sha256sum").arg("--").args(&names).current_dir(out))?;
    write(&out.join("SHA256SUMS"), &format!("{sums}\n"))
}

pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |e: std::io::Error| format!("reading {}: {e}", folder.display());
    fs::read_dir(folder).map_err(failed)?.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

fn anew(folder: &Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("making {} anew: {e}", folder.display());
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    fs::create_dir_all(folder).map_err(failed)
}

/// Writes a file, and the folders above it.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("writing {}: {e}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}

pub(crate) fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("reading {}: {e}", path.display()))
}

/// Runs a tool to its end.
pub(crate) fn done(command: &mut Command) -> Result<(), String> {
    said(command).map(drop)
}

/// Runs a tool to its end; what it has printed.
pub(crate) fn said(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.output().map_err(|e| format!("starting {name} failed: {e}; cargo xtask test installs what is missing"))?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name} {} failed with {}\n{}", words.join(" "), output.status, told.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Runs a tool to its end that has nothing to say where all is well: a warning is a failure.
pub(crate) fn quietly(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("starting {name} failed: {e}; apt-get install wixl msitools"))?;
    let told = [output.stdout, output.stderr].concat();
    if output.status.success() && told.trim_ascii().is_empty() {
        return Ok(());
    }
    Err(format!("{name} ended with {} and said:\n{}", output.status, String::from_utf8_lossy(&told).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_fails_is_named_with_what_it_said() {
        let told = said(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).unwrap_err();
        assert!(told.starts_with("sh -c") && told.contains("exit status: 3") && told.ends_with("no"), "{told}");
        assert!(said(&mut Command::new("/nowhere/tool")).unwrap_err().contains("starting /nowhere/tool failed"));
    }

    #[test]
    fn a_warning_is_a_failure() {
        let told = quietly(Command::new("sh").args(["-c", "echo ignored: x >&2"])).unwrap_err();
        assert!(told.contains("ignored: x"), "{told}");
        quietly(&mut Command::new("true")).unwrap();
        assert!(quietly(&mut Command::new("false")).is_err());
    }

    #[test]
    fn names_stand_where_they_belong() {
        let [agent, ..] = &PRODUCTS;
        assert_eq!(agent.filled("@PACKAGE@ @USER@ @STATE@"), "towpath-agent towpath /var/lib/towpath/agent");
        assert_eq!(agent.filled("@UNITS@"), "towpath-agent.service towpath-agent-update.path");
        assert_eq!(PRODUCTS[1].filled("@UNITS@@WATCHED@@PURGED@"), "towpath-relay.service");
    }

    #[test]
    fn every_check_sum_is_that_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.deb"), b"b").unwrap();
        fs::write(folder.path().join("a.deb"), b"a").unwrap();
        checksums(folder.path()).unwrap();
        let sums = fs::read_to_string(folder.path().join("SHA256SUMS")).unwrap();
        assert!(sums.lines().next().unwrap().ends_with("  a.deb") && sums.lines().count() == 2, "{sums}");
        done(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder.path())).unwrap();
    }
}
