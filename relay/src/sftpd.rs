//! Who may log in over SSH, what a login sees, and how a revocation ends it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, Code, Failure, failure::Result, public_key::PublicKeyLine};
use towpath_transport::server::{Authenticator, Session};

use crate::{
    admin::Metrics,
    audit::{Action, Entry, Trail, Who, Witness},
    registry::Registry,
    scope::Caller,
    spool::{AgentView, Spool},
};

/// How often the registry is asked whether something has changed; a revocation must bite within five seconds.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// The sessions that can be ended: one switch per user who has logged in, so at most one per enrolled end.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    switches: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

impl Sessions {
    fn switch(&self, user: &str) -> CancellationToken {
        self.lock().entry(user.to_owned()).or_default().clone()
    }

    fn users(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn end(&self, user: &str) {
        if let Some(switch) = self.lock().remove(user) {
            switch.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the sessions of revoked users, for as long as the future lives. `changed` is called after each change of the
    /// registry, by whatever process.
    pub async fn watch(&self, registry: &Registry, trail: &Trail, clock: &dyn Clock, changed: impl Fn() + Send + Sync) {
        let mut seen = None;
        loop {
            match registry.changes().await {
                Ok(now) if seen == Some(now) => {}
                Ok(now) => match self.end_revoked(registry, trail).await {
                    Ok(()) => {
                        seen = Some(now);
                        changed();
                    }
                    Err(failure) => unread(&failure),
                },
                Err(failure) => unread(&failure),
            }
            clock.sleep(WATCH_PERIOD).await;
        }
    }

    async fn end_revoked(&self, registry: &Registry, trail: &Trail) -> Result<()> {
        for user in self.users() {
            if registry.is_revoked(&user).await? {
                tracing::warn!(user, code = %Code::AgentRevoked, "the sessions of a revoked agent end");
                self.end(&user);
                let entry = Entry::new(trail.now(), Who::relay(), Action::SessionsEnded);
                trail.record(entry.refused_to(&user, Code::AgentRevoked));
            }
        }
        Ok(())
    }
}

fn unread(failure: &Failure) {
    tracing::error!(code = %failure.code(), error = failure.report(), "revocations could not be read; they are asked for again");
}

/// Logins by the registry's keys.
#[derive(Debug, Clone)]
pub struct Logins {
    registry: Registry,
    spool: Arc<Spool>,
    sessions: Sessions,
    metrics: Metrics,
    trail: Trail,
}

impl Logins {
    /// Logins to the views of `spool`.
    #[must_use]
    pub fn new(registry: Registry, spool: Arc<Spool>, sessions: Sessions, metrics: Metrics, trail: Trail) -> Self {
        Self { registry, spool, sessions, metrics, trail }
    }

    async fn known(&self, user: &str, key: &PublicKeyLine, peer: SocketAddr) -> Option<Caller> {
        match self.registry.authenticate_key(user, key).await {
            Ok(caller) => Some(caller.from_address(Some(peer.ip()))),
            Err(failure) => {
                self.metrics.authentication_failed("ssh", failure.code());
                // The user's name is not trusted text; its quoted form is.
                tracing::info!(%peer, ?user, key = %key.fingerprint(), code = %failure.code(), "an SSH key was refused");
                self.note_refused(user, Some(key), peer, failure.code());
                None
            }
        }
    }

    fn note_refused(&self, user: &str, key: Option<&PublicKeyLine>, peer: SocketAddr, code: Code) {
        let who = Who::nobody(key.map(PublicKeyLine::fingerprint), Some(peer.ip()));
        self.trail.note(Entry::new(self.trail.now(), who, Action::Login).refused_to(user, code));
    }
}

#[async_trait]
impl Authenticator for Logins {
    async fn authenticate(&self, user: &str, key: &PublicKeyLine, peer: SocketAddr) -> Option<Session> {
        let caller = self.known(user, key, peer).await?;
        let Ok(scope) = caller.as_agent() else {
            // A receiver has no uplinks of its own.
            self.note_refused(user, Some(key), peer, Code::AuthenticationRefused);
            return None;
        };
        let switch = self.sessions.switch(user);
        // A revocation between the first look and the switch would find nothing to throw; now it does, or shows here.
        self.known(user, key, peer).await?;
        let witness = Witness::of(&self.trail, &caller);
        let view = AgentView::new(Arc::clone(&self.spool), scope).witnessed_by(witness.clone());
        let told = move || witness.note(witness.entry(Action::Login));
        Some(Session::new(Arc::new(view), switch).telling(told))
    }

    fn refused(&self, user: &str, peer: SocketAddr, code: Code) {
        self.note_refused(user, None, peer, code);
    }
}
