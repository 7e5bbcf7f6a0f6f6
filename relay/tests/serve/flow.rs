//! A whole relay on loopback: its one port, its stages, an app server of plain SFTP, and a revocation by another process.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use towpath_journal::{
    NoFailPoints,
    system::{SystemClock, SystemEntropy},
};
use towpath_keys::{Identity, KeyKind, Namespace, TokenClaims, sign_enrolment};
use towpath_relay::{
    config::Config,
    host::{Host, Listening},
    registry::{NewEnrolment, Registry},
};
use towpath_transfer::{
    Clock, Code, Direction, Entropy, RemotePath, Sequence, TransferId,
    api::{AppReceipt, Complete, EnrolmentAnswer, EnrolmentCode, EnrolmentRequest, Landing, Role, UplinkState, UplinkStatus},
    digest::{FileHasher, Sha256Digest},
    failure::Result,
    manifest::{Content, FileEntry, Manifest},
    packed::{PackedFile, PackedList},
    public_key::PublicKeyLine,
    receipt::{Receipt, ReceiptStage, SignedReceipt},
};
use towpath_transport::{
    client::{SftpLogin, SftpStore},
    dial::{Dialer, Route, Trust},
    relay_api::{HttpRelayApi, RelayApi as _, TokenSource},
    server::{Authenticator, HostKey, Limits, PlainDirectory, Session, SshServer, SshServerConfig},
    store::{BytesSource, NoProgress, RemoteStore as _, StoreErrorKind},
};

/// Longer than anything here takes; what waits for it is told by a message, not by time.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

pub(super) fn entropy() -> Arc<dyn Entropy> {
    Arc::new(SystemEntropy::new())
}

/// A running relay.
pub(super) struct Running {
    pub(super) url: String,
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) host: Host,
    serving: Serving,
}

enum Serving {
    /// In this process.
    Here(CancellationToken, JoinHandle<Result<()>>),
    /// The program, in a process of its own.
    Apart(Program),
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself, and nobody waits for it here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    async fn host(state: &Path) -> (Host, SocketAddr) {
        // The public URL names the port, so the port must be known before; nobody else takes it in between, most likely.
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut config = Config::default();
        config.relay.public_url = format!("https://{free}");
        config.relay.listen = vec![free];
        config.relay.admin = "127.0.0.1:0".parse().unwrap();
        (Host { config, state: state.to_owned(), clock: clock(), entropy: entropy() }, free)
    }

    pub(super) async fn start(state: &Path) -> Self {
        let (host, _) = Self::host(state).await;
        let url = host.config.relay.public_url.clone();
        let (shutdown, (ready, is_ready)) = (CancellationToken::new(), oneshot::channel::<Listening>());
        let (serving, stop) = (host.clone(), shutdown.clone());
        let serving = tokio::spawn(async move {
            let told = |listening: &Listening| ready.send(listening.clone()).unwrap();
            serving.serve(Arc::new(NoFailPoints), stop, told).await
        });
        let listening = is_ready.await.unwrap();
        let serving = Serving::Here(shutdown, serving);
        Self { url, address: listening.listen[0], admin: listening.admin, host, serving }
    }

