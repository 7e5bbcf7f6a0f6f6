//! The spool as one agent sees it over SFTP: its own root, and nothing else exists.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use tokio::sync::OwnedRwLockWriteGuard;
use towpath_transfer::{Code, RemotePath, TransferId, TransferKey};
use towpath_transport::{
    files::FileStore,
    server::{
        Attributes, FileKind, FsError, FsResult, OpenOptions, Replace, SetAttributes, Space, VirtualFile, VirtualFs,
        VirtualListing,
        stored::{
            FixedListing, FolderGate, FolderNames, LastGate, StoredListing, StoredReader, UploadFolder, Uploads, attributes_of,
            folder_attributes, on_disk, stat_in_folder, told, visible_name,
        },
    },
};

use super::{
    Room, Spool,
    gate::Gate,
    noted::{Missed, note_full, note_refused},
    place::{DOWNLINK, Place, UPLINK, locate},
};
use crate::{
    audit::Witness,
    release::{Offered, UPDATE, is_update},
    scope::AgentScope,
};

/// One agent's root.
#[derive(Debug)]
pub struct AgentView {
    spool: Arc<Spool>,
    scope: AgentScope,
    last: LastGate<TransferKey, Gate>,
    witness: Option<Witness>,
    missed: Missed,
    offered: Option<Offered>,
}

/// One transfer's folder, as uploads change it.
#[derive(Debug)]
struct TransferFolder {
    spool: Arc<Spool>,
    scope: AgentScope,
    id: TransferId,
    gate: Arc<Gate>,
    witness: Option<Witness>,
}

#[async_trait]
impl UploadFolder for TransferFolder {
    fn files(&self) -> &Arc<dyn FileStore> {
        &self.spool.files
    }

    fn path(&self) -> PathBuf {
        self.spool.folder(Room::Uplink, &self.scope, self.id)
    }

    fn gate(&self) -> &FolderGate {
        &self.gate.folder
    }

    fn most_files(&self) -> usize {
        self.spool.quota.limits().files_per_transfer
    }

    async fn check_open(&self) -> FsResult<()> {
        self.spool.check_open(&self.scope, self.id, &self.gate).await
    }

    fn grow(&self, bytes: u64) -> FsResult<()> {
        self.spool.quota.grow(self.scope.tenant(), bytes).map_err(|lack| {
            note_full(self.witness.as_ref(), self.id, lack);
            FsError::Full(lack)
        })
    }

    fn shrink(&self, bytes: u64) {
        self.spool.quota.shrink(self.scope.tenant(), bytes);
    }
}

impl AgentView {
    /// The root of `scope`.
    #[must_use]
    pub fn new(spool: Arc<Spool>, scope: AgentScope) -> Self {
        Self { spool, scope, last: LastGate::default(), witness: None, missed: Missed::default(), offered: None }
    }

    /// The same, with what is refused noted by `witness`.
    #[must_use]
    pub fn witnessed_by(self, witness: Witness) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// The same, with the releases that are approved for its tenant.
    #[must_use]
    pub fn offering(self, offered: Offered) -> Self {
        Self { offered: Some(offered), ..self }
    }

    /// The releases, where a path leads to them. No transfer is among them.
    fn offered(&self, path: &RemotePath) -> FsResult<Option<&Offered>> {
        if !is_update(path) {
            return Ok(None);
        }
        self.suspect(path);
        self.offered.as_ref().map(Some).ok_or(FsError::NotFound)
    }

    /// Releases are there to be read: nothing about them is changed.
    async fn check_changeable(&self, path: &RemotePath) -> FsResult<()> {
        if is_update(path) { Err(self.fixed(path).await) } else { Ok(()) }
    }

    /// What the path means. Whoever leaves its own folders on the way to a transfer may be after someone else's.
    fn place(&self, path: &RemotePath) -> FsResult<Place> {
        self.looked(path, locate(path))
    }

    /// What is not there may be someone else's.
    fn looked<T>(&self, path: &RemotePath, found: FsResult<T>) -> FsResult<T> {
        if matches!(found, Err(FsError::NotFound)) {
            self.suspect(path);
        }
        found
    }

    /// Each transfer that the path names, wherever in it, may be someone else's.
    fn suspect(&self, path: &RemotePath) {
        self.missed.note(self.witness.as_ref(), path.components().iter().map(|name| name.as_str()));
    }

    fn gate(&self, id: TransferId) -> Arc<Gate> {
        self.last.of(&self.scope.key(id), &self.spool.gates)
    }

    fn uploads(&self, id: TransferId) -> Uploads {
        let (spool, scope, gate) = (Arc::clone(&self.spool), self.scope.clone(), self.gate(id));
        Uploads::into(Arc::new(TransferFolder { spool, scope, id, gate, witness: self.witness.clone() }))
    }

