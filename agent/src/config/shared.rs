//! The configuration that is in force, which a reload replaces while work goes on.

use std::sync::{Arc, PoisonError, RwLock};

use super::Config;

/// The configuration that is in force. Clones share it. Whoever works on something takes it once, at the beginning, and works with
/// that to the end: a reload in between counts for what begins after it.
#[derive(Debug, Clone)]
pub struct SharedConfig(Arc<RwLock<Arc<Config>>>);

impl SharedConfig {
    /// This configuration, until another is put in its place.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// What is in force now.
    #[must_use]
    pub fn now(&self) -> Arc<Config> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another configuration in force, and returns the one before.
    pub fn replace(&self, config: Config) -> Arc<Config> {
        std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_was_taken_before_stays_what_it_was() {
        let config = |workers: u32| Config::parse(&format!("[extract]\nworkers = {workers}\n"), Path::new("agent.toml")).unwrap();
        let shared = SharedConfig::new(config(1));
        let (clone, taken) = (shared.clone(), shared.now());
        assert_eq!(shared.replace(config(3)).extract.workers, 1);
        assert_eq!((taken.extract.workers, clone.now().extract.workers), (1, 3));
    }
}
