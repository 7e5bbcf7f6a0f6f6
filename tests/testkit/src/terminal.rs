//! A command in front of a person: on a terminal of its own, whose other end is the test.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    process::{Child, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::{eventually, program::Program};

/// A running command and what it has shown.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    /// Reads what is shown until the command is over.
    reader: Option<JoinHandle<()>>,
    /// How far the screen was read.
    read: usize,
}

impl Terminal {
    /// Starts a command on a terminal.
    ///
    /// # Panics
    /// Where there is no terminal to be had, or the command cannot be started.
    #[must_use]
    pub fn start(program: &Program, arguments: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).expect("a terminal of our own");
        unlockpt(&ours).expect("a terminal that can be opened");
        let name = ptsname(&ours, Vec::new()).expect("the name of the terminal");
        let path = std::ffi::OsStr::from_bytes(name.as_bytes()).to_owned();
        let theirs = || OpenOptions::new().read(true).write(true).open(&path).expect("the other end of the terminal");
        let mut command = program.command(arguments);
        command.env("TERM", "dumb").stdin(theirs()).stdout(theirs()).stderr(theirs());
        let child = command.spawn().expect("a command on a terminal");
        // The command's ends must be the only ones, so that reading ends with it.
        drop(command);
        let keyboard = File::from(ours);
        let mut display = keyboard.try_clone().expect("a second handle of the terminal");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&screen);
        let reader = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            // The end of a terminal is an error on Linux.
            while let Ok(length @ 1..) = display.read(&mut chunk) {
                shown.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(chunk.get(..length).unwrap_or_default());
            }
        });
        Self { child, keyboard, screen, reader: Some(reader), read: 0 }
    }

    /// Everything that was shown.
    #[must_use]
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until a text is shown after what was waited for before.
    ///
    /// # Panics
    /// Where the command ends without it.
    pub fn expect(&mut self, text: &str) -> &mut Self {
        let found = eventually(&format!("{text:?} is shown"), || {
            let ended = self.reader.as_ref().is_none_or(JoinHandle::is_finished);
            let screen = self.screen();
            if let Some(at) = screen.get(self.read..).and_then(|rest| rest.find(text)) {
                return Some(self.read + at + text.len());
            }
            assert!(!ended, "the command ended without showing {text:?}:\n{screen}");
            None
        });
        self.read = found;
        self
    }

    /// Types a line.
    ///
    /// # Panics
    /// Where the terminal is gone.
    pub fn answer(&mut self, line: &str) -> &mut Self {
        self.keyboard.write_all(format!("{line}\r").as_bytes()).expect("typing");
        self
    }

    /// Waits until the command ends.
    ///
    /// # Panics
    /// Where it does not.
    pub fn ends(&mut self) -> ExitStatus {
        let status = eventually("the command ends", || self.child.try_wait().expect("asking for a child's status"));
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading the terminal");
        }
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A command that is over needs no signal, and is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
