//! The receiver on a real machine: the one place where its parts are built.

use std::{net::SocketAddr, path::Path, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use towpath_host::StateLock;
use towpath_journal::{
    FailPoints, LogObserver, SqliteJournal,
    system::{SystemClock, SystemEntropy},
};
use towpath_keys::{HostKeys, Identity, KeyKind, TokenClaims};
use towpath_transfer::{
    Clock, Code, Entropy, Failure,
    api::{EnrolmentCode, Landing as LandingAddress, Peer},
    state::Place,
};
use towpath_transport::{
    dial::{Trust as TlsTrust, ways::NoMemory},
    files::{Disk, FileStore as _, disk_below, file_failure, ignore_missing, read_whole, write_whole},
    relay_api::{Follower, HttpRelayApi, RelayApi, RelayPins, TokenSource},
};

use crate::{
    agents,
    announcement::EnrolmentKeeper,
    config::{Config, ImportConfig},
    enrolment::{self, Enrolment, landing_of},
    import::{ImportTarget, Owner, PostgresTarget, SqliteTarget},
    landing::{Landing, LandingServer},
    layout::Layout,
    parts::{FileTrust, Parts},
    service::{Service, ServiceSettings},
};

/// What this program is called where another one holds its state folder.
const PROGRAM: &str = "towpath-receiver";
/// The largest `listening.json`, in bytes.
const MAX_LISTENING_BYTES: u64 = 64 * 1024;

/// `listening.json`: where `serve` can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listening {
    /// The landing's addresses; empty where another SFTP server writes into its folder.
    pub listen: Vec<SocketAddr>,
}

