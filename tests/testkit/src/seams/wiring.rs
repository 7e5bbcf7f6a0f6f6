//! What is between a program and the rest of the world, for a simulation that wants to have a hand in it.

use std::{fmt, sync::Arc, time::Duration};

use towpath_agent::{key_files::KeyFiles, parts::Extractor};
use towpath_journal::Journal;
use towpath_receiver::{import::ImportTarget, parts::Trust};
use towpath_relay::uplink::forward::AppServers;
use towpath_transfer::{Clock, Code, TenantName, state::Place};
use towpath_transport::{files::FileStore, store::Connect};

use super::power::Life;

/// A machine of the installation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// What it is.
    pub place: Place,
    /// Whose it is; the relay is nobody's.
    pub tenant: Option<TenantName>,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.place {
            Place::Agent => "agent",
            Place::Relay => "relay",
            Place::Receiver => "receiver",
        };
        match &self.tenant {
            Some(tenant) => write!(f, "{tenant}'s {what}"),
            None => f.write_str(what),
        }
    }
}

/// What becomes of one call of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// How long the request is under way.
    pub before: Duration,
    /// How often it arrives at once; never, where this is 0.
    pub copies: usize,
    /// After how long it arrives once more, after whatever was said meanwhile.
    pub echo: Option<Duration>,
    /// How long the answer is under way.
    pub after: Duration,
    /// Whether the answer arrives.
    pub answered: bool,
    /// What the caller is told to have been refused for, whatever was done.
    pub refused: Option<Code>,
}

impl Fate {
    /// It arrives at once, `copies` times, and is answered at once.
    #[must_use]
    pub const fn copied(copies: usize) -> Self {
        Self { before: Duration::ZERO, copies, echo: None, after: Duration::ZERO, answered: true, refused: None }
    }
}

/// Puts something between the programs and what they touch. Each part lasts for one life of the program.
pub trait Wiring: fmt::Debug + Send + Sync {
    /// The clock of a machine.
    fn clock(&self, host: &Host, clock: Arc<dyn Clock>) -> Arc<dyn Clock> {
        let _ = host;
        clock
    }

    /// The files of a machine.
    fn files(&self, host: &Host, life: &Life, files: Arc<dyn FileStore>) -> Arc<dyn FileStore> {
        let _ = (host, life);
        files
    }

    /// The journal of a machine.
    fn journal(&self, host: &Host, life: &Life, journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
        let _ = (host, life);
        journal
    }

    /// What becomes of a call of the relay.
    fn fate(&self, host: &Host, call: &'static str) -> Fate {
        let _ = (host, call);
        Fate::copied(1)
    }

    /// An agent's way to the relay's files.
    fn connect(&self, host: &Host, life: &Life, connect: Arc<dyn Connect>) -> Arc<dyn Connect> {
        let _ = (host, life);
        connect
    }

    /// The relay's way to the app servers.
    fn app_servers(&self, host: &Host, life: &Life, servers: Arc<dyn AppServers>) -> Arc<dyn AppServers> {
        let _ = (host, life);
        servers
    }

    /// Where a receiver imports.
    fn target(&self, host: &Host, life: &Life, target: Arc<dyn ImportTarget>) -> Arc<dyn ImportTarget> {
        let _ = (host, life);
        target
    }

    /// Whom a receiver trusts.
    fn trust(&self, host: &Host, trust: Arc<dyn Trust>) -> Arc<dyn Trust> {
        let _ = host;
        trust
    }

    /// The files of an agent's key.
    fn keys(&self, host: &Host, keys: Arc<dyn KeyFiles>) -> Arc<dyn KeyFiles> {
        let _ = host;
        keys
    }

    /// How an agent reads the ERP.
    fn extractor(&self, host: &Host, life: &Life, extractor: Arc<dyn Extractor>) -> Arc<dyn Extractor> {
        let _ = (host, life);
        extractor
    }
}

/// Nothing is in between.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Wiring for Plain {}
