//! What the interop tests need beside Rust and a C compiler: other people's programs, judges of our protocol.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{console::say, repository};

/// Where the tests find a Python that can import the modules of [`MODULES`].
pub(crate) const PYTHON_VARIABLE: &str = "TOWPATH_INTEROP_PYTHON";

/// A program of another project.
struct Program {
    /// Names to look for; any one of them will do. Absolute where the program is no command.
    names: &'static [&'static str],
    /// The Debian package that brings it.
    package: &'static str,
    why: &'static str,
}

/// What the agent's feature `odbc` is linked to.
const UNIXODBC: &str = "unixodbc-dev";

const PROGRAMS: &[Program] = &[
    Program { names: &["sshd"], package: "openssh-server", why: "a landing place and conformance partner for our SFTP client" },
    Program {
        names: &["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server"],
        package: "openssh-server",
        why: "its SFTP side",
    },
    Program { names: &["ssh"], package: "openssh-client", why: "logs in to our SSH server" },
    Program { names: &["sftp"], package: "openssh-client", why: "moves files to and from our SFTP server" },
    Program { names: &["ssh-keygen"], package: "openssh-client", why: "verifies our signatures and makes some for us" },
    Program { names: &["bzip2"], package: "bzip2", why: "unpacks what we pack, and packs for us" },
    Program { names: &["md5sum"], package: "coreutils", why: "accepts our MD5SUMS" },
    Program { names: &["sqlite3"], package: "sqlite3", why: "reads the imported tables without our code" },
    Program {
        names: &["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"],
        package: "libfaketime",
        why: "sets the clock of one program a day off",
    },
    Program {
        names: &["/usr/lib/openssh/regress/test-exec.sh"],
        package: "openssh-tests",
        why: "OpenSSH's own tests of SFTP, with our server in the place of theirs",
    },
    Program {
        names: &[
            "initdb",
            "/usr/lib/postgresql/15/bin/initdb",
            "/usr/lib/postgresql/16/bin/initdb",
            "/usr/lib/postgresql/17/bin/initdb",
        ],
        package: "postgresql",
        why: "an ERP database and an app database",
    },
    Program { names: &["mariadbd"], package: "mariadb-server", why: "an ERP database" },
    Program { names: &["mariadb"], package: "mariadb-client", why: "fills that database without our code" },
    Program { names: &["/usr/include/sql.h"], package: UNIXODBC, why: "sources by ODBC are linked to its driver manager" },
    Program {
        names: &["/usr/lib/x86_64-linux-gnu/odbc/psqlodbcw.so", "/usr/lib/aarch64-linux-gnu/odbc/psqlodbcw.so"],
        package: "odbc-postgresql",
        why: "an ODBC driver",
    },
    Program {
        names: &["/usr/lib/x86_64-linux-gnu/odbc/libmaodbc.so", "/usr/lib/aarch64-linux-gnu/odbc/libmaodbc.so"],
        package: "odbc-mariadb",
        why: "an ODBC driver",
    },
    Program {
        names: &["/usr/lib/x86_64-linux-gnu/odbc/libsqlite3odbc.so", "/usr/lib/aarch64-linux-gnu/odbc/libsqlite3odbc.so"],
        package: "libsqliteodbc",
        why: "an ODBC driver",
    },
    Program { names: &["c++"], package: "g++", why: "builds libFuzzer, which drives the fuzz targets" },
    Program { names: &["setpriv"], package: "util-linux", why: "lets PostgreSQL run as another user than root" },
    Program { names: &["curl"], package: "curl", why: "an SFTP client over libssh2, and says `complete` to the web service" },
    Program { names: &["lftp"], package: "lftp", why: "an SFTP client over ssh, which pipelines" },
    Program { names: &["psftp"], package: "putty-tools", why: "an SFTP client of another make" },
    Program { names: &["puttygen"], package: "putty-tools", why: "turns an agent's key into PuTTY's form" },
    Program { names: &["rclone"], package: "rclone", why: "an SFTP client of another make" },
    Program { names: &["tinyproxy"], package: "tinyproxy-bin", why: "an HTTP proxy with passwords between agent and relay" },
    Program { names: &["microsocks"], package: "microsocks", why: "a SOCKS5 proxy with passwords between agent and relay" },
    Program { names: &["ip"], package: "iproute2", why: "makes the namespaces of a customer's network" },
    Program { names: &["nft"], package: "nftables", why: "closes one way out of that network after the other" },
    Program { names: &["/usr/lib/systemd/systemd"], package: "systemd", why: "is PID 1 of the machine that runs our service" },
    Program { names: &["dpkg-shlibdeps"], package: "dpkg-dev", why: "tells which libraries a package needs" },
    Program { names: &["strip"], package: "binutils", why: "takes the symbols out of packaged programs" },
    Program { names: &["rpmbuild"], package: "rpm", why: "makes packages for RHEL, and installs them" },
    Program { names: &["deb-systemd-helper"], package: "init-system-helpers", why: "enables the service of a package" },
    Program { names: &["dbus-daemon"], package: "dbus", why: "lets users ask that systemd" },
    Program { names: &["useradd"], package: "passwd", why: "makes the service's user there" },
    Program { names: &["unshare"], package: "util-linux", why: "makes that machine's namespaces" },
    Program { names: &["mount"], package: "mount", why: "makes its file system" },
    Program { names: &["openssl"], package: "openssl", why: "signs a token without our code" },
    Program { names: &["testssl"], package: "testssl.sh", why: "judges our TLS" },
    Program { names: &["python3"], package: "python3-venv", why: "runs paramiko, asyncssh, ssh-audit, schemathesis and Tryton" },
];