    /// The program `towpath-relay`, in a process of its own.
    pub(super) async fn start_program(state: &Path) -> Self {
        let (host, free) = Self::host(state).await;
        let (url, file) = (host.config.relay.public_url.clone(), state.join("relay.toml"));
        let text = format!("[relay]\npublic_url = \"{url}\"\nlisten = [\"{free}\"]\nadmin = \"127.0.0.1:0\"\n");
        std::fs::write(&file, text).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_towpath-relay"));
        program.arg("--config").arg(&file).arg("--state").arg(state).arg("serve").stdout(Stdio::null()).stderr(Stdio::null());
        let serving = Serving::Apart(Program(program.spawn().unwrap()));
        let listening: Listening = within(async {
            loop {
                let told = std::fs::read(state.join("listening.json")).ok();
                if let Some(listening) = told.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
                    return listening;
                }
                clock().sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        Self { url, address: listening.listen[0], admin: listening.admin, host, serving }
    }

    /// The process that serves.
    pub(super) fn process(&self) -> u32 {
        match &self.serving {
            Serving::Here(..) => std::process::id(),
            Serving::Apart(program) => program.0.id(),
        }
    }

    pub(super) async fn registry(&self) -> Registry {
        self.host.registry().await.unwrap()
    }

    pub(super) fn trust(&self) -> Trust {
        Trust::Pinned(vec![self.host.certificate().unwrap().pin.unwrap()])
    }

    async fn code(&self, tenant: &str, role: Role) -> EnrolmentCode {
        let registry = self.registry().await;
        let scope = registry.operator_scope(&tenant.parse().unwrap()).await.unwrap();
        let new = NewEnrolment { role, name: None, valid_for: PATIENCE, relay_url: self.url.clone(), spki_pin: None };
        registry.create_enrolment(&scope, new).await.unwrap().0
    }

    pub(super) async fn enrol(&self, role: Role, kind: KeyKind) -> End {
        self.enrol_in("acme", role, kind).await
    }

    pub(super) async fn enrol_in(&self, tenant: &str, role: Role, kind: KeyKind) -> End {
        let (code, identity) = (self.code(tenant, role).await, Identity::generate(kind, &*entropy()).unwrap());
        let request = EnrolmentRequest {
            tenant: code.tenant.clone(),
            role,
            secret: code.secret.clone(),
            public_key: identity.public_line().clone(),
            proof: sign_enrolment(&identity, code.secret.as_bytes(), &self.url).unwrap(),
            landing: None,
        };
        let anonymous = HttpRelayApi::new(&self.url, &self.trust(), None, clock()).unwrap();
        let answer = anonymous.enrol(&request).await.unwrap();
        let tokens = Tokens { identity: identity.clone(), user: answer.sftp_user.clone() };
        let api = HttpRelayApi::new(&self.url, &self.trust(), Some(Arc::new(tokens)), clock()).unwrap();
        End { identity, answer, api }
    }

    pub(super) async fn sftp(&self, end: &End, route: Route) -> towpath_transport::store::StoreResult<SftpStore> {
        let dialer = Dialer::new(&self.trust(), clock()).unwrap();
        let stream = dialer.dial(route, "127.0.0.1", self.address.port()).await.unwrap();
        end.log_in(stream).await
    }

    pub(super) async fn stop(self) {
        if let Serving::Here(shutdown, serving) = self.serving {
            shutdown.cancel();
            within(serving).await.unwrap().unwrap();
        }
    }
}

#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) identity: Identity,
    pub(super) user: String,
}

impl TokenSource for Tokens {
    fn token(&self, audience: &str, now: jiff::Timestamp) -> Result<String> {
        self.identity.token(&TokenClaims::new(&self.user, audience, now, &*entropy()))
    }
}

pub(super) struct End {
    pub(super) identity: Identity,
    pub(super) answer: EnrolmentAnswer,
    pub(super) api: HttpRelayApi,
}

impl End {
    pub(super) async fn log_in<T>(&self, stream: T) -> towpath_transport::store::StoreResult<SftpStore>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let login = SftpLogin {
            user: self.answer.sftp_user.clone(),
            public_key: self.identity.public_key().to_ssh().unwrap(),
            signer: self.identity.ssh_signer().unwrap(),
            host_keys: self.answer.ssh_host_keys.clone().into(),
        };
        SftpStore::connect(stream, login, clock()).await
    }
}

pub(super) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes longer than anything here may")
}

