//! A Windows of the test's own: a Wine prefix without a display.

use std::{
    fs,
    io::{Read as _, Seek as _, Write as _},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use crate::program::Outcome;

/// Without Debian's wrapper, which asks for 32 bits.
const WINE: &str = "/usr/lib/wine/wine64";
const SERVER: &str = "/usr/lib/wine/wineserver";
const COMPILER: &str = "x86_64-w64-mingw32-gcc";
/// Wine keeps an access control list as the file's mode, and what a folder grants to everybody comes back into every list below it:
/// so nothing is granted to everybody to begin with.
const CLOSED: &str = "umask 077 && exec \"$0\" \"$@\"";
/// How often a Windows is made: on a busy machine Wine now and then does not find its own libraries in a prefix that it has just made
/// (c0000135), and finds them in none that is made by that start.
const FIRST_STARTS: usize = 3;
/// A program that does nothing for longer than any test lasts: services end with the last program that is not one.
const AWAKE: [&str; 5] = ["cmd", "/c", "ping", "-n", "1800"];

/// The prefix, and what keeps its services alive.
#[derive(Debug)]
pub struct Wine {
    prefix: tempfile::TempDir,
    awake: Option<Child>,
    variables: Vec<(String, String)>,
}

impl Wine {
    /// Makes an empty Windows 10 and starts it, with these variables in the environment of every program and service.
    ///
    /// # Panics
    /// Without Wine or the compiler; `cargo xtask test --windows` installs them.
    #[must_use]
    pub fn new(variables: &[(&str, &str)]) -> Self {
        let mut failed = Vec::new();
        let mut wine = loop {
            match Self::first_start(variables) {
                Ok(wine) => break wine,
                Err(outcome) => failed.push(outcome),
            }
            assert!(failed.len() < FIRST_STARTS, "Wine could not make a Windows: {failed:?}");
        };
        let library = wine.path("C:\\windows\\system32\\bcryptprimitives.dll");
        if !library.exists() {
            let mut compiler = Command::new(COMPILER);
            compiler.args(["-shared", "-O2", "-x", "c", "-", "-o"]).arg(&library).arg("-ladvapi32").stdin(Stdio::piped());
            let mut compiler = compiler.spawn().unwrap_or_else(|e| panic!("{COMPILER}: {e}"));
            let mut source = compiler.stdin.take().unwrap();
            source.write_all(include_bytes!("bcryptprimitives.c")).unwrap();
            drop(source);
            assert!(compiler.wait().unwrap().success());
        }
        // The services of the first start know nothing of those that were made during it, and the scheduler never starts.
        wine.cut_power();
        wine.boot();
        wine
    }

    /// A new prefix that says that it is a Windows 10; else what Wine said.
    fn first_start(variables: &[(&str, &str)]) -> Result<Self, Outcome> {
        let prefix = tempfile::Builder::new().prefix("towpath-wine-").tempdir().unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let wine = Self { prefix, awake: None, variables };
        for words in [&["wineboot", "--init"][..], &["winecfg", "-v", "win10"]] {
            let outcome = wine.run(words);
            if !outcome.status.success() {
                return Err(outcome);
            }
        }
        Ok(wine)
    }

    /// Starts Windows, which starts its services, and keeps it running.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn boot(&mut self) {
        let mut awake = self.command(&AWAKE);
        awake.arg("127.0.0.1").stdout(Stdio::null()).stderr(Stdio::null());
        self.awake = Some(awake.spawn().unwrap());
    }

    /// Ends everything at once, wherever it is.
    ///
    /// # Panics
    /// Where the server of this prefix cannot be asked to.
    pub fn cut_power(&mut self) {
        let mut end = Command::new(SERVER);
        self.environment(&mut end);
        // It fails where nothing runs.
        let _ = end.arg("-k").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        if let Some(mut awake) = self.awake.take() {
            let _ = awake.kill();
            let _ = awake.wait();
        }
        let mut wait = Command::new(SERVER);
        self.environment(&mut wait);
        let _ = wait.arg("-w").status().unwrap();
    }

    /// A path of Windows on drive C as it is called here.
    ///
    /// # Panics
    /// For another drive.
    #[must_use]
    pub fn path(&self, windows: &str) -> PathBuf {
        let below = windows.strip_prefix("C:\\").unwrap_or_else(|| panic!("{windows} is not on drive C"));
        self.prefix.path().join("drive_c").join(below.replace('\\', "/"))
    }

    /// Writes a file, and makes the folders above it.
    ///
    /// # Panics
    /// Where it cannot.
    pub fn write(&self, windows: &str, bytes: &[u8]) {
        let path = self.path(windows);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A program of Windows with its arguments, ready to be started.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", CLOSED, WINE]).args(words).stdin(Stdio::null());
        self.environment(&mut command);
        command
    }

    /// Runs it to its end. Its exit status comes modulo 256.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Outcome {
        // Files, and no pipes: what the first program of a prefix starts holds on to what it was given, and outlives it.
        let said = || tempfile::tempfile().unwrap();
        let (mut stdout, mut stderr) = (said(), said());
        let mut command = self.command(words);
        command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
        let status = command.status().unwrap_or_else(|e| panic!("starting {WINE}: {e}"));
        let (stdout, stderr) = (whole(&mut stdout), whole(&mut stderr));
        Output { status, stdout, stderr }.into()
    }

    /// The values of a key of the registry, as `reg query` prints them; nothing where there is none.
    #[must_use]
    pub fn registry(&self, key: &str) -> String {
        self.run(&["reg", "query", key, "/s"]).stdout
    }

    fn environment(&self, command: &mut Command) {
        command.env("WINEPREFIX", self.prefix.path()).env("HOME", self.prefix.path()).env("WINEDEBUG", "-all");
        // Neither of the two large add-ons is asked for, and no display is looked for.
        command.env("WINEDLLOVERRIDES", "mscoree,mshtml=").env_remove("DISPLAY").env("LC_ALL", "C.UTF-8");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }
}

fn whole(file: &mut fs::File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

impl Drop for Wine {
    fn drop(&mut self) {
        // Every program of this prefix ends with its server; which of them are left does not matter any more.
        self.cut_power();
    }
}
