//! The relay on a real machine: its state folder, its keys, its ports. The one place that builds the real parts.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use towpath_alert::{Desk, DeskParts, SystemMeans};
use towpath_host::{StateLock, listen};
use towpath_journal::{DriverSettings, FailPoints, Journal, SqliteJournal};
use towpath_keys::{HostKeys, Identity, KeyKind};
use towpath_transfer::{Clock, Code, Entropy, Failure, failure::Result, state::Place};
use towpath_transport::{
    dial::settings::ProxySettings,
    files::{Disk, disk_below, write_whole},
    server::{SshServer, SshServerConfig},
};

use crate::{
    access::AccessLog,
    admin::{Admin, Metrics},
    api::WebService,
    app_servers::SftpAppServers,
    audit::{Action, Entry, NotedHead, Who},
    config::{Config, DEFAULT_PUBLIC_URL},
    door::{Door, DoorLimits, tls::Certificate},
    keyring::{KeyFolder, KeyWatch, Keyring, ssh_keys, warn_strangers},
    late::{LateWatch, MAX_OPEN_ALERTS},
    registry::Registry,
    relay::{Parts, Relay, StageSettings},
    release::Shelf,
    service::RelayIdentity,
    sftpd::Logins,
    spool::blocking,
};

/// What this program is called where another one holds its state folder.
const PROGRAM: &str = "towpath-relay";
/// How long running steps may go on at shutdown, twice: to end, and to be given back.
const STEP_GRACE: Duration = Duration::from_secs(10);
/// How long a shutdown may take as a whole.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(28);

/// A machine on which the relay, or one of its commands, runs.
#[derive(Debug, Clone)]
pub struct Host {
    /// The configuration.
    pub config: Config,
    /// The state folder.
    pub state: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

/// Where a running relay listens, as `listening.json` in its state folder says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// SSH and TLS.
    pub listen: Vec<SocketAddr>,
    /// Readiness and metrics.
    pub admin: SocketAddr,
}

fn file_failed(what: &str, path: &Path, e: std::io::Error) -> Failure {
    Failure::park(Code::FileFailed, format!("{what} {}", path.display())).caused_by(e)
}

