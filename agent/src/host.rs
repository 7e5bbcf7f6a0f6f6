//! Builds the agent's real parts: disk, journal, key, the ways to the relay. This is the one place that does.

use std::{path::Path, sync::Arc};

use jiff::Timestamp;
use towpath_journal::{FailPoints, JournalError, MachineBinding as _, SqliteJournal};
use towpath_keys::{Identity, KeyKind, SshSigner, TokenClaims};
use towpath_transfer::{Clock, Code, Entropy, Failure, digest::Sha256Digest, failure::Result, state::Place};
use towpath_transport::{
    client::{Logins, SftpLogin},
    dial::Trust as TlsTrust,
    files::{Disk, FileStore, file_failure},
    relay_api::{Follower, HttpRelayApi, RelayApi, RelayPins, TokenSource},
    store::PacedConnect,
};

use crate::{
    announcement::EnrolmentKeeper,
    bandwidth,
    config::{Config, LoadedConfig, SharedConfig},
    downlink::action::SystemActions,
    enrolment::Enrolment,
    extract::{Attempts, ExtractParts, KeyFile},
    layout::Layout,
    network::Network,
    own_key::OwnKey,
    parts::{Parts, SourceExtractor, Watcher},
    rotation::KeyRotator,
    small_file,
    trust::FileTrust,
};

/// What stands for a machine that has no id of its own; a copy of it cannot be told from it.
const NO_MACHINE_ID: &str = "this machine has no id";

/// The parts that a program's `main` chooses.
#[derive(Clone)]
pub struct Base {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Where a test stops the program.
    pub fail_points: Arc<dyn FailPoints>,
}

/// A state folder with its configuration, before anything in it is used.
#[derive(Clone)]
pub struct Host {
    /// The configuration.
    pub config: LoadedConfig,
    /// Where things lie.
    pub layout: Layout,
    /// The disk.
    pub files: Arc<dyn FileStore>,
    base: Base,
}

/// An agent that is enrolled and may work on this machine.
#[derive(Clone)]
pub struct OpenHost {
    /// The stages' parts.
    pub parts: Arc<Parts>,
    /// What enrolment has told.
    pub enrolment: Enrolment,
    /// The journal, to be closed at the end.
    pub journal: Arc<SqliteJournal>,
    /// The relay's web service, which knows how far the clocks differ.
    pub relay: HttpRelayApi,
    /// Pins what the relay announces; for the one process that works on this state folder.
    pub follower: Follower,
    /// Changes the agent's key; likewise.
    pub rotator: KeyRotator,
}

impl Host {
    /// Makes the state folder, for its owner alone, where there is none.
    ///
    /// # Errors
    /// `file-failed` where it cannot be made.
    pub fn new(config: LoadedConfig, state: &Path, base: Base) -> Result<Self> {
        let files: Arc<dyn FileStore> = Arc::new(Disk);
        make_private(&*files, state)?;
        Ok(Self { config, layout: Layout::new(state), files, base })
    }

    /// A state folder that is looked at only: it is not made, and need not be there.
    #[must_use]
    pub fn look(config: LoadedConfig, state: &Path, base: Base) -> Self {
        Self { config, layout: Layout::new(state), files: Arc::new(Disk), base }
    }

