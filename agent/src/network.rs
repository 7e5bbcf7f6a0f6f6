//! The network between this host and its relay: the proxy that leads out, the ways that may be open.

use std::{env, path::PathBuf, sync::Arc};

use towpath_keys::SshSigner;
use towpath_transfer::{Clock, Code, Failure, failure::Result};
use towpath_transport::{
    client::{SftpConnect, SftpLogin},
    dial::{Dialer, Proxies, Trust, Way},
    files::FileStore,
    relay_api::HttpRelayApi,
    store::Connect,
};

use crate::{
    config::NetworkConfig,
    routes::{Channel, Routes, WaysFile},
};

/// The network between this host and one relay.
#[derive(Debug)]
pub(crate) struct Network {
    host: String,
    ways: Vec<Way>,
    proxies: Proxies,
    file: WaysFile,
    clock: Arc<dyn Clock>,
}

impl Network {
    /// The network to the relay at `relay_url`; what is found out is kept in the file `path`.
    ///
    /// # Errors
    /// `config-invalid` for a URL or a proxy that cannot be used; those of the file with the proxy's password.
    pub(crate) fn new(
        config: &NetworkConfig,
        relay_url: &str,
        files: Arc<dyn FileStore>,
        path: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let unusable = || Failure::park(Code::ConfigInvalid, format!("the relay's URL {relay_url:?} cannot be used"));
        let url = url::Url::parse(relay_url).map_err(|error| unusable().caused_by(error))?;
        let host = url.host_str().ok_or_else(unusable)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().ok_or_else(unusable)?;
        let proxies = config.proxy.load(&|name| env::var(name).ok(), &towpath_keys::read_secret)?;
        let proxy = proxies.to(&host, port).map(ToString::to_string);
        let file = WaysFile::new(files, path, proxy, Arc::clone(&clock));
        Ok(Self { host, ways: config.ways_to(port), proxies, file, clock })
    }

    /// The web service over this network.
    pub(crate) fn web(&self, api: HttpRelayApi) -> HttpRelayApi {
        api.through(self.proxies.clone(), &self.ways, self.file.of(Channel::Https))
    }

    /// The ways to the relay's SFTP.
    ///
    /// # Errors
    /// `relay-certificate` where the system's trust store cannot be used.
    pub(crate) fn sftp(&self, trust: &Trust, login: &SftpLogin<SshSigner>) -> Result<Routes> {
        let dialer = Dialer::new(trust, Arc::clone(&self.clock))?.through(self.proxies.clone());
        let connect = |way: &Way| -> Arc<dyn Connect> {
            let (clock, login) = (Arc::clone(&self.clock), login.clone());
            Arc::new(SftpConnect::new(dialer.clone(), way.route, self.host.clone(), way.port, login, clock))
        };
        let ways = self.ways.iter().map(|way| (*way, connect(way))).collect();
        Ok(Routes::new(ways, self.file.of(Channel::Ssh), Arc::clone(&self.clock)))
    }
}