impl Host {
    /// Makes the state folder, readable for this user only. Blocking.
    ///
    /// # Errors
    /// [`Code::FileFailed`].
    pub fn prepare(&self) -> Result<()> {
        for folder in [self.state.clone(), self.state.join("host_keys")] {
            fs::create_dir_all(&folder).map_err(|e| file_failed("make the folder", &folder, e))?;
            #[cfg(unix)]
            fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700))
                .map_err(|e| file_failed("protect the folder", &folder, e))?;
        }
        Ok(())
    }

    /// The tenants and keys.
    ///
    /// # Errors
    /// Those of [`Registry::open`].
    pub async fn registry(&self) -> Result<Registry> {
        Registry::open(&self.state.join("registry.sqlite"), Arc::clone(&self.clock), Arc::clone(&self.entropy)).await
    }

    /// What the registry must not forget.
    #[must_use]
    pub fn access_log(&self) -> AccessLog {
        AccessLog::new(Arc::new(Disk), &self.state, Arc::clone(&self.clock))
    }

    /// The end of the audit trail, as the service has noted it.
    #[must_use]
    pub fn noted_head(&self) -> NotedHead {
        NotedHead::new(Arc::new(Disk), &self.state, Arc::clone(&self.clock))
    }

    /// The journal.
    ///
    /// # Errors
    /// [`Code::JournalFailed`].
    pub async fn journal(&self) -> Result<Arc<SqliteJournal>> {
        let path = self.state.join("journal.sqlite");
        let (clock, entropy) = (Arc::clone(&self.clock), Arc::clone(&self.entropy));
        Ok(Arc::new(SqliteJournal::open(&path, Place::Relay, clock, entropy).await.map_err(Failure::from)?))
    }

    /// The certificate, made where it is missing. Blocking.
    ///
    /// # Errors
    /// Those of [`Certificate::load`].
    pub fn certificate(&self) -> Result<Certificate> {
        let url = &self.config.relay.public_url;
        Certificate::load(&self.config.tls, &self.state.join("tls"), url, &*self.clock, &*self.entropy)
    }

    /// The key that logs in on app servers, made where it is missing. Blocking.
    ///
    /// # Errors
    /// Those of [`Identity::load_or_create`].
    pub fn forward_key(&self) -> Result<Identity> {
        Identity::load_or_create(&self.state.join("forward_key"), KeyKind::Ed25519, &*self.entropy)
    }

    /// The key that signs receipts, made where it is missing. Blocking.
    ///
    /// # Errors
    /// Those of [`Identity::load_or_create`].
    pub fn receipt_key(&self) -> Result<Identity> {
        Identity::load_or_create(&self.state.join("receipt_key"), KeyKind::Ed25519, &*self.entropy)
    }

    /// The keys that ends pin, and their successors.
    #[must_use]
    pub fn key_folder(&self) -> KeyFolder {
        KeyFolder {
            files: Arc::new(Disk),
            state: self.state.clone(),
            tls: self.config.tls.clone(),
            public_url: self.config.relay.public_url.clone(),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
        }
    }

    /// The SSH host keys, made where they are missing. Blocking.
    ///
    /// # Errors
    /// Those of [`HostKeys::load_or_generate`].
    pub fn host_keys(&self) -> Result<HostKeys> {
        HostKeys::load_or_generate(&self.state.join("host_keys"), &*self.entropy)
    }

    fn stages(&self) -> StageSettings {
        StageSettings {
            accept_at_once: self.config.uplink.accept_at_once,
            forward_at_once: self.config.uplink.forward_at_once,
            forward_per_tenant: self.config.uplink.forward_per_tenant,
            retention: self.config.spool.retention.0,
            abandoned: self.config.spool.abandoned.0,
            journal_keeps: self.config.uplink.journal_keeps,
            audit: self.config.audit.settings(),
            downlink: self.config.downlink_settings(),
            driver: DriverSettings { shutdown_grace: STEP_GRACE, ..DriverSettings::default() },
        }
    }

    /// The relay with its real parts.
    async fn relay(&self, keys: Keyring, fail_points: Arc<dyn FailPoints>) -> Result<(Relay, Admin)> {
        let registry = self.registry().await?;
        let journal = self.journal().await?;
        let broken = journal.break_leases().await.map_err(Failure::from)?;
        if broken > 0 {
            tracing::info!(broken, "transfers that an earlier process had leased go on now");
        }
        let forward_key = self.forward_key()?;
        let identity = RelayIdentity {
            public_url: self.config.relay.public_url.clone(),
            keys,
            forward_key: forward_key.public_line().clone(),
        };
        let files = disk_below(&self.state).map_err(|e| file_failed("open the folder", &self.state, e))?;
        let metrics = Metrics::new()?;
        let app_servers = SftpAppServers::new(registry.clone(), forward_key, Arc::clone(&self.clock))?;
        let parts = Parts {
            files,
            state: self.state.clone(),
            journal: Arc::clone(&journal) as Arc<dyn Journal>,
            registry: registry.clone(),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            fail_points,
            app_servers: Arc::new(app_servers),
            identity,
            spool_limits: self.config.spool_limits(),
            stages: self.stages(),
            metrics: metrics.clone(),
        };
        let relay = blocking(move || Relay::new(parts)).await??;
        relay.replay_access().await?;
        relay.limits().follow().await?;
        let (spool, clock) = (Arc::clone(relay.spool()), Arc::clone(&self.clock));
        Ok((relay, Admin { journal, registry, spool, metrics, clock }))
    }

    /// Serves until `shutdown` is cancelled. `ready` is told where, once connections are taken.
    ///
    /// # Errors
    /// [`Code::AlreadyRunning`]; where a port, a key, the certificate or the state cannot be used.
    pub async fn serve(
        &self,
        fail_points: Arc<dyn FailPoints>,
        shutdown: CancellationToken,
        ready: impl FnOnce(&Listening) + Send,
    ) -> Result<()> {
        self.prepare()?;
        let _lock = StateLock::take(&self.state.join("lock"), PROGRAM)?;
        let folder = self.key_folder();
        let look = folder.clone();
        let present = blocking(move || look.look(None)).await??;
        let keyring = Keyring::new(present.shown());
        let (relay, admin) = self.relay(keyring.clone(), fail_points).await?;
        warn_strangers(&admin.registry, &present.strangers).await?;
        let registry = admin.registry.clone();
        let ecdsa = self.config.ssh.ecdsa_host_key;
        let host_keys = ssh_keys(&present, ecdsa)?;
        let ssh = SshServerConfig { host_keys, limits: self.config.ssh.limits(), clock: Arc::clone(&self.clock) };
        let metrics = relay.metrics().clone();
        let (spool, sessions, trail) = (Arc::clone(relay.spool()), relay.sessions().clone(), relay.trail().clone());
        let shelf = Shelf::new(Arc::clone(spool.files()), &self.state);
        let logins = Logins::new(admin.registry.clone(), spool, sessions, metrics.clone(), trail.clone(), shelf);
        let ssh = SshServer::new(ssh, Arc::new(logins))?;
        let web = WebService::new(relay.service().clone(), self.config.web_limits(), metrics.clone());
        let limits = DoorLimits { tls_connections: self.config.web.connections, handshake: self.config.web.handshake.0 };
        let door = Door::new(
            ssh.clone(),
            web,
            Arc::clone(&present.certificate.config),
            &self.config.relay.public_url,
            limits,
            metrics,
            Arc::clone(&self.clock),
        );

        let mut listeners = Vec::new();
        for address in &self.config.relay.listen {
            listeners.push(bind(*address, "[relay] listen").await?);
        }
        let admin_listener = bind(self.config.relay.admin, "[relay] admin").await?;
        let listening = self.write_listening(&listeners, &admin_listener)?;
        let tasks = TaskTracker::new();
        for listener in listeners {
            let (door, shutdown) = (door.clone(), shutdown.clone());
            tasks.spawn(async move { door.accept(listener, shutdown).await });
        }
        tasks.spawn(admin.serve(admin_listener, shutdown.clone()));
        let watch = KeyWatch::new(folder, keyring, ssh, door.clone(), registry.clone(), present.certificate, ecdsa);
        tasks.spawn(shutdown.clone().run_until_cancelled_owned(watch.run()));
        let late = self.late_watch(registry.clone(), relay.metrics().clone()).await?;
        let desk = late.desk.clone();
        tasks.spawn(shutdown.clone().run_until_cancelled_owned(late.run()));
        let stop = shutdown.clone();
        tasks.spawn(async move { desk.run(stop).await });
        tasks.close();
        tracing::info!(listen = ?listening.listen, admin = %listening.admin, url = self.config.relay.public_url, "serving");
        if self.config.relay.public_url == DEFAULT_PUBLIC_URL {
            tracing::warn!("relay.public_url is still {DEFAULT_PUBLIC_URL}: enrolment codes made here work on this machine only");
        }
        let version = format!("version {}", env!("CARGO_PKG_VERSION"));
        trail.record(Entry::new(self.clock.now(), Who::relay(), Action::Started).detail(version));
        ready(&listening);
        relay_until(&relay, &door, &tasks, &shutdown, &*self.clock).await;
        trail.close().await;
        relay.note_head().await;
        registry.close().await;
        // What is left here would only mislead whoever looks for a running relay.
        let _ = fs::remove_file(self.state.join("listening.json"));
        tracing::info!("stopped");
        Ok(())
    }

    /// The watch over what is late, with its own book and the configured ways to tell.
    async fn late_watch(&self, registry: Registry, metrics: Metrics) -> Result<LateWatch> {
        let alert = self.config.alert.clone();
        let means = SystemMeans::new(move || (alert.clone(), ProxySettings::default()), Arc::clone(&self.clock));
        let parts = DeskParts {
            files: Arc::new(Disk),
            path: self.state.join("alerts.json"),
            means: Arc::new(means),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            most: MAX_OPEN_ALERTS,
        };
        let desk = blocking(move || Desk::open(parts)).await?;
        Ok(LateWatch { registry, desk, metrics, clock: Arc::clone(&self.clock) })
    }

    fn write_listening(&self, listeners: &[TcpListener], admin: &TcpListener) -> Result<Listening> {
        let unknown = |e| Failure::park(Code::Internal, "ask where the relay listens").caused_by(e);
        let listen = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>().map_err(unknown)?;
        let listening = Listening { listen, admin: admin.local_addr().map_err(unknown)? };
        let path = self.state.join("listening.json");
        let json = serde_json::to_vec_pretty(&listening);
        let json = json.map_err(|e| Failure::park(Code::Internal, "say where the relay listens").caused_by(e))?;
        write_whole(&Disk, &path, &json).map_err(|e| file_failed("write", &path, e))?;
        Ok(listening)
    }
}

/// Runs everything, and after the signal gives it the time that a shutdown may take.
async fn relay_until(relay: &Relay, door: &Door, tasks: &TaskTracker, shutdown: &CancellationToken, clock: &dyn Clock) {
    let stopped = async {
        shutdown.cancelled().await;
        clock.sleep(SHUTDOWN_GRACE).await;
    };
    let work = async {
        let closing = async {
            shutdown.cancelled().await;
            door.close().await;
            tasks.wait().await;
        };
        tokio::join!(relay.run(shutdown.clone()), closing);
    };
    tokio::select! {
        () = work => {}
        () = stopped => tracing::warn!("some connections or steps did not end in time and were cut"),
    }
}

async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| listen::failed(address, setting, e))
}
