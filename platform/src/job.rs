//! A program together with everything that it starts, as a job object of Windows.

use std::io;

/// A process and whatever it starts after it was put here, but for what it starts to be outside of it on purpose
/// (`CREATE_BREAKAWAY_FROM_JOB`). All of them end with this, also where this process is ended.
#[derive(Debug)]
pub struct Job {
    #[cfg(windows)]
    handle: std::os::windows::io::OwnedHandle,
}

impl Job {
    /// Takes a process that runs. What it has started before is not in it, so that it is taken as soon as it was started.
    ///
    /// # Errors
    /// As Windows reports, also where the process has ended already; `Unsupported` elsewhere.
    pub fn of(process_id: u32) -> io::Result<Self> {
        #[cfg(windows)]
        return windows::of(process_id).map(|handle| Self { handle });
        #[cfg(not(windows))]
        {
            let _ = process_id;
            super::unsupported()
        }
    }

    /// Ends all of them.
    ///
    /// # Errors
    /// As Windows reports; `Unsupported` elsewhere.
    pub fn end(self) -> io::Result<()> {
        #[cfg(windows)]
        return windows::end(&self.handle);
        #[cfg(not(windows))]
        super::unsupported()
    }

    /// Lets those that still run go on by themselves.
    ///
    /// # Errors
    /// As Windows reports; then they end. `Unsupported` elsewhere.
    pub fn release(self) -> io::Result<()> {
        #[cfg(windows)]
        return windows::end_with(&self.handle, false);
        #[cfg(not(windows))]
        super::unsupported()
    }
}

#[cfg(windows)]
#[expect(unsafe_code, reason = "job objects have only this interface")]
mod windows {
    use std::{
        io,
        os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle},
        ptr,
    };

    use windows_sys::{
        Win32::{
            Foundation::HANDLE,
            System::{
                JobObjects::{
                    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_BREAKAWAY_OK,
                    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation,
                    SetInformationJobObject, TerminateJobObject,
                },
                Threading::{OpenProcess, PROCESS_SET_QUOTA, PROCESS_TERMINATE},
            },
        },
        core::BOOL,
    };

    /// The status of what was ended, as `taskkill` gives it.
    const ENDED: u32 = 1;

    pub(super) fn of(process_id: u32) -> io::Result<OwnedHandle> {
        // SAFETY: without attributes and without a name both may be null.
        let job = owned(unsafe { CreateJobObjectW(ptr::null(), ptr::null()) })?;
        end_with(&job, true)?;
        // SAFETY: the call takes numbers alone.
        let process = owned(unsafe { OpenProcess(PROCESS_SET_QUOTA | PROCESS_TERMINATE, 0, process_id) })?;
        // SAFETY: both handles are open.
        succeeded(unsafe { AssignProcessToJobObject(job.as_raw_handle(), process.as_raw_handle()) })?;
        Ok(job)
    }

    /// Whether the processes end when nobody holds the job any more.
    pub(super) fn end_with(job: &OwnedHandle, end: bool) -> io::Result<()> {
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        limits.BasicLimitInformation.LimitFlags =
            JOB_OBJECT_LIMIT_BREAKAWAY_OK | if end { JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE } else { 0 };
        let (job, size) = (job.as_raw_handle(), size_of_val(&limits) as u32);
        // SAFETY: the handle is open, and the structure is the one of this class, as long as is said.
        succeeded(unsafe { SetInformationJobObject(job, JobObjectExtendedLimitInformation, (&raw const limits).cast(), size) })
    }

    pub(super) fn end(job: &OwnedHandle) -> io::Result<()> {
        // SAFETY: the handle is open.
        succeeded(unsafe { TerminateJobObject(job.as_raw_handle(), ENDED) })
    }

    fn owned(handle: HANDLE) -> io::Result<OwnedHandle> {
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle was just made and nobody else has it.
        Ok(unsafe { OwnedHandle::from_raw_handle(handle) })
    }

    fn succeeded(done: BOOL) -> io::Result<()> {
        if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(windows)]
#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _},
        os::windows::process::CommandExt as _,
        process::{Child, ChildStdout, Command, Stdio},
    };

    use super::*;

    /// A program that has started another one, which has spoken, holds the same output and lasts for minutes.
    fn started() -> (Child, BufReader<ChildStdout>, Job) {
        let mut command = Command::new("cmd");
        // It waits for a line, so that nothing is started before it is in the job.
        command.raw_arg("/c set /p line= & cmd /c \"echo begun & ping -n 300 127.0.0.1\"");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let job = Job::of(child.id()).unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"\r\n").unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("begun") {
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "{line}");
        }
        (child, out, job)
    }

    #[test]
    fn a_program_ends_with_what_it_has_started() {
        for by_drop in [false, true] {
            let (mut child, mut out, job) = started();
            if by_drop {
                drop(job);
            } else {
                job.end().unwrap();
            }
            // Read to its end, which comes when nobody holds it any more.
            out.read_to_end(&mut Vec::new()).unwrap();
            let status = child.wait().unwrap();
            // Windows gives no status to what ends because nobody holds its job.
            assert!(by_drop || !status.success());
        }
    }

    #[test]
    fn what_is_released_goes_on() {
        let (mut child, _out, job) = started();
        let outer = Job::of(child.id()).unwrap();
        job.release().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        outer.end().unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(Job::of(child.id()).is_err(), "it has ended");
    }
}
