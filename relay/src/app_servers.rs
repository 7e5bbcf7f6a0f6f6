//! The tenants' app servers, reached over SSH with the relay's forward key and their pinned host keys.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use towpath_keys::Identity;
use towpath_transfer::{Clock, Code, Failure, RemotePath, failure::Result};
use towpath_transport::{
    client::{SftpLogin, SftpStore},
    dial::{Dialer, Route, Trust},
    store::Far,
};

use crate::{
    registry::Registry,
    scope::TenantScope,
    uplink::forward::{AppServer, AppServers},
};

/// How soon a transfer that is under way notices that its app server is not the tenant's any more.
pub const LOOK: Duration = Duration::from_secs(5);

/// App servers that the registry names.
#[derive(Debug)]
pub struct SftpAppServers {
    registry: Registry,
    forward_key: Identity,
    dialer: Dialer,
    clock: Arc<dyn Clock>,
}

impl SftpAppServers {
    /// App servers that admit `forward_key`.
    ///
    /// # Errors
    /// [`Code::RelayCertificate`], which a dialer without TLS does not cause.
    pub fn new(registry: Registry, forward_key: Identity, clock: Arc<dyn Clock>) -> Result<Self> {
        // App servers are reached by plain SSH only: no certificate is ever trusted here.
        let dialer = Dialer::new(&Trust::Pinned(Vec::new()), Arc::clone(&clock))?;
        Ok(Self { registry, forward_key, dialer, clock })
    }
}

#[async_trait]
impl AppServers for SftpAppServers {
    async fn connect(&self, scope: &TenantScope) -> Result<AppServer> {
        let missing = || Failure::retry(Code::AppServerMissing, format!("tenant {scope} has no app server yet"));
        let landing = self.registry.landing(scope).await?.ok_or_else(missing)?;
        let known = Some(landing.clone());
        let folder = RemotePath::parse(landing.folder.as_bytes())
            .map_err(|e| Failure::park(Code::AppServerRefused, "read the app server's folder").caused_by(e))?;
        let login = SftpLogin {
            user: landing.user,
            public_key: self.forward_key.public_key().to_ssh()?,
            signer: self.forward_key.ssh_signer()?,
            host_keys: landing.host_keys.into(),
        };
        let failed = |e: towpath_transport::store::StoreError| e.into_failure(Far::AppServer);
        let stream = self.dialer.dial(Route::Ssh, &landing.host, landing.port).await.map_err(failed)?;
        let store = SftpStore::connect(stream, login, Arc::clone(&self.clock)).await.map_err(failed)?;
        Ok(AppServer { store: Arc::new(store), folder, landing: known })
    }

    async fn check(&self, scope: &TenantScope, server: &AppServer) -> Result<()> {
        if self.registry.landing(scope).await? == server.landing {
            return Ok(());
        }
        let told = format!(
            "the app server of tenant {scope} is another one by now, or none; what is left does not go to the one before"
        );
        Err(Failure::retry(Code::AppServerMissing, told))
    }

    async fn until_moved(&self, scope: &TenantScope, server: &AppServer) -> Failure {
        loop {
            self.clock.sleep(LOOK).await;
            match self.check(scope, server).await {
                Err(moved) if moved.code() == Code::AppServerMissing => return moved,
                // A registry that cannot be read for a moment says nothing about the app server.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use towpath_keys::KeyKind;
    use towpath_transfer::{
        api::Landing,
        clock::{ManualClock, SeededEntropy},
    };
    use towpath_transport::store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_landing_that_was_changed_or_taken_back_is_noticed_while_it_is_used() {
        let (clock, entropy) = (ManualClock::new("2026-03-01T12:00:00Z".parse().unwrap()), Arc::new(SeededEntropy::new(1)));
        let registry = Registry::in_memory(Arc::new(clock.clone()), entropy.clone()).await.unwrap();
        let scope = registry.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
        let key = Identity::generate(KeyKind::Ed25519, &*entropy).unwrap();
        let landing = |host: &str| Landing {
            host: host.to_owned(),
            port: 2222,
            user: "relay".to_owned(),
            folder: "/".to_owned(),
            host_keys: vec![key.public_line().clone()],
        };
        registry.set_landing(&scope, &landing("app.example")).await.unwrap();
        let servers = SftpAppServers::new(registry.clone(), key.clone(), Arc::new(clock.clone())).unwrap();
        let connected = AppServer {
            store: Arc::new(MemoryStore::new()),
            folder: RemotePath::root(),
            landing: registry.landing(&scope).await.unwrap(),
        };
        servers.check(&scope, &connected).await.unwrap();
        let changed = async {
            for looks in 0u32.. {
                if looks == 3 {
                    registry.set_landing(&scope, &landing("other.example")).await.unwrap();
                }
                clock.advance(LOOK);
                tokio::task::yield_now().await;
            }
        };
        let moved = tokio::select! {
            moved = servers.until_moved(&scope, &connected) => moved,
            () = changed => unreachable!("time does not end"),
        };
        assert_eq!((moved.code(), moved.disposition()), (Code::AppServerMissing, towpath_transfer::Disposition::Retry));
        assert_eq!(servers.check(&scope, &connected).await.unwrap_err().code(), Code::AppServerMissing);
    }
}
