//! Forward: every file goes to the tenant's app server, the manifest last. The relay sends bytes as they lie; the ends judge them.

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use towpath_journal::{Filter, Journal, JournalError, Lease, MAX_LIST, Step, StepOutcome};
use towpath_transfer::{
    Code, Disposition, Failure, FileName, RemotePath, Stage, TransferEvent,
    api::Landing,
    failure::Result,
    manifest::{MANIFEST_NAME, SIGNATURE_NAME},
    name::InvalidName,
    packed::{MD5SUMS_NAME, PACKED_NAME, PART_SUFFIX},
    state::{MissingFile, Place},
};
use towpath_transport::store::{Far, FileSource, NoProgress, RemoteStore, StoreError, StoreErrorKind};

use super::identity_of;
use crate::{
    scope::{AgentScope, TenantScope},
    spool::{Room, Spool, SpoolFile, blocking},
};

/// How long a refusal of the app server is left alone before the next try: its operator mends it, and nobody here need
/// do anything then.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// After how long without a receipt a forwarded transfer is forwarded again: the app server may have lost it. A transfer
/// that lands twice is imported once.
pub const RECEIPT_OVERDUE: Duration = Duration::from_hours(6);
/// The folder of uplinks below the app server's landing folder.
const UPLINK: &str = "uplink";

/// A tenant's app server, connected.
#[derive(Debug, Clone)]
pub struct AppServer {
    /// Its files.
    pub store: Arc<dyn RemoteStore>,
    /// The folder below which uplinks land, and downlinks are laid out.
    pub folder: RemotePath,
    /// What is known of it, where it is known by the registry.
    pub landing: Option<Landing>,
}

/// Connects to the tenants' app servers.
#[async_trait]
pub trait AppServers: Debug + Send + Sync {
    /// A connection to the app server of a tenant.
    ///
    /// # Errors
    /// [`Code::AppServerMissing`] where the tenant has none, [`Code::AppServerUnreachable`], [`Code::HostKeyUnknown`],
    /// [`Code::AuthenticationRefused`].
    async fn connect(&self, scope: &TenantScope) -> Result<AppServer>;

    /// Whether an app server that was connected to is still the tenant's: the receiver that has named it may have been revoked since, or the
    /// operator may have said another one.
    ///
    /// # Errors
    /// [`Code::AppServerMissing`] (retry) where it is not.
    async fn check(&self, _scope: &TenantScope, _server: &AppServer) -> Result<()> {
        Ok(())
    }

    /// Waits until it is not the tenant's any more, which may be for ever, and says so as [`AppServers::check`] does.
    async fn until_moved(&self, _scope: &TenantScope, _server: &AppServer) -> Failure {
        std::future::pending().await
    }
}

/// Does work with an app server, for as long as it is the tenant's.
///
/// # Errors
/// Those of the work, and of [`AppServers::until_moved`].
pub async fn while_theirs(
    servers: &dyn AppServers,
    scope: &TenantScope,
    server: &AppServer,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    tokio::select! {
        done = work => done,
        moved = servers.until_moved(scope, server) => Err(moved),
    }
}

/// The stage.
#[derive(Debug)]
pub struct Forward {
    spool: Arc<Spool>,
    app_servers: Arc<dyn AppServers>,
}

impl Forward {
    /// The stage over these parts.
    #[must_use]
    pub fn new(spool: Arc<Spool>, app_servers: Arc<dyn AppServers>) -> Self {
        Self { spool, app_servers }
    }

    /// The files to send; or, where the spool does not hold all of them any more, what it lacks.
    async fn files(&self, scope: &AgentScope, lease: &Lease) -> Result<Result<Vec<SpoolFile>, Vec<MissingFile>>> {
        let (travels, id) = (identity_of(lease)?, lease.key().id);
        let (spool, owner) = (Arc::clone(&self.spool), scope.clone());
        blocking(move || {
            let missing = spool.lacking(Room::Uplink, &owner, id, travels)?;
            if !missing.is_empty() {
                return Ok(Err(missing));
            }
            spool.list(Room::Uplink, &owner, id, spool.quota().limits().files_per_transfer).map(Ok)
        })
        .await?
    }

    async fn send(&self, scope: &AgentScope, lease: &Lease, files: Vec<SpoolFile>) -> Result<()> {
        let server = self.app_servers.connect(scope.tenant()).await?;
        while_theirs(&*self.app_servers, scope.tenant(), &server, self.send_to(&server, scope, lease, files)).await
    }

    async fn send_to(&self, server: &AppServer, scope: &AgentScope, lease: &Lease, files: Vec<SpoolFile>) -> Result<()> {
        let (id, store) = (lease.key().id, &server.store);
        let target = target_folder(server.folder.clone(), scope, &id.to_string())
            .map_err(|e| Failure::park(Code::AppServerRefused, "the app server's folder is too deep").caused_by(e))?;
        let failed = |e: StoreError| e.into_failure(Far::AppServer);
        store.make_dir_all(&target).await.map_err(failed)?;
        for file in in_order(files) {
            self.app_servers.check(scope.tenant(), server).await?;
            self.send_file(&**store, &target, scope, lease, &file).await?;
        }
        Ok(())
    }

