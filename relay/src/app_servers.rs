//! The tenants' app servers, reached over SSH with the relay's forward key and their pinned host keys.

use std::sync::Arc;

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
        Ok(AppServer { store: Arc::new(store), folder })
    }
}