    async fn on_spool<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Spool, &AgentScope) -> FsResult<T> + Send + 'static,
    ) -> FsResult<T> {
        let (spool, scope) = (Arc::clone(&self.spool), self.scope.clone());
        on_disk(move || work(&spool, &scope)).await
    }

    /// Why something that an agent cannot change is not changed: it is not there, or it stays as it is.
    async fn fixed(&self, path: &RemotePath) -> FsError {
        if self.stat(path).await.is_ok() { FsError::Denied } else { FsError::NotFound }
    }

    /// The gate alone, with the folder open for changes.
    async fn alone(&self, id: TransferId, gate: &Gate) -> FsResult<OwnedRwLockWriteGuard<FolderNames>> {
        let alone = gate.folder.alone().await;
        self.spool.check_open(&self.scope, id, gate).await?;
        Ok(alone)
    }

    async fn rename_within(&self, from: &RemotePath, to: &RemotePath, replace: Replace) -> FsResult<()> {
        self.check_changeable(from).await?;
        self.check_changeable(to).await?;
        let (Place::File(Room::Uplink, id, old), Place::File(Room::Uplink, other, new)) = (self.place(from)?, self.place(to)?)
        else {
            return Err(self.fixed(from).await);
        };
        self.stat(from).await?;
        if id != other {
            return Err(FsError::Denied);
        }
        self.uploads(id).rename(old, new, replace).await
    }

    /// How many folders of this agent are not complete yet, counted no further than `most`.
    async fn open_transfers(&self, most: usize) -> FsResult<usize> {
        let (mut open, mut after) = (0, None::<String>);
        loop {
            let from = after.clone();
            let (ids, next) =
                self.on_spool(move |spool, scope| spool.folders(scope, from.as_deref()).map_err(|e| told(&e))).await?;
            for id in ids {
                let still = self.spool.is_open(&self.scope.key(id)).await;
                open += usize::from(still.map_err(|e| unavailable(&e))?);
                if open >= most {
                    return Ok(open);
                }
            }
            if next.is_none() {
                return Ok(open);
            }
            after = next;
        }
    }
}

fn unavailable(failure: &towpath_transfer::Failure) -> FsError {
    tracing::warn!(code = %failure.code(), error = %failure.report(), "the journal could not be asked");
    FsError::Failure("the relay cannot answer now; try again later".to_owned())
}

impl Spool {
    /// Whether the folder may be changed; to be asked with its gate held.
    pub(super) async fn check_open(&self, scope: &AgentScope, id: TransferId, gate: &Gate) -> FsResult<()> {
        if gate.known_open() {
            return Ok(());
        }
        match self.is_open(&scope.key(id)).await {
            Ok(true) => {
                gate.found_open();
                Ok(())
            }
            Ok(false) => Err(FsError::Denied),
            Err(failure) => Err(unavailable(&failure)),
        }
    }
}

#[async_trait]
impl VirtualFs for AgentView {
    async fn stat(&self, path: &RemotePath) -> FsResult<Attributes> {
        if let Some(offered) = self.offered(path)? {
            return offered.stat(path).await;
        }
        let disk: PathBuf = match self.place(path)? {
            Place::Root | Place::Transfers(_) => return Ok(folder_attributes()),
            Place::Transfer(room, id) => self.spool.folder(room, &self.scope, id),
            Place::File(room, id, name) => self.spool.path(room, &self.scope, id, name.as_str()),
        };
        let found = self.on_spool(move |spool, _| attributes_of(&stat_in_folder(&*spool.files, &disk).map_err(|e| told(&e))?));
        self.looked(path, found.await)
    }

    async fn open(&self, path: &RemotePath, options: OpenOptions, _: &SetAttributes) -> FsResult<Box<dyn VirtualFile>> {
        if let Some(offered) = self.offered(path)? {
            return if options.write || options.append { Err(self.fixed(path).await) } else { offered.open(path).await };
        }
        let Place::File(room, id, name) = self.place(path)? else { return Err(self.fixed(path).await) };
        match room {
            Room::Uplink if options.write || options.append => {
                return self.looked(path, self.uploads(id).open(name, options).await);
            }
            _ if options.write || options.append => {
                let folder = path.parent().ok_or(FsError::NotFound)?;
                return Err(self.fixed(&folder).await);
            }
            _ => {}
        }
        let disk = self.spool.path(room, &self.scope, id, name.as_str());
        let reader = self.on_spool(move |spool, _| StoredReader::open(&*spool.files, &disk)).await;
        let reader = self.looked(path, reader);
        if room == Room::Downlink && matches!(reader, Err(FsError::NotFound)) {
            self.spool.mend_queued(&self.scope, id).await.map_err(|e| unavailable(&e))?;
        }
        Ok(Box::new(reader?))
    }