    /// Opens everything that works on transfers.
    ///
    /// # Errors
    /// `not-enrolled`; those of the key; `host-moved` where the journal belongs to another machine; `journal-failed`.
    pub async fn open(&self, watcher: Arc<dyn Watcher>) -> Result<OpenHost> {
        let enrolment = self.enrolment()?.ok_or_else(|| not_enrolled(&self.layout))?;
        let identity = OwnKey::new(self.identity()?)?;
        let journal = Arc::new(self.journal().await?);
        journal.bind_or_check(&machine_id()).await.map_err(moved)?;
        let network = self.network(&enrolment.relay_url)?;
        let pins = RelayPins::new(&enrolment.relay_keys());
        let relay = network.web(self.relay(&enrolment, &identity, &pins)?);
        let config = SharedConfig::new(self.config.config.clone());
        let pace = bandwidth::pace(config.clone(), Arc::clone(&self.base.clock));
        let parts = Parts {
            layout: self.layout.clone(),
            files: Arc::clone(&self.files),
            journal: journal.clone(),
            relay: Arc::new(relay.clone()),
            stores: Arc::new(PacedConnect::new(
                Arc::new(network.sftp(&pins.trust(), &Self::sftp_logins(&enrolment, &identity, &pins))?),
                pace,
            )),
            extractor: Arc::new(SourceExtractor { parts: self.extract_parts(), config: config.clone() }),
            actions: Arc::new(SystemActions {
                files: Arc::clone(&self.files),
                clock: Arc::clone(&self.base.clock),
                succeeded: Arc::default(),
            }),
            delivering: crate::downlink::delivering::Delivering::default(),
            trust: Arc::new(FileTrust(self.layout.allowed_signers())),
            identity,
            tenant: enrolment.tenant.clone(),
            agent: enrolment.name.clone(),
            config,
            clock: Arc::clone(&self.base.clock),
            entropy: Arc::clone(&self.base.entropy),
            fail_points: Arc::clone(&self.base.fail_points),
            watcher,
        };
        let keeper = EnrolmentKeeper {
            files: Arc::clone(&self.files),
            enrolment: self.layout.enrolment(),
            signers: self.layout.allowed_signers(),
            pins,
        };
        let clock = Arc::clone(&self.base.clock);
        let follower = Follower::new(Arc::clone(&parts.relay), Arc::new(keeper), relay.announced(), clock);
        let rotator = self.rotator(&enrolment, &parts, &relay);
        Ok(OpenHost { parts: Arc::new(parts), enrolment, journal, relay, follower, rotator })
    }

    fn rotator(&self, enrolment: &Enrolment, parts: &Parts, relay: &HttpRelayApi) -> KeyRotator {
        let (web, issuer, entropy) = (relay.clone(), enrolment.sftp_user.clone(), Arc::clone(&self.base.entropy));
        let relay_of = move |key: &Identity| -> Result<Arc<dyn RelayApi>> {
            let (key, issuer, entropy) = (OwnKey::new(key.clone())?, issuer.clone(), Arc::clone(&entropy));
            Ok(Arc::new(web.speaking_for(Arc::new(KeyTokens { key, issuer, entropy }))))
        };
        let timer = relay.clone();
        KeyRotator {
            keys: Arc::new(self.layout.clone()),
            layout: self.layout.clone(),
            files: Arc::clone(&self.files),
            own: parts.identity.clone(),
            trust: Arc::clone(&parts.trust),
            agent: enrolment.name.clone(),
            relay_url: enrolment.relay_url.clone(),
            user: enrolment.sftp_user.clone(),
            relay: Arc::new(relay_of),
            now: Arc::new(move || timer.relay_now()),
            clock: Arc::clone(&self.base.clock),
            entropy: Arc::clone(&self.base.entropy),
            one: Arc::default(),
        }
    }

    /// What enrolment has told; `None` before it.
    ///
    /// # Errors
    /// `config-invalid` where it is damaged.
    pub fn enrolment(&self) -> Result<Option<Enrolment>> {
        Enrolment::read(&*self.files, &self.layout.enrolment())
    }

    /// The configuration's settings.
    #[must_use]
    pub fn settings(&self) -> &Config {
        &self.config.config
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.base.clock
    }