/// A state folder on this machine and its configuration.
#[derive(Debug)]
pub struct Host {
    config: Config,
    layout: Layout,
    pub(crate) clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Host {
    /// The receiver in the folder `state`, which is made where it is missing (0700).
    ///
    /// # Errors
    /// As the disk reports.
    pub fn open(config: Config, state: &Path) -> Result<Self, Failure> {
        let failed = |e| file_failure("creating the state folder", state, e);
        towpath_host::folders::make_above(state).map_err(failed)?;
        Disk.create_dir_all(state).map_err(failed)?;
        private(state)?;
        let layout = Layout::new(state);
        Ok(Self { config, layout, clock: Arc::new(SystemClock::new()), entropy: Arc::new(SystemEntropy::new()) })
    }

    /// Where things lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The app database, as this receiver's.
    ///
    /// # Errors
    /// `not-enrolled`, those of the key file.
    pub fn import_target(&self) -> Result<Arc<dyn ImportTarget>, Failure> {
        let owner = Owner { tenant: self.enrolment()?.tenant, receiver: self.identity()?.fingerprint() };
        Ok(match &self.config.import {
            ImportConfig::Sqlite(folder) => {
                Arc::new(SqliteTarget::new(folder.clone().unwrap_or_else(|| self.layout.import()), owner))
            }
            ImportConfig::PostgreSql(server) => Arc::new(PostgresTarget::new(server.clone(), owner)),
        })
    }

    /// What enrolment has told.
    ///
    /// # Errors
    /// `not-enrolled`.
    pub fn enrolment(&self) -> Result<Enrolment, Failure> {
        Enrolment::load(&Disk, &self.layout.enrolment())
    }

    /// Enrols, making key and host keys where they are missing. `advertise` says how the relay reaches the landing; without
    /// it and without one in the configuration, the relay's operator says it.
    ///
    /// # Errors
    /// Of the keys, the relay and the disk.
    pub async fn enrol(&self, code: &EnrolmentCode, advertise: Option<(String, u16)>) -> Result<(Enrolment, Vec<Peer>), Failure> {
        let identity = Identity::load_or_create(&self.layout.key(), KeyKind::Rsa2048, &*self.entropy)?;
        let landing = match advertise.or_else(|| self.config.advertise.clone()) {
            Some((host, port)) => Some(self.advertised(host, port)?),
            None => None,
        };
        let relay = HttpRelayApi::new(&code.relay_url, &tls_trust(code.spki_pin), None, Arc::clone(&self.clock))?;
        let relay = self.through_proxy(relay)?;
        enrolment::enrol(code, &identity, landing, &relay, &Disk, &self.layout.enrolment()).await
    }

    fn advertised(&self, host: String, port: u16) -> Result<LandingAddress, Failure> {
        let keys = self.host_keys()?;
        Ok(landing_of(host, port, keys.public_lines()))
    }

    fn host_keys(&self) -> Result<HostKeys, Failure> {
        let folder = self.layout.host_keys();
        Disk.create_dir_all(&folder).map_err(|e| file_failure("creating", &folder, e))?;
        HostKeys::load_or_generate(&folder, &*self.entropy)
    }

    /// The key of this receiver.
    ///
    /// # Errors
    /// `key-missing` and others of the key file.
    pub fn identity(&self) -> Result<Identity, Failure> {
        Identity::load(&self.layout.key())
    }

    /// The relay's web service, with this receiver's tokens.
    ///
    /// # Errors
    /// `not-enrolled`, those of the key file.
    pub fn relay(&self) -> Result<HttpRelayApi, Failure> {
        let enrolment = self.enrolment()?;
        let pins = RelayPins::new(&enrolment.relay_keys());
        self.relay_of(enrolment, &pins)
    }

    fn relay_of(&self, enrolment: Enrolment, pins: &RelayPins) -> Result<HttpRelayApi, Failure> {
        let tokens = Tokens { identity: self.identity()?, issuer: enrolment.sftp_user, entropy: Arc::clone(&self.entropy) };
        let relay = HttpRelayApi::new(&enrolment.relay_url, &pins.trust(), Some(Arc::new(tokens)), Arc::clone(&self.clock))?;
        self.through_proxy(relay)
    }

    fn through_proxy(&self, relay: HttpRelayApi) -> Result<HttpRelayApi, Failure> {
        let proxies = self.config.proxy.load(&towpath_keys::SystemSecrets)?;
        Ok(relay.through(proxies, &[], Arc::new(NoMemory)))
    }

    /// The journal.
    ///
    /// # Errors
    /// Of the journal's file.
    pub async fn journal(&self) -> Result<SqliteJournal, Failure> {
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        Ok(SqliteJournal::open(&self.layout.journal(), Place::Receiver, clock, entropy).await?)
    }

    /// Everything the stages touch, on this machine.
    ///
    /// # Errors
    /// `not-enrolled`, those of key, journal and failpoints.
    pub async fn parts(&self) -> Result<Parts, Failure> {
        Ok(self.following_parts().await?.0)
    }

    /// The same, and what follows the relay's announcements for it.
    async fn following_parts(&self) -> Result<(Parts, Follower), Failure> {
        let enrolment = self.enrolment()?;
        agents::complete_pins(&self.layout.allowed_signers(), &enrolment.receipt_key)?;
        let pins = RelayPins::new(&enrolment.relay_keys());
        let relay = self.relay_of(enrolment.clone(), &pins)?;
        let hints = relay.announced();
        let relay: Arc<dyn RelayApi> = Arc::new(relay);
        let keeper = EnrolmentKeeper {
            files: Arc::new(Disk),
            enrolment: self.layout.enrolment(),
            signers: self.layout.allowed_signers(),
            pins,
        };
        let follower = Follower::new(Arc::clone(&relay), Arc::new(keeper), hints, Arc::clone(&self.clock));
        let parts = Parts {
            layout: self.layout.clone(),
            files: Arc::new(Disk),
            journal: Arc::new(self.journal().await?),
            relay,
            target: self.import_target()?,
            trust: Arc::new(FileTrust(self.layout.allowed_signers())),
            policy: self.config.trust,
            identity: self.identity()?,
            name: enrolment.name,
            tenant: enrolment.tenant,
            tables: self.config.tables.clone(),
            exports: self.config.exports.clone(),
            limits: self.config.limits,
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            fail_points: fail_points()?,
        };
        Ok((parts, follower))
    }

    /// Serves until `shutdown` is cancelled. `listen` replaces the configured address.
    ///
    /// # Errors
    /// `already-running`, `not-enrolled`, an address that cannot be listened on, and others of the parts; once it works,
    /// nothing ends it but `shutdown`.
    pub async fn serve(
        &self,
        listen: Option<String>,
        shutdown: CancellationToken,
        ready: impl FnOnce() + Send,
    ) -> Result<(), Failure> {
        let _lock = StateLock::take(&self.layout.lock(), PROGRAM)?;
        let (parts, follower) = self.following_parts().await?;
        let parts = Arc::new(parts);
        let broken = parts.journal.break_leases().await?;
        let arrived = Arc::new(Notify::new());
        let files = disk_below(self.layout.state()).map_err(|e| file_failure("opening", self.layout.state(), e))?;
        let landing = Arc::new(Landing::new(files, self.layout.clone(), self.config.landing, Arc::clone(&arrived)));
        landing.prepare().map_err(|e| file_failure("creating", &self.layout.landing(), e))?;
        let server = match listen.or_else(|| self.config.listen.clone()) {
            Some(address) => {
                let keys = self.host_keys()?;
                let clock = Arc::clone(&self.clock);
                Some(
                    LandingServer::bind(&address, &keys, landing, self.layout.enrolment(), self.config.ssh.limits(), clock)
                        .await?,
                )
            }
            None => None,
        };
        let listening = Listening { listen: server.iter().map(LandingServer::address).collect() };
        self.announce(&listening)?;
        let fingerprint = parts.identity.fingerprint();
        tracing::info!(tenant = %parts.tenant, listen = ?listening.listen, %fingerprint, resumed = broken, "serving");
        ready();
        let settings = ServiceSettings { scan: self.config.scan, ..ServiceSettings::default() };
        let service = Service::new(parts, settings, Arc::new(LogObserver), arrived);
        let ssh = async {
            if let Some(server) = server {
                server.run(shutdown.clone()).await;
            }
        };
        tokio::join!(service.run(shutdown.clone()), ssh, follower.run(shutdown.clone()));
        // Stale at worst; the next start writes it anew.
        let _ = ignore_missing(Disk.remove(&self.layout.listening()));
        tracing::info!("stopped");
        Ok(())
    }

    /// Whether a `serve` holds this state folder.
    ///
    /// # Errors
    /// As the disk reports.
    pub fn is_serving(&self) -> Result<bool, Failure> {
        Ok(StateLock::try_take(&self.layout.lock())?.is_none())
    }

    /// Where the running `serve` can be reached, as far as it has said so.
    ///
    /// # Errors
    /// As the disk reports.
    pub fn listening(&self) -> Result<Option<Listening>, Failure> {
        let path = self.layout.listening();
        match read_whole(&Disk, &path, MAX_LISTENING_BYTES) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file_failure("reading", &path, e)),
        }
    }

    fn announce(&self, listening: &Listening) -> Result<(), Failure> {
        let path = self.layout.listening();
        let text = serde_json::to_vec_pretty(listening)
            .map_err(|e| Failure::park(Code::Internal, "writing the listening address failed").caused_by(e))?;
        write_whole(&Disk, &path, &text).map_err(|e| file_failure("writing", &path, e))
    }
}

