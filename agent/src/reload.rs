//! Reads the configuration again while work goes on.
//!
//! What has begun goes on with what it has begun with; whatever begins afterwards takes the new settings, and the loops that wait
//! for a time look again at once. Where the new file has a mistake the old configuration stays in force.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use towpath_journal::WakeUp;
use towpath_transfer::{Code, Failure, failure::Result};

use crate::{
    blocking::blocking,
    config::{Config, DeliveryConfig, LoadedConfig, SharedConfig},
};

/// Puts the file's configuration in force. Clones share it.
#[derive(Debug, Clone)]
pub struct Reloader {
    file: PathBuf,
    config: SharedConfig,
    /// What the parts were built with that cannot be rebuilt.
    started: Arc<Config>,
    wake: WakeUp,
    /// Two that reload at once would compare with the same one.
    one: Arc<Mutex<()>>,
}

/// What a reload has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file.
    pub file: PathBuf,
    /// The sections whose changes are in force now.
    pub changed: Vec<String>,
    /// The sections whose changes count from the next start on.
    pub needs_restart: Vec<String>,
}

impl Reloader {
    /// For the configuration that a program has begun with, read from `file`.
    #[must_use]
    pub fn new(file: PathBuf, config: SharedConfig, wake: WakeUp) -> Self {
        let started = config.now();
        Self { file, config, started, wake, one: Arc::default() }
    }

    /// Reads the file and puts it in force; logs what came of it.
    ///
    /// # Errors
    /// `config-missing`, and `config-invalid` with line and column: the old configuration stays in force.
    pub async fn reload(&self) -> Result<Reloaded> {
        let this = self.clone();
        let done = blocking(move || this.reload_now()).await;
        match &done {
            Ok(reloaded) => {
                if let Some(log) = towpath_host::logs::handle() {
                    log.apply(&self.config.now().log);
                }
                let (changed, needs_restart) = (reloaded.changed.join(", "), reloaded.needs_restart.join(", "));
                tracing::info!(file = %self.file.display(), changed, needs_restart, "the configuration was read again");
            }
            Err(failure) => {
                tracing::error!(code = %failure.code(), "the configuration in force stays: {}", failure.report());
            }
        }
        done
    }

    fn reload_now(&self) -> Result<Reloaded> {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = LoadedConfig::read(&self.file)?.config;
        let old = self.config.now();
        let fixed =
            [("[state]", new.state.folder != self.started.state.folder), ("[network]", new.network != self.started.network)];
        let needs_restart = fixed.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect();
        new.state.folder.clone_from(&self.started.state.folder);
        new.network.clone_from(&self.started.network);
        let changed = changes(&old, &new)?;
        if *old != new {
            self.config.replace(new);
            self.wake.hint();
        }
        Ok(Reloaded { file: self.file.clone(), changed, needs_restart })
    }
}

/// The sections in which two configurations differ, in the words of the file.
fn changes(old: &Config, new: &Config) -> Result<Vec<String>> {
    let shown = |config: &Config| {
        let failed = |error| Failure::park(Code::Internal, "comparing configurations failed").caused_by(error);
        serde_json::to_value(config).map_err(failed)
    };
    let (shown_old, shown_new) = (shown(old)?, shown(new)?);
    let keys = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut names = keys(&shown_old);
    names.extend(keys(&shown_new).into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
    let is_list = |name: &str| ["job", "delivery"].contains(&name);
    let differs = |name: &String| !is_list(name) && shown_old.get(name) != shown_new.get(name);
    let is_section = |name: &str| [&shown_old, &shown_new].into_iter().any(|all| all.get(name).is_some_and(Value::is_object));
    let told = |name: String| if is_section(&name) { format!("[{name}]") } else { format!("`{name}`") };
    let mut found: Vec<String> = names.into_iter().filter(differs).map(told).collect();
    let jobs = |config: &Config| -> Vec<_> { config.jobs.iter().map(|job| (format!("job {}", job.name), job.clone())).collect() };
    found.extend(entries(&jobs(old), &jobs(new)));
    let deliveries = |config: &Config| -> Vec<_> { config.deliveries.iter().map(|one| (name_of(one), one.clone())).collect() };
    found.extend(entries(&deliveries(old), &deliveries(new)));
    if found.is_empty() && old != new {
        // Passwords are not shown, and so do not differ in what is.
        found.push("a password".to_owned());
    }
    Ok(found)
}

fn name_of(delivery: &DeliveryConfig) -> String {
    match &delivery.job {
        Some(job) => format!("delivery {} for job {job}", delivery.kind),
        None => format!("delivery {}", delivery.kind),
    }
}

fn entries<T: PartialEq>(old: &[(String, T)], new: &[(String, T)]) -> Vec<String> {
    fn find<'a, T>(all: &'a [(String, T)], name: &str) -> Option<&'a T> {
        all.iter().find(|(other, _)| other == name).map(|(_, one)| one)
    }
    let mut found = Vec::new();
    for (name, one) in new {
        match find(old, name) {
            None => found.push(format!("{name} (new)")),
            Some(other) if other != one => found.push(name.clone()),
            Some(_) => {}
        }
    }
    found.extend(old.iter().filter(|(name, _)| find(new, name).is_none()).map(|(name, _)| format!("{name} (removed)")));
    found
}

#[cfg(test)]
mod tests;