    /// Randomness.
    #[must_use]
    pub fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.base.entropy
    }

    /// The agent's key.
    ///
    /// # Errors
    /// As [`Identity::load`]; where it is missing, with what to do about it.
    pub fn identity(&self) -> Result<Identity> {
        Identity::load(&self.layout.key()).map_err(|failure| match failure.code() {
            Code::KeyMissing => self.key_missing(&failure),
            _ => failure,
        })
    }

    /// The agent's key, made where there is none and this state folder was never enrolled: the relay would not know a new one,
    /// and it would stand in the place of the one that has to be restored.
    ///
    /// # Errors
    /// `key-missing` where the folder is enrolled and its key is gone; else as [`Identity::load_or_create`].
    pub fn identity_or_new(&self, kind: KeyKind) -> Result<Identity> {
        if self.is_enrolled() {
            self.identity()?;
        }
        Identity::load_or_create(&self.layout.key(), kind, &*self.base.entropy)
    }

    /// A damaged enrolment is one as well.
    fn is_enrolled(&self) -> bool {
        small_file::exists(&*self.files, &self.layout.enrolment())
    }

    fn key_missing(&self, failure: &Failure) -> Failure {
        let remedy = if self.is_enrolled() {
            "this state folder is enrolled, so put the key back from your backup; where there is none, enrol in a new state folder"
        } else {
            "it is made by: towpath-agent enrol CODE"
        };
        Failure::park(Code::KeyMissing, format!("{failure}; {remedy}"))
    }

    /// Binds the journal to this machine, because a person said that it was moved here.
    ///
    /// # Errors
    /// `journal-failed`.
    pub async fn confirm_moved(&self) -> Result<()> {
        let journal = self.journal().await?;
        journal.rebind(&machine_id()).await?;
        journal.close().await;
        Ok(())
    }

    /// The relay that an enrolment code names, before there is an enrolment.
    ///
    /// # Errors
    /// `config-invalid` for a URL or a proxy that cannot be used.
    pub fn relay_before_enrolment(&self, url: &str, pin: Option<Sha256Digest>) -> Result<HttpRelayApi> {
        let relay = HttpRelayApi::new(url, &tls_trust(pin), None, Arc::clone(&self.base.clock))?;
        Ok(self.network(url)?.web(relay))
    }

    /// What an extract touches.
    #[must_use]
    pub fn extract_parts(&self) -> ExtractParts {
        let (files, clock) = (Arc::clone(&self.files), Arc::clone(&self.base.clock));
        let pseudonyms = KeyFile { path: self.layout.pseudonym_key(), entropy: Arc::clone(&self.base.entropy) };
        let (workers, attempts) = (self.config.config.extract.workers, Attempts::default());
        ExtractParts { files, clock, pseudonyms: Arc::new(pseudonyms), workers, attempts }
    }

    async fn journal(&self) -> Result<SqliteJournal> {
        let (clock, entropy) = (Arc::clone(&self.base.clock), Arc::clone(&self.base.entropy));
        Ok(SqliteJournal::open(&self.layout.journal(), Place::Agent, clock, entropy).await?)
    }

    /// The journal, to be looked at; `None` where there is none yet.
    pub(crate) async fn look_at_journal(&self) -> Result<Option<SqliteJournal>> {
        let path = self.layout.journal();
        if !small_file::exists(&*self.files, &path) {
            return Ok(None);
        }
        let (clock, entropy) = (Arc::clone(&self.base.clock), Arc::clone(&self.base.entropy));
        Ok(Some(SqliteJournal::look(&path, Place::Agent, clock, entropy).await?))
    }

    /// Whether a journal may be used on this machine.
    pub(crate) async fn check_machine(&self, journal: &SqliteJournal) -> Result<()> {
        journal.check_machine(&machine_id()).await.map_err(moved)
    }

    pub(crate) fn relay(&self, enrolment: &Enrolment, key: &OwnKey, pins: &RelayPins) -> Result<HttpRelayApi> {
        let tokens = KeyTokens { key: key.clone(), issuer: enrolment.sftp_user.clone(), entropy: Arc::clone(&self.base.entropy) };
        HttpRelayApi::new(&enrolment.relay_url, &pins.trust(), Some(Arc::new(tokens)), Arc::clone(&self.base.clock))
    }

    /// Logins with the key as it is at that moment.
    pub(crate) fn sftp_logins(enrolment: &Enrolment, key: &OwnKey, pins: &RelayPins) -> Logins<SshSigner> {
        let (user, key, host_keys) = (enrolment.sftp_user.clone(), key.clone(), pins.host_keys().clone());
        Logins::new(move || {
            let signer = key.signer();
            SftpLogin { user: user.clone(), public_key: signer.public_key(), signer, host_keys: host_keys.clone() }
        })
    }

    /// The network to the relay at `url`.
    pub(crate) fn network(&self, url: &str) -> Result<Network> {
        let (files, clock) = (Arc::clone(&self.files), Arc::clone(&self.base.clock));
        Network::new(&self.config.config.network, url, files, self.layout.ways(), clock)
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({})", self.layout.state().display())
    }
}

