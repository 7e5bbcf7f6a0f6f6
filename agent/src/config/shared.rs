//! The configuration that is in force, which a reload replaces while work goes on.

use std::sync::Arc;

use tokio::sync::watch;

use super::Config;

/// The configuration that is in force. Clones share it. Whoever works on something takes it once, at the beginning, and works with
/// that to the end: a reload in between counts for what begins after it.
#[derive(Debug, Clone)]
pub struct SharedConfig(Arc<watch::Sender<Arc<Config>>>);

impl SharedConfig {
    /// This configuration, until another is put in its place.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(config))))
    }

    /// What is in force now.
    #[must_use]
    pub fn now(&self) -> Arc<Config> {
        Arc::clone(&self.0.borrow())
    }

    /// Puts another configuration in force, and returns the one before.
    pub fn replace(&self, config: Config) -> Arc<Config> {
        self.0.send_replace(Arc::new(config))
    }

    /// Sees when another configuration is put in force from now on; several may show as one.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.0.subscribe())
    }
}

/// Sees when another configuration is put in force.
#[derive(Debug)]
pub struct Changes(watch::Receiver<Arc<Config>>);

impl Changes {
    /// Waits for the next change; for ever where nobody is left who could make one.
    pub async fn next(&mut self) -> Arc<Config> {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.0.borrow_and_update())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(workers: u32) -> Config {
        Config::parse(&format!("[extract]\nworkers = {workers}\n"), Path::new("agent.toml")).unwrap()
    }

    #[test]
    fn what_was_taken_before_stays_what_it_was() {
        let shared = SharedConfig::new(config(1));
        let (clone, taken) = (shared.clone(), shared.now());
        assert_eq!(shared.replace(config(3)).extract.workers, 1);
        assert_eq!((taken.extract.workers, clone.now().extract.workers), (1, 3));
    }

    #[tokio::test]
    async fn a_change_is_seen_by_whoever_waits() {
        let shared = SharedConfig::new(config(1));
        let mut changes = shared.changes();
        let seen = tokio::spawn(async move { changes.next().await.extract.workers });
        shared.replace(config(3));
        assert_eq!(seen.await.unwrap(), 3);
    }
}
