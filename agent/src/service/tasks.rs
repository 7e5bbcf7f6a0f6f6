//! Tasks of Windows' Task Scheduler, made and removed by its own program `schtasks` (Task Scheduler Schema 1.2).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[cfg(windows)]
use towpath_platform::services;
use towpath_transfer::{Code, Failure, failure::Result};

/// The program that makes, starts and removes tasks.
const PROGRAM: &str = "schtasks.exe";
/// The service that it talks to.
#[cfg(windows)]
const SCHEDULER: &str = "Schedule";

/// A task of the system's account, started with this host and again and again, one at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task<'a> {
    /// What people read of it.
    pub description: &'a str,
    /// The program.
    pub program: &'a Path,
    /// Its arguments.
    pub arguments: &'a [&'a str],
    /// After how many minutes it is started again.
    pub every_minutes: u32,
    /// After how many hours it is ended.
    pub limit_hours: u32,
}

impl Task<'_> {
    /// As the scheduler reads it: UTF-16, which is the only encoding that every version of it takes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mark = 0xFEFF_u16;
        [mark].into_iter().chain(self.text().encode_utf16()).flat_map(u16::to_le_bytes).collect()
    }

    fn text(&self) -> String {
        let arguments: Vec<String> = self.arguments.iter().map(|argument| quoted(argument)).collect();
        let (description, program, arguments) =
            (escaped(self.description), escaped(&self.program.to_string_lossy()), escaped(&arguments.join(" ")));
        let (minutes, hours) = (self.every_minutes, self.limit_hours);
        // S-1-5-18 is the system's account, whose name depends on the language.
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-16\"?>\r\n\
             <Task version=\"1.2\" xmlns=\"http://schemas.microsoft.com/windows/2004/02/mit/task\">\r\n\
             <RegistrationInfo><Description>{description}</Description></RegistrationInfo>\r\n\
             <Triggers>\r\n\
             <BootTrigger><Enabled>true</Enabled></BootTrigger>\r\n\
             <TimeTrigger><Repetition><Interval>PT{minutes}M</Interval></Repetition>\
             <StartBoundary>2026-01-01T00:00:00</StartBoundary><Enabled>true</Enabled></TimeTrigger>\r\n\
             </Triggers>\r\n\
             <Principals><Principal id=\"System\"><UserId>S-1-5-18</UserId><RunLevel>HighestAvailable</RunLevel></Principal>\
             </Principals>\r\n\
             <Settings><MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>\
             <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries><StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>\
             <StartWhenAvailable>true</StartWhenAvailable><Enabled>true</Enabled>\
             <ExecutionTimeLimit>PT{hours}H</ExecutionTimeLimit></Settings>\r\n\
             <Actions Context=\"System\"><Exec><Command>{program}</Command><Arguments>{arguments}</Arguments></Exec></Actions>\r\n\
             </Task>\r\n"
        )
    }
}

/// Makes a task, or changes the one of this name. `file` is where it is written to for the scheduler, which nobody else may write.
///
/// # Errors
/// `service-failed`.
pub fn register(name: &str, task: &Task<'_>, file: &Path) -> Result<()> {
    fs::write(file, task.to_bytes())
        .map_err(|error| Failure::park(Code::ServiceFailed, format!("writing {} failed", file.display())).caused_by(error))?;
    register_file(name, file)
}

/// As [`register`], of a file that is there.
///
/// # Errors
/// `service-failed`.
pub fn register_file(name: &str, file: &Path) -> Result<()> {
    schtasks(&["/Create", "/TN", name, "/XML", &file.to_string_lossy(), "/F"])
}

/// Starts a task.
///
/// # Errors
/// `service-failed`.
pub fn run(name: &str) -> Result<()> {
    schtasks(&["/Run", "/TN", name])
}

/// Removes a task. What it has started goes on.
///
/// # Errors
/// `service-failed`, also where there is none.
pub fn remove(name: &str) -> Result<()> {
    schtasks(&["/Delete", "/TN", name, "/F"])
}

/// Lets the scheduler's own service run: shortly after Windows has started it may not yet, and what starts it then gives up where
/// another service is being started.
fn wake_scheduler() {
    #[cfg(windows)]
    if !services::standing(SCHEDULER).is_ok_and(|standing| standing.is_some_and(|standing| standing.running)) {
        // Whoever may not start it is told so by what follows.
        let _ = services::start(SCHEDULER);
    }
}

fn schtasks(words: &[&str]) -> Result<()> {
    wake_scheduler();
    let failed = |what: String| Failure::park(Code::ServiceFailed, format!("{PROGRAM} {} {what}", words.join(" ")));
    let done = Command::new(system32().join(PROGRAM)).args(words).output();
    let done = done.map_err(|error| failed("cannot be started".to_owned()).caused_by(error))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(failed(format!("ended with {}: {said}", done.status)))
}

/// Where the system's own programs lie, which no search path leads to somebody else's.
#[must_use]
pub fn system32() -> PathBuf {
    let root = std::env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
    PathBuf::from(root).join("System32")
}

/// An argument as programs of Windows take their command line apart. No path has quotation marks in it; a backslash before the last
/// one would be taken for its part.
fn quoted(argument: &str) -> String {
    if !argument.is_empty() && !argument.contains([' ', '\t']) {
        return argument.to_owned();
    }
    let slashes = argument.len() - argument.trim_end_matches('\\').len();
    format!("\"{argument}{}\"", "\\".repeat(slashes))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_in_a_task_as_they_are() {
        let program = Path::new(r"C:\Program Files\A & B\towpath-agent.exe");
        let arguments = ["--config", r"C:\Towpath D\u{e4}ten\", "update"];
        let task = Task { description: "d", program, arguments: &arguments, every_minutes: 15, limit_hours: 1 };
        let text = task.text();
        assert!(text.contains(r"<Command>C:\Program Files\A &amp; B\towpath-agent.exe</Command>"), "{text}");
        assert!(text.contains(r#"<Arguments>--config "C:\Towpath D\u{e4}ten\\" update</Arguments>"#), "{text}");
        assert!(task.to_bytes().starts_with(&[0xFF, 0xFE, b'<', 0]));
    }
}
