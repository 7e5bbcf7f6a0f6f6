//! Runs a program after a delivery: once, or once for each file, its output kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use towpath_host::process::{self, Call, Output};
use towpath_transfer::{Clock, Code, FileName, TransferId, failure::Result, manifest::MAX_RETURN_FILES};
use towpath_transport::files::FileStore;

use super::{ActionFile, ActionOf};
use crate::{blocking::blocking, config::RunConfig, small_file, uplink::folder};

/// The most bytes of output that are kept of all runs for one transfer together: the last ones.
pub const MAX_OUTPUT_BYTES: usize = 256 * 1024;
/// The largest note of finished runs, in bytes.
const MAX_NOTE_BYTES: usize = MAX_RETURN_FILES * 512;

/// What programs have succeeded with and could not be written down: it counts as long as this process lives.
#[derive(Debug, Default)]
pub struct Succeeded(Mutex<HashMap<TransferId, Vec<FileName>>>);

impl Succeeded {
    fn all(&self) -> MutexGuard<'_, HashMap<TransferId, Vec<FileName>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the program: for each file where its arguments name `{file}`, else once. What it has succeeded with is not given to it again,
/// whatever fails after that: another file, or the disk.
///
/// # Errors
/// `action-failed` (retry) where it cannot be started, ends with another status than 0, or takes longer than its time limit; as the disk
/// reports, where it cannot be written down that the program has succeeded.
pub async fn run(
    files: &Arc<dyn FileStore>,
    clock: &dyn Clock,
    succeeded: &Succeeded,
    config: &RunConfig,
    of: &ActionOf,
) -> Result<()> {
    let mut note = Note::read(&**files, succeeded, of)?;
    let due = note.due(config.is_per_file());
    if due.is_empty() && note.is_written() {
        return Ok(());
    }
    // A disk that does not take the note now would not take it afterwards.
    note.write(&**files)?;
    let output = Output::new(MAX_OUTPUT_BYTES);
    for file in due {
        let done = process::run(clock, &call(config, of, file), &output).await;
        keep(files, of, &output).await;
        done?;
        note.finished(file);
        note.write(&**files)?;
    }
    Ok(())
}

/// Which files a program is done with.
struct Note<'a> {
    of: &'a ActionOf,
    succeeded: &'a Succeeded,
    finished: Vec<FileName>,
}

impl<'a> Note<'a> {
    fn read(files: &dyn FileStore, succeeded: &'a Succeeded, of: &'a ActionOf) -> Result<Self> {
        let mut finished: Vec<FileName> = folder::noted_for_good(files, &of.done, MAX_NOTE_BYTES)?.unwrap_or_default();
        finished.extend(succeeded.all().get(&of.transfer).cloned().unwrap_or_default());
        Ok(Self { of, succeeded, finished })
    }

    /// Whether all of it stands in the file.
    fn is_written(&self) -> bool {
        !self.succeeded.all().contains_key(&self.of.transfer)
    }

    /// What the program is still to be run with: one file each, or once for all of them.
    fn due(&self, is_per_file: bool) -> Vec<Option<&'a ActionFile>> {
        let left: Vec<&ActionFile> = self.of.files.iter().filter(|file| !self.finished.contains(&file.name)).collect();
        if is_per_file {
            return left.into_iter().map(Some).collect();
        }
        match self.of.files.as_slice() {
            _ if left.is_empty() => Vec::new(),
            [only] => vec![Some(only)],
            _ => vec![None],
        }
    }

    fn finished(&mut self, file: Option<&ActionFile>) {
        match file {
            Some(file) => self.finished.push(file.name.clone()),
            None => self.finished = self.of.files.iter().map(|file| file.name.clone()).collect(),
        }
        self.succeeded.all().insert(self.of.transfer, self.finished.clone());
    }

    fn write(&self, files: &dyn FileStore) -> Result<()> {
        folder::note(files, &self.of.done, &self.finished)?;
        self.succeeded.all().remove(&self.of.transfer);
        Ok(())
    }
}

/// Keeps what the program has printed. Where that fails nothing but the output is lost.
async fn keep(files: &Arc<dyn FileStore>, of: &ActionOf, output: &Output) {
    let (store, path, text) = (Arc::clone(files), of.log.clone(), output.text());
    if let Err(failure) = blocking(move || small_file::write(&*store, &path, text.as_bytes())).await {
        let error = failure.report();
        tracing::warn!(transfer = %of.transfer, code = %failure.code(), error, "what a program has printed was not kept");
    }
}

fn call(config: &RunConfig, of: &ActionOf, file: Option<&ActionFile>) -> Call {
    Call {
        program: config.program.clone(),
        arguments: config.arguments_for(of, file),
        folder: Some(of.folder.clone()),
        environment: vec![
            ("TOWPATH_TRANSFER", Some(of.transfer.to_string().into())),
            ("TOWPATH_KIND", Some(of.kind.as_str().into())),
            ("TOWPATH_FOLDER", Some(of.folder.clone().into())),
            ("TOWPATH_FILE", file.map(|file| file.delivered.clone().into())),
        ],
        input: Vec::new(),
        timeout: config.timeout,
        code: Code::ActionFailed,
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
