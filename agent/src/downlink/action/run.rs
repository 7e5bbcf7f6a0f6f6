//! Runs a program after a delivery: once, or once for each file, its output kept.

use std::{path::Path, sync::Arc};

use towpath_host::process::{self, Call, Output};
use towpath_transfer::{Clock, Code, FileName, failure::Result, manifest::MAX_RETURN_FILES};
use towpath_transport::files::FileStore;

use super::{ActionFile, ActionOf};
use crate::{blocking::blocking, config::RunConfig, small_file, uplink::folder};

/// The most bytes of output that are kept of all runs for one transfer together: the last ones.
pub const MAX_OUTPUT_BYTES: usize = 256 * 1024;
/// The largest note of finished runs, in bytes.
const MAX_NOTE_BYTES: usize = MAX_RETURN_FILES * 512;

/// Runs the program: for each file where its arguments name `{file}`, else once. A file for which it has succeeded is not given to
/// it again because another one fails.
///
/// # Errors
/// `action-failed` (retry) where it cannot be started, ends with another status than 0, or takes longer than its time limit.
pub async fn run(files: &Arc<dyn FileStore>, clock: &dyn Clock, config: &RunConfig, of: &ActionOf) -> Result<()> {
    let log = Log { files, path: &of.log, output: Output::new(MAX_OUTPUT_BYTES) };
    if !config.is_per_file() {
        let only = match of.files.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        let done = process::run(clock, &call(config, of, only), &log.output).await;
        log.write().await?;
        return done;
    }
    let mut finished: Vec<FileName> = folder::noted(&**files, &of.done, MAX_NOTE_BYTES)?.unwrap_or_default();
    for file in &of.files {
        if finished.contains(&file.name) {
            continue;
        }
        let done = process::run(clock, &call(config, of, Some(file)), &log.output).await;
        log.write().await?;
        done?;
        finished.push(file.name.clone());
        folder::note(&**files, &of.done, &finished)?;
    }
    Ok(())
}

/// What the programs have printed, and when.
struct Log<'a> {
    files: &'a Arc<dyn FileStore>,
    path: &'a Path,
    output: Output,
}

impl Log<'_> {
    async fn write(&self) -> Result<()> {
        let (files, path, text) = (Arc::clone(self.files), self.path.to_owned(), self.output.text());
        blocking(move || small_file::write(&*files, &path, text.as_bytes())).await
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
