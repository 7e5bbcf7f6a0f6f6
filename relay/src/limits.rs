//! A running relay follows what the operator says that tenants may have.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;
use towpath_host::Bytes;
use towpath_journal::{Filter, Journal, MAX_LIST, WakeUp};
use towpath_transfer::{Failure, Stage, TenantName, failure::Result};

use crate::{
    registry::Registry,
    spool::{Followed, Spool},
};

/// Takes over what the registry says of tenants. Clones do the same work.
#[derive(Debug, Clone)]
pub struct Follower {
    registry: Registry,
    journal: Arc<dyn Journal>,
    spool: Arc<Spool>,
    wake: WakeUp,
    /// Tenants whose ended transfers wait for a time that is another one now.
    waiting: Arc<(Mutex<BTreeSet<TenantName>>, Notify)>,
}

impl Follower {
    /// For these parts.
    #[must_use]
    pub fn new(registry: Registry, journal: Arc<dyn Journal>, spool: Arc<Spool>, wake: WakeUp) -> Self {
        Self { registry, journal, spool, wake, waiting: Arc::default() }
    }

    /// Where it stands.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Takes over what is said now.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::FileFailed`]; what was said before holds then.
    pub async fn follow(&self) -> Result<()> {
        let said = self.registry.limits().await?;
        let Followed { retention, too_much } = self.spool.quota().follow(said);
        if let Some(reserves) = too_much {
            let limit = Bytes(self.spool.quota().limits().total_bytes);
            tracing::warn!(
                reserves = %Bytes(reserves), %limit,
                "the reserves of all tenants together are more than spool.limit: not all of them can be kept"
            );
        }
        if !retention.is_empty() {
            let (waiting, notify) = &*self.waiting;
            waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(retention);
            notify.notify_one();
        }
        Ok(())
    }

    /// Makes due what waits for its removal under a retention that was before, for as long as the future lives.
    pub async fn run(&self) {
        let (waiting, notify) = &*self.waiting;
        loop {
            notify.notified().await;
            while let Some(tenant) = { waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_first() } {
                if let Err(failure) = self.make_due(&tenant).await {
                    // They are due within a day all the same.
                    tracing::warn!(%tenant, code = %failure.code(), error = failure.report(), "a changed retention counts later");
                }
            }
        }
    }

    /// Lets every ended transfer of a tenant be looked at now, whenever it was to be.
    ///
    /// # Errors
    /// [`towpath_transfer::Code::JournalFailed`].
    pub async fn make_due(&self, tenant: &TenantName) -> Result<()> {
        let filter = Filter { tenant: Some(tenant.clone()), stage: Some(Stage::Remove), ..Filter::default() };
        let mut before = None;
        loop {
            let page = self.journal.list(&filter, MAX_LIST, before).await.map_err(Failure::from)?;
            for record in &page {
                match self.journal.unpark(&record.key).await {
                    // It was removed and forgotten meanwhile.
                    Ok(_) | Err(towpath_journal::JournalError::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.wake.hint();
            if page.len() < MAX_LIST {
                return Ok(());
            }
            before = page.last().map(|record| record.serial);
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_journal::StepOutcome;
    use towpath_transfer::{TransferEvent, api::Role, state::Outcome};
    use towpath_transport::server::Lack;

    use crate::{
        registry::{Budget, LimitsChange},
        service::tests::{DAY, Enrolled, Sent, World, receipt_of},
    };

    use super::*;

    const BUDGET: Budget = Budget { total: 1 << 20, quota: 1 << 19 };

    async fn ended(world: &World, tenant: &str) -> (Enrolled, Sent) {
        let (agent, receiver) = (world.enrol(tenant, Role::Agent).await, world.enrol(tenant, Role::Receiver).await);
        let sent = Sent::new(world, &agent, 1);
        sent.push(world, &agent).await;
        world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
        world.work(Stage::Accept).await;
        world.work(Stage::Forward).await;
        let imported = receipt_of(world, &receiver, &agent, &sent, &Outcome::Imported);
        world.service().app_receipt(&receiver.caller, &imported).await.unwrap();
        (agent, sent)
    }

    async fn say(world: &World, end: &Enrolled, change: LimitsChange) {
        world.registry.change_limits(end.caller.scope(), &change, &BUDGET).await.unwrap();
        world.relay.limits().follow().await.unwrap();
    }

    #[tokio::test]
    async fn the_files_of_each_tenant_stay_as_long_as_is_said_of_it() {
        let world = World::new().await;
        let (acme, mine) = ended(&world, "acme").await;
        let (other, theirs) = ended(&world, "other").await;
        let lies = |end: &Enrolled, sent: &Sent| {
            let scope = end.caller.as_agent().unwrap();
            !world.relay.spool().list(crate::spool::Room::Uplink, &scope, sent.id, 100).unwrap().is_empty()
        };
        // As the drivers do: each waits for its own time.
        for lease in world.journal.acquire(Stage::Remove, 10, DAY).await.unwrap() {
            let (remove, _) = world.relay.steps().into_iter().find(|(step, _)| step.stage() == Stage::Remove).unwrap();
            let Ok(StepOutcome::Wait(pause)) = remove.step(&lease).await else { panic!("removed at once") };
            let at = lease.record.changed + pause;
            world.journal.release(&lease, towpath_journal::Release::WaitUntil { at }).await.unwrap();
        }
        assert!(world.work(Stage::Remove).await.is_empty(), "none is due");
        let at_once = LimitsChange { retention: Some(Some(std::time::Duration::ZERO)), ..LimitsChange::default() };
        say(&world, &acme, at_once).await;
        let waiting = { world.relay.limits().waiting.0.lock().unwrap().clone() };
        assert_eq!(waiting, BTreeSet::from(["acme".parse().unwrap()]));
        world.relay.limits().make_due(acme.caller.scope().tenant()).await.unwrap();
        assert!(matches!(world.work(Stage::Remove).await[..], [Ok(StepOutcome::Event(TransferEvent::Removed))]));
        assert_eq!((lies(&acme, &mine), lies(&other, &theirs)), (false, true));
        assert_eq!(world.relay.spool().quota().used_by(acme.caller.scope()), 0);

        // Said to be longer than the configuration says.
        say(&world, &other, LimitsChange { retention: Some(Some(DAY * 30)), ..LimitsChange::default() }).await;
        world.relay.limits().make_due(other.caller.scope().tenant()).await.unwrap();
        world.clock.advance(DAY * 29);
        world.work(Stage::Remove).await;
        assert!(lies(&other, &theirs));
        world.clock.advance(DAY);
        world.work(Stage::Remove).await;
        assert!(!lies(&other, &theirs));
    }

    #[tokio::test]
    async fn a_running_relay_follows_what_is_said() {
        let world = World::new().await;
        let acme = world.enrol("acme", Role::Agent).await;
        let quota = world.relay.spool().quota();
        say(&world, &acme, LimitsChange { quota: Some(Some(10)), ..LimitsChange::default() }).await;
        assert_eq!((quota.of(acme.caller.scope()), quota.grow(acme.caller.scope(), 11)), (10, Err(Lack::Quota)));
        say(&world, &acme, LimitsChange { quota: Some(None), ..LimitsChange::default() }).await;
        quota.grow(acme.caller.scope(), 11).unwrap();
    }
}