/// Closes an existing state folder to other users, as one that is made here is from the start.
fn private(state: &Path) -> Result<(), Failure> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let failed = |e| file_failure("reading the permissions of", state, e);
        let mode = std::fs::metadata(state).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            let closed = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(state, closed).map_err(|e| file_failure("closing to other users", state, e))?;
        }
    }
    #[cfg(not(unix))]
    let _ = state;
    Ok(())
}

fn tls_trust(pin: Option<towpath_transfer::digest::Sha256Digest>) -> TlsTrust {
    pin.map_or(TlsTrust::Public, |pin| TlsTrust::Pinned(vec![pin]))
}

#[cfg(feature = "failpoints")]
fn fail_points() -> Result<Arc<dyn FailPoints>, Failure> {
    towpath_journal::failpoints::from_environment(Place::Receiver)
}

#[cfg(not(feature = "failpoints"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature `failpoints` it can fail")]
fn fail_points() -> Result<Arc<dyn FailPoints>, Failure> {
    Ok(Arc::new(towpath_journal::NoFailPoints))
}

/// Tokens by this receiver's key.
#[derive(Debug)]
struct Tokens {
    identity: Identity,
    issuer: String,
    entropy: Arc<dyn Entropy>,
}

impl TokenSource for Tokens {
    fn token(&self, audience: &str, now: Timestamp) -> Result<String, Failure> {
        self.identity.token(&TokenClaims::new(self.issuer.clone(), audience, now, &*self.entropy))
    }
}
