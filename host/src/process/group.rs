//! A program and every process it has started.

use tokio::process::{Child, Command};
#[cfg(windows)]
use towpath_platform::job::Job;
use towpath_transfer::Code;

/// Ends them when it is dropped before the program has ended.
pub(super) struct Group {
    /// The process group, which has the number of the program.
    #[cfg(unix)]
    members: Option<rustix::process::Pid>,
    /// It ends with this process as well, however that ends.
    #[cfg(windows)]
    members: Option<Job>,
}

#[cfg(unix)]
impl Group {
    /// Gives a program a group of its own.
    pub(super) fn prepare(command: &mut Command) {
        command.process_group(0);
    }

    /// The group of a program that was just started.
    pub(super) fn of(child: &mut Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self { members: id.and_then(rustix::process::Pid::from_raw) }
    }

    /// Ends everything in it.
    pub(super) fn end(&mut self) {
        if let Some(group) = self.members.take()
            && let Err(error) = rustix::process::kill_process_group(group, rustix::process::Signal::KILL)
        {
            tracing::warn!(code = %Code::Internal, %error, "the program's processes were not ended");
        }
    }

    /// Lets it go on by itself.
    pub(super) fn release(&mut self) {
        self.members = None;
    }
}

#[cfg(windows)]
impl Group {
    /// A program is put into a job once it runs.
    pub(super) fn prepare(_: &mut Command) {}

    /// The group of a program that was just started; none where it has ended again.
    pub(super) fn of(child: &mut Child) -> Self {
        let Some(job) = child.id().map(Job::of) else { return Self { members: None } };
        if let Err(error) = &job
            && matches!(child.try_wait(), Ok(None))
        {
            tracing::warn!(code = %Code::Internal, %error, "what the program starts may outlive it");
        }
        Self { members: job.ok() }
    }

    /// Ends everything in it.
    pub(super) fn end(&mut self) {
        if let Some(Err(error)) = self.members.take().map(Job::end) {
            tracing::warn!(code = %Code::Internal, %error, "the program's processes were not ended");
        }
    }

    /// Lets it go on by itself.
    pub(super) fn release(&mut self) {
        if let Some(Err(error)) = self.members.take().map(Job::release) {
            tracing::warn!(code = %Code::Internal, %error, "what the program has left running was ended");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
#[cfg(windows)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use towpath_transfer::clock::ManualClock;

    use super::super::{Call, Output, run};
    use super::*;

    fn call(command: &str) -> Call {
        Call {
            program: "cmd".into(),
            arguments: vec!["/c".to_owned(), command.to_owned()],
            folder: None,
            environment: Vec::new(),
            input: Vec::new(),
            timeout: Duration::from_secs(600),
            code: Code::AlertFailed,
        }
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_ended_with_what_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let [outer, inner] = ["outer.cmd", "inner.cmd"].map(|name| folder.path().join(name));
        // The program that says it is the one that was started by another.
        std::fs::write(&outer, format!("cmd /c \"{}\"\r\n", inner.display())).unwrap();
        std::fs::write(&inner, "@echo begun\r\n@ping -n 300 127.0.0.1\r\n").unwrap();
        let call = call(&outer.display().to_string());
        let (clock, output) = (Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap())), Output::new(10_000));
        let waits = {
            let (clock, output) = (Arc::clone(&clock), output.clone());
            tokio::spawn(async move { run(&*clock, &call, &output).await })
        };
        while !output.text().lines().any(|line| line.trim() == "begun") {
            tokio::task::yield_now().await;
        }
        // It answers although no time passes in which output is still waited for: nobody holds the pipes any more.
        clock.advance(Duration::from_secs(600));
        let failure = waits.await.unwrap().unwrap_err();
        assert!(failure.report().contains("took longer than 600 s"), "{}", failure.report());
    }
}
