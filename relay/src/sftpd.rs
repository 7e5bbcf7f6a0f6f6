//! Who may log in over SSH, what a login sees, and how a revocation ends it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{
    Clock, Code, Failure,
    failure::Result,
    public_key::{Fingerprint, PublicKeyLine},
};
use towpath_transport::server::{Authenticator, Session};

use crate::{
    admin::Metrics,
    audit::{Action, Entry, Trail, Who, Witness},
    limits::Follower,
    registry::Registry,
    release::{Offered, Shelf},
    scope::Caller,
    spool::{AgentView, Spool},
};

/// How often the registry is asked whether something has changed; a revocation must bite within five seconds.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// How often it is looked whether a key was retired meanwhile, in [`WATCH_PERIOD`]s: no change of the registry tells of it.
const RETIRED_PERIODS: u32 = 15;

/// Who has logged in: the user, and the key.
type Login = (String, Fingerprint);

/// The sessions that can be ended: one switch for each user and key that has logged in, so at most
/// [`towpath_transfer::api::MAX_ROTATIONS`] and one per enrolled end.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    switches: Arc<Mutex<HashMap<Login, CancellationToken>>>,
}

impl Sessions {
    fn switch(&self, user: &str, key: &PublicKeyLine) -> CancellationToken {
        self.lock().entry((user.to_owned(), key.fingerprint())).or_default().clone()
    }

    fn logins(&self) -> Vec<Login> {
        self.lock().keys().cloned().collect()
    }

    fn end(&self, login: &Login) {
        if let Some(switch) = self.lock().remove(login) {
            switch.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Login, CancellationToken>> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the sessions of revoked users and of retired keys, and follows what is said of tenants, for as long as the future lives.
    /// `changed` is called after each change of the registry, by whatever process.
    pub async fn watch(&self, limits: &Follower, trail: &Trail, clock: &dyn Clock, changed: impl Fn() + Send + Sync) {
        let registry = limits.registry();
        let (mut seen, mut since) = (None, 0_u32);
        loop {
            let looked = match registry.changes().await {
                Ok(now) if seen == Some(now) && since < RETIRED_PERIODS => Ok(()),
                Ok(now) => {
                    let ended = self.end_refused(registry, trail).await;
                    ended.and(limits.follow().await).map(|()| {
                        since = 0;
                        if seen.replace(now) != Some(now) {
                            changed();
                        }
                    })
                }
                Err(failure) => Err(failure),
            };
            if let Err(failure) = looked {
                unread(&failure);
            }
            since = since.saturating_add(1);
            clock.sleep(WATCH_PERIOD).await;
        }
    }

    async fn end_refused(&self, registry: &Registry, trail: &Trail) -> Result<()> {
        for login in self.logins() {
            let (user, key) = &login;
            if let Some(code) = registry.is_out(user, key).await? {
                tracing::warn!(user, %key, %code, "the sessions of a revoked agent or a retired key end");
                self.end(&login);
                let entry = Entry::new(trail.now(), Who::relay(), Action::SessionsEnded);
                trail.record(entry.refused_to(user, code));
            }
        }
        Ok(())
    }
}

fn unread(failure: &Failure) {
    tracing::error!(code = %failure.code(), error = failure.report(), "revocations and limits could not be read; they are asked for again");
}

/// Logins by the registry's keys.
#[derive(Debug, Clone)]
pub struct Logins {
    registry: Registry,
    spool: Arc<Spool>,
    sessions: Sessions,
    metrics: Metrics,
    trail: Trail,
    shelf: Shelf,
}

impl Logins {
    /// Logins to the views of `spool`, and of the releases on `shelf`.
    #[must_use]
    pub fn new(registry: Registry, spool: Arc<Spool>, sessions: Sessions, metrics: Metrics, trail: Trail, shelf: Shelf) -> Self {
        Self { registry, spool, sessions, metrics, trail, shelf }
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
        let switch = self.sessions.switch(user, key);
        // A revocation between the first look and the switch would find nothing to throw; now it does, or shows here.
        self.known(user, key, peer).await?;
        let witness = Witness::of(&self.trail, &caller);
        let offered = Offered::new(self.shelf.clone(), self.registry.clone(), scope.tenant().clone());
        let view = AgentView::new(Arc::clone(&self.spool), scope).witnessed_by(witness.clone()).offering(offered);
        let told = move || witness.note(witness.entry(Action::Login));
        Some(Session::new(Arc::new(view), switch).telling(told))
    }

    fn refused(&self, user: &str, peer: SocketAddr, code: Code) {
        self.note_refused(user, None, peer, code);
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use towpath_keys::{RotatingEnd, sign_rotation};
    use towpath_transfer::api::Role;

    use super::*;
    use crate::{
        registry::AuditFilter,
        service::tests::{URL, World},
    };

    /// How long a session may go on by a key that is out (security.md).
    const WITHIN: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_session_by_a_retired_key_ends_within_a_minute_and_that_is_noted() {
        let world = World::new().await;
        let agent = world.enrol("acme", Role::Agent).await;
        let (user, next) = (agent.caller.user(), world.identity());
        let until = world.clock.now() + SignedDuration::from_mins(5);
        let end = RotatingEnd { relay_url: URL, user: &user };
        let change = sign_rotation(end, &agent.identity, &next, until).unwrap();
        let sessions = world.relay.sessions();
        let by_old = sessions.switch(&user, agent.identity.public_line());
        world.service().rotate_key(&agent.caller, &change).await.unwrap();
        let by_new = sessions.switch(&user, next.public_line());

        let watch = sessions.watch(world.relay.limits(), world.relay.trail(), &world.clock, || ());
        let passes = async {
            // Each second is waited for, so that none is slept over.
            while !by_old.is_cancelled() {
                while world.clock.sleepers() == 0 {
                    tokio::task::yield_now().await;
                }
                world.clock.advance(WATCH_PERIOD);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = watch => {}
            () = passes => {}
        }
        let late = world.clock.now().duration_since(until);
        assert!(!late.is_negative() && late.unsigned_abs() <= WITHIN, "it has ended {late:?} after its key");
        assert!(!by_new.is_cancelled());
        world.relay.trail().flush(false).await.unwrap();
        let rows = world.registry.audit_rows(&AuditFilter::default(), 100).await.unwrap();
        let noted = rows.iter().find(|row| row.action == Action::SessionsEnded.as_str()).unwrap();
        assert_eq!(noted.result, Code::AuthenticationRefused.as_str());
    }
}