    async fn send_file(
        &self,
        store: &dyn RemoteStore,
        target: &RemotePath,
        scope: &AgentScope,
        lease: &Lease,
        file: &SpoolFile,
    ) -> Result<()> {
        let too_long = |e: InvalidName| Failure::park(Code::AppServerRefused, "a file's name is too long there").caused_by(e);
        let part = file.name.with_suffix(PART_SUFFIX).and_then(|name| target.clone().join(name)).map_err(too_long)?;
        let name = target.clone().join(file.name.clone()).map_err(too_long)?;
        match store.stat(&name).await {
            // An earlier try has published it: names there are whole.
            Ok(stat) if stat.size == file.size => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == StoreErrorKind::NotFound => {}
            Err(e) => return Err(e.into_failure(Far::AppServer)),
        }
        let source = FileSource::new(
            Arc::clone(self.spool.files()),
            self.spool.path(Room::Uplink, scope, lease.key().id, file.name.as_str()),
        );
        store.put_new(&part, source, &NoProgress).await.map_err(|e| e.into_failure(Far::AppServer))?;
        store.publish(&part, &name).await.map_err(|e| e.into_failure(Far::AppServer))
    }
}

#[async_trait]
impl Step for Forward {
    fn place(&self) -> Place {
        Place::Relay
    }

    fn stage(&self) -> Stage {
        Stage::Forward
    }

    async fn step(&self, lease: &Lease) -> Result<StepOutcome, Failure> {
        let scope = AgentScope::of_lease(lease);
        match self.files(&scope, lease).await? {
            Ok(files) => {
                self.send(&scope, lease, files).await.map_err(patient)?;
                Ok(StepOutcome::Event(TransferEvent::Forwarded))
            }
            Err(missing) => {
                let (transfer, files) = (lease.key(), missing.len());
                tracing::warn!(%transfer, files, "the spool lacks files of an accepted transfer: its agent is asked for them again");
                Ok(StepOutcome::Event(TransferEvent::FoundIncomplete { missing }))
            }
        }
    }
}

/// What an app server refuses, its own operator mends: the relay goes on asking, and shows the trouble meanwhile.
pub(crate) fn patient(failure: Failure) -> Failure {
    let theirs = matches!(
        failure.code(),
        Code::AppServerMissing
            | Code::AppServerUnreachable
            | Code::AppServerRefused
            | Code::HostKeyUnknown
            | Code::AuthenticationRefused
    );
    if !theirs || failure.disposition() == Disposition::Retry {
        return failure;
    }
    Failure::retry(failure.code(), failure.message().to_owned()).after(REFUSED_PAUSE).caused_by(failure)
}

/// Sends everything to [`Stage::Forward`] again that was forwarded at or before `before` and has no receipt yet, and
/// returns how many transfers those were.
///
/// # Errors
/// [`Code::JournalFailed`]; what is left is sent the next time.
pub async fn forward_overdue(journal: &dyn Journal, before: Timestamp) -> Result<usize> {
    let filter = Filter { state: Some("forwarded".to_owned()), ..Filter::default() };
    let (mut again, mut below) = (0, None);
    loop {
        let page = journal.list(&filter, MAX_LIST, below).await.map_err(Failure::from)?;
        for record in page.iter().filter(|record| record.changed <= before) {
            match journal.append_unleased(&record.key, record.events, &TransferEvent::ForwardAgain).await {
                Ok(_) => {
                    tracing::warn!(transfer = %record.key, "no receipt has come: the transfer is forwarded again");
                    again += 1;
                }
                // Its receipt has come in this moment.
                Err(JournalError::Conflict { .. }) => {}
                Err(error @ JournalError::Limit { .. }) => {
                    tracing::warn!(transfer = %record.key, %error, "the transfer cannot be forwarded again by itself");
                }
                Err(error) => return Err(error.into()),
            }
        }
        if page.len() < MAX_LIST {
            return Ok(again);
        }
        below = page.last().map(|record| record.serial);
    }
}

fn target_folder(folder: RemotePath, scope: &AgentScope, id: &str) -> Result<RemotePath, InvalidName> {
    let below = [UPLINK, scope.agent().as_str(), id];
    below.iter().try_fold(folder, |path, name| path.join(name.parse::<FileName>()?))
}

/// Packed files first, `manifest.json` last: with it there, everything is.
fn in_order(mut files: Vec<SpoolFile>) -> Vec<SpoolFile> {
    files.sort_by_key(|file| match file.name.as_str() {
        MD5SUMS_NAME => 1,
        PACKED_NAME => 2,
        SIGNATURE_NAME => 3,
        MANIFEST_NAME => 4,
        _ => 0,
    });
    files
}
