//! The network between this host and its relay: the proxy that leads out, the ways that may be open.

use std::{path::PathBuf, sync::Arc};

use towpath_keys::SshSigner;
use towpath_transfer::{Clock, Code, Failure, failure::Result};
use towpath_transport::{
    client::{Logins, SftpConnect},
    dial::{Dialer, Proxies, Proxy, Trust, Way, ways::NoMemory},
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
    port: u16,
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
        let proxies = config.proxy.load(&towpath_keys::SystemSecrets)?;
        let proxy = proxies.to(&host, port).map(ToString::to_string);
        let file = WaysFile::new(files, path, proxy, Arc::clone(&clock));
        Ok(Self { host, port, ways: config.ways_to(port), proxies, file, clock })
    }

    /// The web service over this network.
    pub(crate) fn web(&self, api: HttpRelayApi) -> HttpRelayApi {
        api.through(self.proxies.clone(), &self.ways, self.file.of(Channel::Https))
    }

    /// The ways to the relay's SFTP.
    ///
    /// # Errors
    /// `relay-certificate` where the system's trust store cannot be used.
    pub(crate) fn sftp(&self, trust: &Trust, logins: &Logins<SshSigner>) -> Result<Routes> {
        Ok(Routes::new(self.each_way(trust, logins)?, self.file.of(Channel::Ssh), Arc::clone(&self.clock)))
    }

    /// Each way to the relay's SFTP by itself, the best first.
    ///
    /// # Errors
    /// `relay-certificate` where the system's trust store cannot be used.
    pub(crate) fn each_way(&self, trust: &Trust, logins: &Logins<SshSigner>) -> Result<Vec<(Way, Arc<dyn Connect>)>> {
        let dialer = Dialer::new(trust, Arc::clone(&self.clock))?.through(self.proxies.clone());
        let connect = |way: &Way| -> Arc<dyn Connect> {
            let (clock, logins) = (Arc::clone(&self.clock), logins.clone());
            Arc::new(SftpConnect::new(dialer.clone(), way.route, self.host.clone(), way.port, logins, clock))
        };
        Ok(self.ways.iter().map(|way| (*way, connect(way))).collect())
    }

    /// The web service at the port of its URL and nowhere else, or by every way; nothing is remembered of it.
    pub(crate) fn web_forgetting(&self, api: HttpRelayApi, every_way: bool) -> HttpRelayApi {
        let ways = if every_way { self.ways.as_slice() } else { &[] };
        api.through(self.proxies.clone(), ways, Arc::new(NoMemory))
    }

    /// The relay's name or address, and the port of its web service.
    pub(crate) fn relay(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The proxy that leads to a port of the relay.
    pub(crate) fn proxy_to(&self, port: u16) -> Option<&Proxy> {
        self.proxies.to(&self.host, port)
    }
}