impl std::fmt::Debug for OpenHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenHost({:?})", self.parts)
    }
}

/// Tokens by the agent's own key.
#[derive(Debug)]
struct KeyTokens {
    key: OwnKey,
    issuer: String,
    entropy: Arc<dyn Entropy>,
}

impl TokenSource for KeyTokens {
    fn token(&self, audience: &str, now: Timestamp) -> Result<String> {
        self.key.now().token(&TokenClaims::new(self.issuer.as_str(), audience, now, &*self.entropy))
    }
}

fn tls_trust(pin: Option<Sha256Digest>) -> TlsTrust {
    pin.map_or(TlsTrust::Public, |pin| TlsTrust::Pinned(vec![pin]))
}

/// The failure of everything that needs an enrolment.
#[must_use]
pub fn not_enrolled(layout: &Layout) -> Failure {
    let message = format!(
        "this agent (state folder {}) is not enrolled: ask the relay's operator for an enrolment code, then run: towpath-agent enrol CODE",
        layout.state().display()
    );
    Failure::park(Code::NotEnrolled, message)
}

/// The journal does not know by which command a person confirms a move.
fn moved(error: JournalError) -> Failure {
    let message = error.to_string();
    match error {
        JournalError::HostMoved => Failure::park(
            Code::HostMoved,
            format!("{message}; where this host replaces the old one, and that one is off for good, run: towpath-agent moved"),
        ),
        other => other.into(),
    }
}

fn machine_id() -> String {
    #[cfg(feature = "failpoints")]
    if let Ok(id) = std::env::var("TOWPATH_MACHINE_ID") {
        return id;
    }
    machine_uid::get().unwrap_or_else(|error| {
        tracing::warn!("this machine has no id, so that a copy of it cannot be noticed: {error}");
        NO_MACHINE_ID.to_owned()
    })
}

fn make_private(files: &dyn FileStore, folder: &Path) -> Result<()> {
    let failed = |error| file_failure("making the state folder", folder, error);
    let made = !folder.exists();
    towpath_host::folders::make_above(folder).map_err(failed)?;
    files.create_dir_all(folder).map_err(failed)?;
    if made {
        close(folder).or_else(|error| {
            // Nothing is in it yet; the next start would take it for one that somebody has opened on purpose.
            files.remove_dir(folder)?;
            Err(error)
        })
    } else {
        Ok(())
    }
    .map_err(failed)
}

/// Keeps everybody but its owner out of a folder; on Windows administrators are let in.
fn close(folder: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
    }
    #[cfg(windows)]
    towpath_platform::acl::restrict_to_owner(folder, None)
}

#[cfg(test)]
pub(crate) mod tests {
    use towpath_journal::{
        NoFailPoints,
        system::{SystemClock, SystemEntropy},
    };
    use towpath_transport::files::write_whole;

    use super::*;
    use crate::parts::NoWatcher;

