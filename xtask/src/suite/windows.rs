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
const TOOLS: [(&str, &[&str]); 7] = [
    ("x86_64-w64-mingw32-gcc", &["gcc-mingw-w64-x86-64-win32"]),
    ("x86_64-w64-mingw32-strip", &["binutils-mingw-w64-x86-64"]),
    ("wixl", &["wixl"]),
    ("msibuild", &["msitools"]),
    ("osslsigncode", &["osslsigncode"]),
    ("openssl", &["openssl"]),
    ("/usr/lib/wine/wine64", &["wine", "wine64"]),
];

/// The version whose program does not work.
const BROKEN: &str = "0.1.2";

/// True when all passed.
pub(super) fn run(root: &Path) -> Result<bool, String> {
    let watch = Watch::start();
    let mut steps = Steps { tell: say, at: 0, of: 5, failed: Vec::new() };
    steps.step("programs for Windows", || needs::install_tools(&TOOLS));
    steps.step("the agent for Windows", || {
        package::windows_program::build(root, package::windows_program::Profile::Test).map(drop)
    });
    steps.step("tests that run on Windows", || room_tests(root));
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

/// Lays the programs of the rooms' tests where the test is that runs them under Wine.
fn room_tests(root: &Path) -> Result<(), String> {
    let folder = repository::target(root).join("packages-of-windows-tests");
    fs::create_dir_all(&folder).map_err(|e| format!("making {}: {e}", folder.display()))?;
    let built = package::windows_program::tests(root)?;
    for (room, built) in package::windows_program::TESTED.iter().zip(&built) {
        let program = folder.join(format!("{room}-tests.exe"));
        fs::copy(built, &program).map_err(|e| format!("copying {} to {}: {e}", built.display(), program.display()))?;
    }
    Ok(())
}

/// Makes and signs the packages, as a publisher would.
fn packages(root: &Path) -> Result<(), String> {
    let programs = repository::target(root).join(package::windows_program::TARGET).join("debug");
    let publisher = Publisher::new(root)?;
    let broken = broken(root)?;
    for (version, programs) in super::PACKAGED.map(|version| (version, &programs)).into_iter().chain([(BROKEN, &broken)]) {
        package::run(&package::Options::of_windows_tests(root, programs.clone(), version, &publisher.command()))?;
        publisher.verify(&package::for_windows_tests(root, version).join(format!("towpath-agent-{version}-x64.msi")))?;
    }
    Ok(())
}

/// Whoever signs programs and packages, with a certificate of its own.
struct Publisher {
    folder: PathBuf,
}

impl Publisher {
    fn new(root: &Path) -> Result<Self, String> {
        let folder = repository::target(root).join("publisher-of-windows-tests");
        let failed = |e: std::io::Error| format!("making {}: {e}", folder.display());
        fs::create_dir_all(&folder).map_err(failed)?;
        let script = "#!/bin/sh\nset -e\nhere=$(dirname \"$0\")\n\
                      osslsigncode sign -certs \"$here/publisher.pem\" -key \"$here/publisher.key\" -h sha256 -in \"$1\" -out \"$1.signed\"\n\
                      mv \"$1.signed\" \"$1\"\n";
        fs::write(folder.join("sign-for-windows"), script).map_err(failed)?;
        let mut made = Command::new("openssl");
        made.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Publisher"]);
        made.args(["-addext", "extendedKeyUsage=codeSigning", "-keyout", "publisher.key", "-out", "publisher.pem"]);
        package::done(made.current_dir(&folder))?;
        Ok(Self { folder })
    }

    /// What packaging is told to sign by.
    fn command(&self) -> String {
        format!("sh '{}'", self.folder.join("sign-for-windows").display())
    }

    /// Whether a package has the publisher's signature.
    fn verify(&self, package: &Path) -> Result<(), String> {
        package::done(
            Command::new("osslsigncode")
                .arg("verify")
                .arg("-CAfile")
                .arg(self.folder.join("publisher.pem"))
                .arg("-in")
                .arg(package),
        )
    }
}

/// Where a program lies that takes the agent's place and does nothing at all: its set-up succeeds, and its service never works.
fn broken(root: &Path) -> Result<PathBuf, String> {
    let folder = repository::target(root).join("broken-of-windows-tests");
    fs::create_dir_all(&folder).map_err(|e| format!("making {}: {e}", folder.display()))?;
    let source = folder.join("broken.c");
    fs::write(&source, "int main(void) { return 0; }\n").map_err(|e| format!("writing {}: {e}", source.display()))?;
    let program = folder.join("towpath-agent.exe");
    package::done(Command::new("x86_64-w64-mingw32-gcc").arg("-o").arg(program).arg(&source))?;
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
