//! Transfers that are made by the agent's own stages and sent by nobody, so that somebody else can send them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_agent::{
    config::LoadedConfig,
    host::{Base, Host},
    parts::{NoWatcher, Parts},
    uplink::{extract::ExtractStep, pack::PackStep, plan},
};
use towpath_journal::{
    DriverSettings, NoFailPoints, StageDriver, Step, WakeUp,
    system::{SystemClock, SystemEntropy},
};
use towpath_transfer::{TransferId, TransferState};
use towpath_transport::store::{Connect, RemoteStore, StoreError, StoreErrorKind, StoreResult};

use crate::{PATIENCE, program::Program, world::block_on};

/// How soon the journal is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// No way to the relay.
#[derive(Debug)]
struct Nowhere;

#[async_trait]
impl Connect for Nowhere {
    async fn connect(&self) -> StoreResult<Arc<dyn RemoteStore>> {
        Err(StoreError::new(StoreErrorKind::Unreachable, "this agent is not to send"))
    }
}

/// Plans, extracts, packs and signs a transfer of each job, and sends nothing. The agent, which is enrolled, must not run meanwhile.
/// Each transfer's folder is then in its state folder, as it would travel.
///
/// # Panics
/// Where that fails.
#[must_use]
pub fn pack(agent: &Program, jobs: &[&str]) -> Vec<TransferId> {
    block_on(async {
        let base = Base {
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SystemEntropy::new()),
            fail_points: Arc::new(NoFailPoints),
        };
        let host = Host::new(LoadedConfig::read(&agent.config).unwrap(), &agent.state, base).unwrap();
        let open = host.open(Arc::new(NoWatcher)).await.unwrap();
        let parts = Arc::new(Parts { stores: Arc::new(Nowhere), ..Parts::clone(&open.parts) });
        let mut ids = Vec::new();
        for job in jobs {
            ids.push(plan(&parts, &job.parse().unwrap(), true).await.unwrap().record().key.id);
        }
        let (wake, shutdown) = (WakeUp::new(), CancellationToken::new());
        let driver = |step: Arc<dyn Step>| {
            let (clock, entropy) = (Arc::clone(&parts.clock), Arc::clone(&parts.entropy));
            let settings = DriverSettings::default();
            StageDriver::new(Arc::clone(&parts.journal), step, clock, entropy, wake.clone(), settings).run(shutdown.clone())
        };
        let packed = async {
            for id in &ids {
                let key = parts.key(*id);
                loop {
                    let record = parts.journal.get(&key).await.unwrap().unwrap();
                    assert!(record.last_failure.is_none(), "{:?}", record.last_failure);
                    if matches!(record.state, TransferState::Packed { .. }) {
                        break;
                    }
                    // The journal tells nobody that something was written; the drivers ask it as well.
                    parts.clock.sleep(LOOK_AGAIN).await;
                }
            }
            shutdown.cancel();
        };
        let work = async {
            tokio::join!(
                driver(Arc::new(ExtractStep { parts: Arc::clone(&parts) })),
                driver(Arc::new(PackStep { parts: Arc::clone(&parts) })),
                packed
            )
        };
        tokio::time::timeout(PATIENCE, work).await.expect("packing takes too long");
        open.journal.close().await;
        ids
    })
}