    async fn list(&self, path: &RemotePath) -> FsResult<Box<dyn VirtualListing>> {
        if let Some(offered) = self.offered(path)? {
            return offered.list(path).await;
        }
        let (dir, shows): (PathBuf, fn(&str, FileKind) -> bool) = match self.place(path)? {
            Place::Root => {
                let releases = match &self.offered {
                    Some(offered) => offered.is_any().await,
                    None => false,
                };
                let names: &[&str] = if releases { &[DOWNLINK, UPDATE, UPLINK] } else { &[DOWNLINK, UPLINK] };
                return Ok(Box::new(FixedListing::new(names)));
            }
            // The folder of an agent that has never sent or got anything is not on disk yet.
            Place::Transfers(room) => (self.spool.room(room, &self.scope), is_transfer),
            Place::Transfer(room, id) => {
                self.stat(path).await?;
                (self.spool.folder(room, &self.scope, id), is_file)
            }
            Place::File(..) => {
                self.stat(path).await?;
                return Err(FsError::Failure("Not a directory".to_owned()));
            }
        };
        Ok(Box::new(StoredListing::new(Arc::clone(&self.spool.files), dir, shows)))
    }

    async fn make_dir(&self, path: &RemotePath, _: &SetAttributes) -> FsResult<()> {
        self.check_changeable(path).await?;
        let id = match self.place(path)? {
            Place::Root | Place::Transfers(_) => return Err(FsError::Exists),
            Place::Transfer(Room::Uplink, id) => id,
            Place::Transfer(..) if self.stat(path).await.is_ok() => return Err(FsError::Exists),
            Place::Transfer(..) | Place::File(..) => return self.looked(path, Err(FsError::NotFound)),
        };
        if self.stat(path).await.is_ok() {
            return Err(FsError::Exists);
        }
        let most = self.spool.quota.limits().open_transfers;
        if self.open_transfers(most).await? >= most {
            note_refused(self.witness.as_ref(), id, Code::LimitExceeded);
            return Err(FsError::Failure(format!("at most {most} transfers can be open at once")));
        }
        let gate = self.gate(id);
        let _alone = self.alone(id, &gate).await?;
        let made = self.on_spool(move |spool, scope| {
            spool.quota.grow(scope.tenant(), 0).map_err(FsError::Full)?;
            spool.files.create_dir_all(&spool.folder(Room::Uplink, scope, id)).map_err(|e| told(&e))
        });
        let made = made.await;
        if let Err(FsError::Full(lack)) = made {
            note_full(self.witness.as_ref(), id, lack);
        }
        made
    }

    async fn remove_dir(&self, path: &RemotePath) -> FsResult<()> {
        self.check_changeable(path).await?;
        let id = match self.place(path)? {
            Place::Transfer(Room::Uplink, id) => id,
            Place::File(..) => return self.looked(path, Err(FsError::NotFound)),
            _ => return Err(self.fixed(path).await),
        };
        self.stat(path).await?;
        let gate = self.gate(id);
        let _alone = self.alone(id, &gate).await?;
        self.on_spool(move |spool, scope| spool.files.remove_dir(&spool.folder(Room::Uplink, scope, id)).map_err(|e| told(&e)))
            .await
    }

    async fn remove(&self, path: &RemotePath) -> FsResult<()> {
        self.check_changeable(path).await?;
        let Place::File(Room::Uplink, id, name) = self.place(path)? else { return Err(self.fixed(path).await) };
        self.stat(path).await?;
        self.uploads(id).remove(name).await
    }

    async fn rename(&self, from: &RemotePath, to: &RemotePath, replace: Replace) -> FsResult<()> {
        let renamed = self.rename_within(from, to, replace).await;
        if renamed.is_err() {
            self.suspect(to);
        }
        renamed
    }

    /// Accepted and ignored: a spool has no owners, modes or times of its own.
    async fn set_attributes(&self, path: &RemotePath, _: &SetAttributes, _follow: bool) -> FsResult<()> {
        self.stat(path).await.map(|_| ())
    }

    // A spool has no links and tells nobody its room; whoever tries them on someone else's is noted all the same.

    async fn read_link(&self, path: &RemotePath) -> FsResult<String> {
        self.suspect(path);
        Err(FsError::Unsupported)
    }

    async fn symlink(&self, target: &str, link: &RemotePath) -> FsResult<()> {
        self.missed.note(self.witness.as_ref(), target.split('/'));
        self.suspect(link);
        Err(FsError::Unsupported)
    }

    async fn hard_link(&self, existing: &RemotePath, new: &RemotePath) -> FsResult<()> {
        self.suspect(existing);
        self.suspect(new);
        Err(FsError::Unsupported)
    }

    async fn space(&self, path: &RemotePath) -> FsResult<Space> {
        self.suspect(path);
        Err(FsError::Unsupported)
    }
}

fn is_transfer(name: &str, kind: FileKind) -> bool {
    kind == FileKind::Directory && name.parse::<TransferId>().is_ok()
}

fn is_file(name: &str, kind: FileKind) -> bool {
    kind == FileKind::File && visible_name(name).is_some()
}