    fn host(state: &Path) -> Host {
        let file = state.join("agent.toml");
        let config = LoadedConfig { config: Config::parse("", &file).unwrap(), file };
        let base = Base {
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SystemEntropy::new()),
            fail_points: Arc::new(NoFailPoints),
        };
        Host::new(config, state, base).unwrap()
    }

    /// An enrolled host in a folder of its own, by a test's clock.
    pub(crate) struct Bench {
        pub(crate) host: Host,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        pub(crate) fn enrolled(config: &str, clock: Arc<dyn Clock>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("agent.toml");
            let config = LoadedConfig { config: Config::parse(config, &file).unwrap(), file };
            let base = Base { clock, entropy: Arc::new(SystemEntropy::new()), fail_points: Arc::new(NoFailPoints) };
            let host = Host::new(config, &folder.path().join("state"), base).unwrap();
            enrol(&host);
            Self { host, _folder: folder }
        }
    }

    fn enrol(host: &Host) {
        let identity = host.identity_or_new(KeyKind::Ed25519).unwrap();
        let enrolment = Enrolment {
            version: 1,
            relay_url: "https://relay.example:8443".into(),
            tenant: "acme".parse().unwrap(),
            name: "erp".parse().unwrap(),
            sftp_user: "acme.erp".into(),
            spki_pin: Some(Sha256Digest::of(b"a certificate's key")),
            ssh_host_keys: vec![identity.public_line().clone()],
            receipt_key: identity.public_line().clone(),
            announced: None,
        };
        let bytes = serde_json::to_vec(&enrolment).unwrap();
        write_whole(&*host.files, &host.layout.enrolment(), &bytes).unwrap();
    }

    async fn code_of_open(host: &Host) -> Option<Code> {
        host.open(Arc::new(NoWatcher)).await.err().map(|failure| failure.code())
    }

    async fn report_of_open(host: &Host) -> String {
        host.open(Arc::new(NoWatcher)).await.err().map(|failure| failure.report()).unwrap_or_default()
    }

    #[tokio::test]
    async fn what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let host = host(&folder.path().join("state"));
        assert_eq!(code_of_open(&host).await, Some(Code::NotEnrolled));
        enrol(&host);
        assert_eq!(code_of_open(&host).await, None);
        std::fs::remove_file(host.layout.key()).unwrap();
        assert_eq!(code_of_open(&host).await, Some(Code::KeyMissing));
        assert!(report_of_open(&host).await.contains("from your backup"));
    }

    #[test]
    fn the_key_of_an_enrolled_host_is_never_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let host = host(&folder.path().join("state"));
        enrol(&host);
        let public = || std::fs::read(host.layout.state().join("key.pub")).unwrap();
        let before = public();
        assert!(host.identity_or_new(KeyKind::Ed25519).is_ok());
        std::fs::remove_file(host.layout.key()).unwrap();
        let failure = host.identity_or_new(KeyKind::Ed25519).unwrap_err();
        assert_eq!(failure.code(), Code::KeyMissing);
        assert!(failure.report().contains("in a new state folder"), "{}", failure.report());
        assert!(public() == before && !host.layout.key().exists());
    }

    #[tokio::test]
    async fn a_copied_host_stops_until_a_person_confirms_the_move() {
        let folder = tempfile::tempdir().unwrap();
        let host = host(&folder.path().join("state"));
        enrol(&host);
        let elsewhere = host.journal().await.unwrap();
        elsewhere.bind_or_check("the machine it was copied from").await.unwrap();
        elsewhere.close().await;
        assert_eq!(code_of_open(&host).await, Some(Code::HostMoved));
        assert!(report_of_open(&host).await.contains("towpath-agent moved"));
        host.confirm_moved().await.unwrap();
        assert_eq!(code_of_open(&host).await, None);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_state_folder_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let host = host(&folder.path().join("deep/state"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(host.layout.state()), 0o700);
        std::fs::create_dir(folder.path().join("usual")).unwrap();
        assert_eq!(mode(&folder.path().join("deep")), mode(&folder.path().join("usual")), "the service's user passes through it");
        enrol(&host);
        assert_eq!(mode(&host.layout.key()), 0o600);
    }
}