/// Asks until the uplink stands as expected.
pub(super) async fn until(api: &HttpRelayApi, id: TransferId, state: UplinkState) -> UplinkStatus {
    within(async {
        loop {
            let status = api.uplink(id).await.unwrap();
            if status.state == state {
                return status;
            }
            clock().sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// Admits one key to one folder.
struct OnlyRelay {
    key: PublicKeyLine,
    view: Arc<PlainDirectory>,
}

#[async_trait]
impl Authenticator for OnlyRelay {
    async fn authenticate(&self, user: &str, key: &PublicKeyLine, _: SocketAddr) -> Option<Session> {
        let known = user == "relay" && *key == self.key;
        known.then(|| Session::general(self.view.clone(), CancellationToken::new()))
    }
}

/// An app server that is plain SFTP over a folder.
pub(super) async fn app_server(root: &Path, key: PublicKeyLine) -> Landing {
    let host_key = HostKey::ed25519_from_seed(&[9; 32]);
    let pinned = host_key.public_key().unwrap();
    let config = SshServerConfig { host_keys: vec![host_key], limits: Limits::default(), clock: clock() };
    let server = SshServer::new(config, Arc::new(OnlyRelay { key, view: Arc::new(PlainDirectory::new(root)) })).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            tokio::spawn(server.serve_stream(stream, peer));
        }
    });
    Landing {
        host: "127.0.0.1".into(),
        port: address.port(),
        user: "relay".into(),
        folder: "/landing".into(),
        host_keys: vec![pinned],
    }
}

pub(super) fn uplink(end: &End) -> (TransferId, Vec<(String, Vec<u8>)>, Complete) {
    let id = TransferId::new(&*clock(), &*entropy());
    let (plain, packed) = (b"a\r\n1\r\n".as_slice(), vec![0x5a; 3_000_000]);
    let mut hasher = FileHasher::new();
    hasher.update(plain);
    let digests = hasher.finish();
    let manifest = Manifest {
        version: 1,
        transfer: id,
        direction: Direction::Uplink,
        tenant: end.answer.tenant.clone(),
        agent: end.answer.name.clone(),
        job: "main".parse().unwrap(),
        created: clock().now(),
        sequence: Sequence(1),
        snapshot: None,
        kind: None,
        files: vec![FileEntry {
            name: "items.csv".parse().unwrap(),
            media_type: "text/csv".into(),
            size: digests.size,
            md5: digests.md5,
            sha256: digests.sha256,
            unchanged: false,
            base: None,
            content: Content::File,
        }],
    };
    let manifest = manifest.to_bytes().unwrap();
    let digest = Sha256Digest::of(&manifest);
    let name = "items.csv.bz2".parse().unwrap();
    let file = PackedFile { name, size: packed.len() as u64, sha256: Sha256Digest::of(&packed) };
    let list = PackedList { version: 1, transfer: id, manifest: digest, files: vec![file] }.to_bytes().unwrap();
    let complete = Complete { manifest: digest, packed: Sha256Digest::of(&list) };
    let signature = end.identity.sign(Namespace::Manifest, &manifest).unwrap().into_bytes();
    let files = vec![
        ("items.csv.bz2".to_owned(), packed),
        ("MD5SUMS".to_owned(), format!("{}  items.csv\n", digests.md5).into_bytes()),
        ("packed.json".to_owned(), list),
        ("manifest.json.sig".to_owned(), signature),
        ("manifest.json".to_owned(), manifest),
    ];
    (id, files, complete)
}

pub(super) fn at(text: &str) -> RemotePath {
    RemotePath::parse(text.as_bytes()).unwrap()
}

pub(super) fn imported(receiver: &End, agent: &End, id: TransferId, manifest: Sha256Digest) -> AppReceipt {
    let receipt = Receipt {
        version: 1,
        transfer: id,
        tenant: agent.answer.tenant.clone(),
        agent: agent.answer.name.clone(),
        direction: Direction::Uplink,
        stage: ReceiptStage::Imported,
        manifest: Some(manifest),
        rows: Vec::new(),
        reason: None,
        time: clock().now(),
        signer: receiver.identity.fingerprint(),
    };
    let bytes = receipt.to_bytes().unwrap();
    let signature = receiver.identity.sign(Namespace::Receipt, &bytes).unwrap();
    let signed = SignedReceipt { receipt: String::from_utf8(bytes).unwrap(), signature };
    AppReceipt { agent: agent.answer.name.clone(), transfer: id, signed }
}

pub(super) async fn asked(admin: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uplink_goes_through_a_real_relay_by_both_routes() {
    let (state, landing) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let relay = Running::start(state.path()).await;
    let registry = relay.registry().await;
    let scope = registry.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    let agent = relay.enrol(Role::Agent, KeyKind::Rsa2048).await;
    let receiver = relay.enrol(Role::Receiver, KeyKind::Ed25519).await;
    let app = app_server(landing.path(), agent.answer.forward_key.clone()).await;
    std::fs::create_dir(landing.path().join("landing")).unwrap();

    let (id, files, complete) = uplink(&agent);
    let folder = format!("/uplink/{id}");
    for (n, (name, bytes)) in files.iter().enumerate() {
        let route = if n % 2 == 0 { Route::SshInTls } else { Route::Ssh };
        let sftp = within(relay.sftp(&agent, route)).await.unwrap();
        sftp.make_dir_all(&at(&folder)).await.unwrap();
        let part = at(&format!("{folder}/{name}.part"));
        sftp.put_new(&part, BytesSource::new(bytes.clone()), &NoProgress).await.unwrap();
        sftp.publish(&part, &at(&format!("{folder}/{name}"))).await.unwrap();
    }
    agent.api.complete(id, &complete).await.unwrap();
    until(&agent.api, id, UplinkState::Accepted).await;
    // The tenant gets its app server only now: what waited for it goes on by itself.
    registry.set_landing(&scope, &app).await.unwrap();
    until(&agent.api, id, UplinkState::Forwarded).await;
    for (name, bytes) in &files {
        let landed = landing.path().join(format!("landing/uplink/agent/{id}/{name}"));
        assert!(std::fs::read(landed).unwrap() == *bytes, "{name}");
    }
    let receipt = imported(&receiver, &agent, id, complete.manifest);
    receiver.api.post_receipt(&receipt).await.unwrap();
    let status = until(&agent.api, id, UplinkState::Imported).await;
    assert_eq!(status.receipts.len(), 2);
    assert_eq!(agent.api.peers().await.unwrap().peers[0].public_key, *receiver.identity.public_line());

    assert!(asked(relay.admin, "/readyz").await.ends_with("ready\n"));
    let metrics = asked(relay.admin, "/metrics").await;
    assert!(metrics.contains("towpath_relay_transfers{parked=\"false\",stage=\"remove\",state=\"imported\"} 1"), "{metrics}");
    assert!(metrics.contains("towpath_relay_stage_seconds_count{result=\"done\",stage=\"forward\"} 1"), "{metrics}");
    assert!(metrics.contains("towpath_relay_spool_bytes 3"), "{metrics}");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_by_another_process_ends_the_session_and_every_call() {
    let state = tempfile::tempdir().unwrap();
    let relay = Running::start(state.path()).await;
    let registry = relay.registry().await;
    let scope = registry.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    let agent = relay.enrol(Role::Agent, KeyKind::Ed25519).await;
    let receiver = relay.enrol(Role::Receiver, KeyKind::Ed25519).await;
    let sftp = relay.sftp(&agent, Route::Ssh).await.unwrap();
    sftp.list(&at("/uplink"), 10).await.unwrap();
    let as_agent = relay.sftp(&receiver, Route::Ssh).await.unwrap_err();
    assert_eq!(as_agent.kind(), StoreErrorKind::AuthenticationRefused, "a receiver has no uplinks of its own");

    registry.revoke(&scope, &agent.answer.name).await.unwrap();
    within(async {
        while sftp.list(&at("/uplink"), 10).await.is_ok() {
            clock().sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let again = relay.sftp(&agent, Route::Ssh).await.unwrap_err();
    assert_eq!(again.kind(), StoreErrorKind::AuthenticationRefused);
    assert_eq!(agent.api.peers().await.unwrap_err().code(), Code::AgentRevoked);
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_service_for_a_state_folder_and_a_restart_keeps_its_identity() {
    let state = tempfile::tempdir().unwrap();
    let relay = Running::start(state.path()).await;
    let second = relay.host.serve(Arc::new(NoFailPoints), CancellationToken::new(), |_| {}).await.unwrap_err();
    assert_eq!(second.code(), Code::AlreadyRunning);
    let pin = relay.host.certificate().unwrap().pin;
    let keys = relay.host.host_keys().unwrap().public_lines().to_vec();
    assert!(state.path().join("listening.json").exists());
    relay.stop().await;
    assert!(!state.path().join("listening.json").exists());
    let relay = Running::start(state.path()).await;
    assert_eq!((relay.host.certificate().unwrap().pin, relay.host.host_keys().unwrap().public_lines()), (pin, &*keys));
    relay.stop().await;
}