/// A Python module, installed into the virtual environment only.
struct Module {
    name: &'static str,
    /// The requirement for pip, with its version: a test that changes by itself tells nothing.
    requirement: &'static str,
    why: &'static str,
}

const MODULES: &[Module] = &[
    Module {
        name: "paramiko",
        requirement: "paramiko==4.0.0",
        why: "an SFTP client of another make; its default get pipelines hard",
    },
    Module { name: "asyncssh", requirement: "asyncssh==2.24.1", why: "an SFTP client of another make" },
    Module { name: "ssh_audit", requirement: "ssh-audit==3.9.0", why: "judges what our SSH servers offer" },
    Module {
        name: "schemathesis",
        requirement: "schemathesis==4.32.5",
        why: "judges whether the web service keeps to its OpenAPI document",
    },
    Module { name: "hypothesis", requirement: "hypothesis==6.170.15", why: "draws what schemathesis asks" },
    Module { name: "trytond", requirement: "trytond==8.2.1", why: "an ERP whose tables a profile reads" },
    Module { name: "proteus", requirement: "proteus==8.2.0", why: "does business in it" },
    Module { name: "trytond.modules.sale", requirement: "trytond-sale==8.2.0", why: "its customers' orders" },
    Module { name: "trytond.modules.purchase", requirement: "trytond-purchase==8.2.0", why: "its orders to suppliers" },
    Module { name: "trytond.modules.stock", requirement: "trytond-stock==8.2.1", why: "its stock" },
    Module { name: "trytond.modules.stock_supply", requirement: "trytond-stock-supply==8.2.0", why: "its planning of stock" },
    Module { name: "trytond.modules.production", requirement: "trytond-production==8.2.0", why: "its bills of material" },
    Module { name: "psycopg", requirement: "psycopg[binary,pool]==3.3.9", why: "its way to PostgreSQL" },
];

/// What is there, and what is not.
#[derive(Debug)]
pub(crate) struct Needs {
    /// The Python of the virtual environment, where it is complete.
    pub(crate) python: Option<PathBuf>,
    /// Packages to install; empty where nothing is missing.
    packages: Vec<&'static str>,
    /// Modules to install; empty where nothing is missing.
    requirements: Vec<&'static str>,
    venv: PathBuf,
}

impl Needs {
    /// Looks, without changing anything.
    pub(crate) fn look(root: &Path) -> Self {
        let venv = repository::target(root).join("interop-venv");
        let mut packages: Vec<_> = PROGRAMS.iter().filter(|program| !is_there(program)).map(|program| program.package).collect();
        let python = venv.join("bin/python");
        let requirements: Vec<_> = MODULES.iter().filter(|m| !imports(&python, m.name)).map(|m| m.requirement).collect();
        if !requirements.is_empty() && !imports(Path::new("python3"), "venv, ensurepip") {
            packages.push("python3-venv");
        }
        packages.sort_unstable();
        packages.dedup();
        let complete = requirements.is_empty();
        Self { python: complete.then_some(python), packages, requirements, venv }
    }

    /// Whether sources by ODBC can be built here.
    pub(crate) fn odbc(&self) -> bool {
        !self.packages.contains(&UNIXODBC)
    }

    pub(crate) fn complete(&self) -> bool {
        self.packages.is_empty() && self.requirements.is_empty()
    }

    /// One line to copy into a root shell, and what each missing thing is for.
    pub(crate) fn advice(&self) -> String {
        let mut lines = Vec::new();
        for program in PROGRAMS.iter().filter(|p| self.packages.contains(&p.package) && !is_there(p)) {
            lines.push(format!("  {} ({}): {}", program.names.join(" or "), program.package, program.why));
        }
        for module in MODULES.iter().filter(|m| self.requirements.contains(&m.requirement)) {
            lines.push(format!("  {} (pip): {}", module.name, module.why));
        }
        lines.push(format!("To install: {}", self.command_line()));
        lines.join("\n")
    }

