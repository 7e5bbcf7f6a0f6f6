//! Who waits for return files, and the hint that wakes them. A hint carries no data: what there is says the journal.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Code, Failure, failure::Result};

use crate::scope::AgentScope;

/// The most long polls of one agent at once. An agent needs one; what it has lost the connection of counts for a while.
pub const MAX_POLLS_PER_AGENT: usize = 16;

/// The agents that wait. Clones share it. It knows only those that wait now.
#[derive(Debug, Clone, Default)]
pub struct Arrivals {
    waiting: Arc<Mutex<HashMap<AgentScope, watch::Sender<()>>>>,
    closed: CancellationToken,
}

/// One agent that waits, for as long as this lives.
#[derive(Debug)]
pub struct Waiting {
    arrivals: Arrivals,
    scope: AgentScope,
    hints: watch::Receiver<()>,
}

impl Arrivals {
    /// Begins to wait. Every hint from now on counts: what the journal says is asked for afterwards.
    ///
    /// # Errors
    /// [`Code::RateLimited`] beyond [`MAX_POLLS_PER_AGENT`]; [`Code::Cancelled`] after [`Arrivals::close`].
    pub fn wait(&self, scope: &AgentScope) -> Result<Waiting> {
        if self.closed.is_cancelled() {
            return Err(closed());
        }
        let mut waiting = self.lock();
        let hints = match waiting.entry(scope.clone()) {
            Entry::Occupied(known) if known.get().receiver_count() >= MAX_POLLS_PER_AGENT => {
                let message = format!("an agent waits for return files at most {MAX_POLLS_PER_AGENT} times at once");
                return Err(Failure::retry(Code::RateLimited, message));
            }
            Entry::Occupied(known) => known.get().subscribe(),
            Entry::Vacant(free) => {
                let (sender, hints) = watch::channel(());
                free.insert(sender);
                hints
            }
        };
        Ok(Waiting { arrivals: self.clone(), scope: scope.clone(), hints })
    }

    /// How often this agent waits now.
    #[must_use]
    pub fn polls(&self, scope: &AgentScope) -> usize {
        self.lock().get(scope).map_or(0, watch::Sender::receiver_count)
    }

    /// Something may have changed for this agent.
    pub fn hint(&self, scope: &AgentScope) {
        if let Some(waiting) = self.lock().get(scope) {
            waiting.send_replace(());
        }
    }

    /// Something may have changed for every agent, such as whether it is enrolled.
    pub fn hint_all(&self) {
        for waiting in self.lock().values() {
            waiting.send_replace(());
        }
    }

    /// Ends all waiting, now and from now on: the relay stops.
    pub fn close(&self) {
        self.closed.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentScope, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn closed() -> Failure {
    Failure::retry(Code::Cancelled, "the relay is stopping")
}

impl Waiting {
    /// Returns after a hint that came since this began to wait or last returned.
    ///
    /// # Errors
    /// [`Code::Cancelled`] after [`Arrivals::close`].
    pub async fn hinted(&mut self) -> Result<()> {
        tokio::select! {
            biased;
            () = self.arrivals.closed.cancelled() => Err(closed()),
            // The sender lives as long as anybody waits.
            _ = self.hints.changed() => Ok(()),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waiting = self.arrivals.lock();
        // This one is still counted.
        if waiting.get(&self.scope).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiting.remove(&self.scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::TenantScope;

    fn scope(agent: &str) -> AgentScope {
        TenantScope::proven("acme".parse().unwrap()).agent(agent.parse().unwrap())
    }

    #[tokio::test]
    async fn a_hint_reaches_whoever_waits_for_it_and_nobody_else() {
        let arrivals = Arrivals::default();
        let (mut erp, mut again, mut other) = (
            arrivals.wait(&scope("erp")).unwrap(),
            arrivals.wait(&scope("erp")).unwrap(),
            arrivals.wait(&scope("other")).unwrap(),
        );
        arrivals.hint(&scope("erp"));
        arrivals.hint(&scope("nobody"));
        erp.hinted().await.unwrap();
        again.hinted().await.unwrap();
        assert!(futures::poll!(Box::pin(other.hinted())).is_pending());
        assert_eq!((arrivals.polls(&scope("erp")), arrivals.polls(&scope("nobody"))), (2, 0));
        assert!(futures::poll!(Box::pin(erp.hinted())).is_pending(), "one hint counts once");
        arrivals.hint_all();
        other.hinted().await.unwrap();
        drop((erp, again));
        assert_eq!(arrivals.lock().len(), 1, "only who waits is known");
        drop(other);
        assert!(arrivals.lock().is_empty());
    }

    #[tokio::test]
    async fn an_agent_waits_only_so_often_at_once_and_not_after_the_end() {
        let arrivals = Arrivals::default();
        let mut waiting: Vec<Waiting> = (0..MAX_POLLS_PER_AGENT).map(|_| arrivals.wait(&scope("erp")).unwrap()).collect();
        assert_eq!(arrivals.wait(&scope("erp")).unwrap_err().code(), Code::RateLimited);
        assert!(arrivals.wait(&scope("other")).is_ok(), "that is the other agent's affair");
        waiting.pop();
        let mut last = arrivals.wait(&scope("erp")).unwrap();
        arrivals.close();
        assert_eq!(last.hinted().await.unwrap_err().code(), Code::Cancelled);
        assert_eq!(arrivals.wait(&scope("new")).unwrap_err().code(), Code::Cancelled);
    }
}
