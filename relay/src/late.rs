//! Runs that should be here and are not: the host of an agent may be silent, so that nobody but the relay can tell.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use towpath_alert::{Desk, Finding, Trouble};
use towpath_transfer::{Clock, Code, failure::Result};

use crate::{
    admin::Metrics,
    registry::{Expected, Registry},
};

/// How often it is looked for.
pub const LOOK: Duration = Duration::from_secs(10);
/// The most alerts that are open at once; further ones wait.
pub const MAX_OPEN_ALERTS: usize = 10_000;

/// Watches what is expected of the agents.
#[derive(Debug, Clone)]
pub struct LateWatch {
    /// What is expected.
    pub registry: Registry,
    /// Where what is late is told.
    pub desk: Desk,
    /// The figures for the operator.
    pub metrics: Metrics,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl LateWatch {
    /// Looks for ever.
    pub async fn run(self) {
        loop {
            if let Err(failure) = self.look().await {
                tracing::warn!(code = %failure.code(), error = %failure.report(), "what is late could not be looked for");
            }
            self.clock.sleep(LOOK).await;
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub async fn look(&self) -> Result<()> {
        let now = self.clock.now();
        let (mut tenants, mut found) = (BTreeMap::new(), BTreeMap::new());
        for expected in self.registry.expected().await? {
            let key = format!("{}/{}/{}", expected.tenant, expected.agent, expected.job);
            let finding = if expected.is_late(now) {
                *tenants.entry(expected.tenant.clone()).or_insert(0u64) += 1;
                Finding::Wrong(Box::new(trouble(&expected)))
            } else {
                Finding::Well
            };
            found.insert(key, finding);
        }
        self.metrics.runs_late(&tenants);
        self.desk.look(found).await;
        Ok(())
    }
}

fn trouble(expected: &Expected) -> Trouble {
    let Expected { tenant, agent, job, by, heard } = expected;
    let since = by.unwrap_or(*heard);
    Trouble {
        agent: agent.clone(),
        tenant: tenant.clone(),
        job: Some(job.clone()),
        code: Code::RunLate,
        summary: format!(
            "job {job} of agent {agent} of tenant {tenant} was to be here by {since}; the agent was last heard of at {heard}"
        ),
        since,
        transfer: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use towpath_alert::{Alert, DeskParts, Kind, Means, Told, Way};
    use towpath_transfer::{
        api::{Expectation, Expectations},
        clock::{ManualClock, SeededEntropy},
    };
    use towpath_transport::files::{FileStore as _, MemoryFiles};

    use super::*;
    use crate::registry::tests::enrolled_agents;

    /// What was told, whom it was about, in order.
    #[derive(Debug, Clone, Default)]
    struct Heard(Arc<Mutex<Vec<(Kind, String)>>>);

    #[async_trait::async_trait]
    impl Means for Heard {
        async fn tell(&self, way: Way, _: &str, alert: &Alert) -> Result<Told> {
            if way == Way::Program {
                self.0.lock().unwrap().push((alert.alert, alert.tenant.to_string()));
            }
            Ok(Told::Told)
        }
    }

    #[tokio::test]
    async fn a_silent_agent_is_late_once_and_recovers_once_also_over_a_restart() {
        let clock = ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap());
        let entropy = Arc::new(SeededEntropy::new(3));
        let registry = Registry::in_memory(Arc::new(clock.clone()), entropy.clone()).await.unwrap();
        let [acme, other] = enrolled_agents(&registry, &*entropy).await;
        let files = MemoryFiles::new();
        files.create_dir_all("/state".as_ref()).unwrap();
        let (heard, metrics) = (Heard::default(), Metrics::new().unwrap());
        let watch = || LateWatch {
            registry: registry.clone(),
            desk: Desk::open(DeskParts {
                files: Arc::new(files.clone()),
                path: "/state/alerts.json".into(),
                means: Arc::new(heard.clone()),
                clock: Arc::new(clock.clone()),
                entropy: entropy.clone(),
                most: MAX_OPEN_ALERTS,
            }),
            metrics: metrics.clone(),
            clock: Arc::new(clock.clone()),
        };
        let told = async |watch: &LateWatch| {
            watch.look().await.unwrap();
            let settled = async {
                while watch.desk.open_alerts().iter().any(|alert| !alert.told) || watch.desk.owes() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                () = settled => {}
                () = watch.desk.run(tokio_util::sync::CancellationToken::new()) => {}
            }
            std::mem::take(&mut *heard.0.lock().unwrap())
        };
        let by = clock.now().checked_add(Duration::from_secs(60)).unwrap();
        let promise = |by| Expectations { jobs: vec![Expectation { job: "main".parse().unwrap(), expected_by: by }] };
        registry.expect(&acme, &promise(Some(by))).await.unwrap();
        registry.expect(&other, &promise(None)).await.unwrap();
        let first = watch();
        assert!(told(&first).await.is_empty());
        clock.advance(Duration::from_secs(61));
        assert_eq!(told(&first).await, [(Kind::Raised, "acme".to_owned())]);
        assert!(
            metrics.text(&[], &crate::spool::SpoolFigures::default()).unwrap().contains("towpath_runs_late{tenant=\"acme\"} 1")
        );
        let second = watch();
        assert!(told(&second).await.is_empty());
        registry.expect(&acme, &promise(Some(clock.now().checked_add(Duration::from_secs(60)).unwrap()))).await.unwrap();
        assert_eq!(told(&second).await, [(Kind::Recovered, "acme".to_owned())]);
        assert!(!metrics.text(&[], &crate::spool::SpoolFigures::default()).unwrap().contains("towpath_runs_late{"));
    }
}