    fn command_line(&self) -> String {
        let mut steps = Vec::new();
        if !self.packages.is_empty() {
            steps.push(format!(
                "sudo apt-get update && sudo apt-get install -y --no-install-recommends {}",
                self.packages.join(" ")
            ));
        }
        if !self.requirements.is_empty() {
            let venv = self.venv.display();
            steps.push(format!("python3 -m venv {venv} && {venv}/bin/pip install {}", self.requirements.join(" ")));
        }
        steps.join(" && ")
    }

    /// Installs what is missing: packages as root where apt is there, modules always (their folder is our own).
    ///
    /// # Errors
    /// Says what to install by hand, or which installation failed.
    pub(crate) fn install(self, root: &Path) -> Result<Self, String> {
        if !self.packages.is_empty() {
            if !is_root() || find("apt-get").is_none() {
                return Err(format!("the interop tests need what is not here:\n{}", self.advice()));
            }
            say(&format!("   installing {}", self.packages.join(" ")));
            apt(&["update", "-qq"])?;
            let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
            install.extend(&self.packages);
            apt(&install)?;
        }
        if !self.requirements.is_empty() {
            say(&format!("   installing {} in {}", self.requirements.join(" "), self.venv.display()));
            quietly(Command::new("python3").args(["-m", "venv"]).arg(&self.venv))?;
            let mut pip = Command::new(self.venv.join("bin/python"));
            quietly(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(&self.requirements))?;
        }
        let now = Self::look(root);
        if now.complete() { Ok(now) } else { Err(format!("still missing after installing:\n{}", now.advice())) }
    }
}

/// Installs what of these is missing: a program, and the packages that bring it.
///
/// # Errors
/// Says what to install by hand, or which installation failed.
pub(crate) fn install_tools(tools: &[(&str, &[&str])]) -> Result<(), String> {
    let missing = || tools.iter().filter(|(name, _)| find(name).is_none());
    let packages: Vec<&str> = missing().flat_map(|(_, packages)| packages.iter().copied()).collect();
    if packages.is_empty() {
        return Ok(());
    }
    if !is_root() || find("apt-get").is_none() {
        return Err(format!("missing here: sudo apt-get install --no-install-recommends {}", packages.join(" ")));
    }
    say(&format!("   installing {}", packages.join(" ")));
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages.as_slice()].concat())?;
    match missing().next() {
        Some((name, _)) => Err(format!("still missing after installing: {name}")),
        None => Ok(()),
    }
}

/// The folder that `sshd` wants when root starts it; an init script makes it, where one runs.
pub(crate) fn privilege_separation_folder() -> Result<(), String> {
    let folder = Path::new("/run/sshd");
    if is_root() && !folder.exists() {
        fs::create_dir_all(folder).map_err(|e| format!("creating {} failed: {e}", folder.display()))?;
    }
    Ok(())
}

fn is_there(program: &Program) -> bool {
    program.names.iter().any(|name| find(name).is_some())
}

/// A program in PATH or in the folders of system programs, which a user's PATH often leaves out.
fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn imports(python: &Path, module: &str) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", &format!("import {module}")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.status.success() && output.stdout.trim_ascii() == b"0")
}

fn apt(arguments: &[&str]) -> Result<(), String> {
    quietly(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Runs a command whose output matters only where it fails.
fn quietly(command: &mut Command) -> Result<(), String> {
    let what = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("starting {what} failed: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{what} ended with {}:\n{}", output.status, String::from_utf8_lossy(&said).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(packages: Vec<&'static str>, requirements: Vec<&'static str>) -> Needs {
        Needs { python: None, packages, requirements, venv: PathBuf::from("target/interop-venv") }
    }

    #[test]
    fn what_to_install_is_one_line() {
        let both = needs(vec!["bzip2", "sqlite3"], vec!["paramiko==4.0.0"]);
        assert_eq!(
            both.command_line(),
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends bzip2 sqlite3 \
             && python3 -m venv target/interop-venv && target/interop-venv/bin/pip install paramiko==4.0.0"
        );
        assert!(!both.complete() && both.advice().contains("paramiko (pip): "));
        assert!(needs(vec![], vec![]).complete());
    }

    #[test]
    fn programs_are_found_by_name_and_by_path() {
        assert!(find("sh").is_some() && find("/bin/sh").is_some());
        assert!(find("no-such-program-anywhere").is_none());
        assert!(!imports(Path::new("no-such-python"), "os"));
    }

    #[test]
    fn a_failing_command_says_what_it_said() {
        let said = quietly(Command::new("sh").args(["-c", "echo out; echo why >&2; exit 3"])).unwrap_err();
        assert!(said.contains("out\nwhy") && said.contains("exit status: 3"), "{said}");
        assert!(quietly(&mut Command::new("no-such-program-anywhere")).unwrap_err().contains("starting"));
    }
}
