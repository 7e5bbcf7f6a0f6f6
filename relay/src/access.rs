//! What a restored registry must not undo: revocations, codes that were used or withdrawn, and keys that have followed others.
//!
//! Each is also a line of `access.jsonl` in the state folder, which only ever grows and which nobody puts back from a backup: when
//! the relay starts, whatever stands there and not in the registry is carried out again, before anybody can log in.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use towpath_transfer::{
    AgentName, Clock, Code, Failure, TenantName, api::KeyRotation, digest::Sha256Digest, failure::Result, public_key::Fingerprint,
};
use towpath_transport::files::{FileStore, file_failure, read_if_there, write_whole};

use crate::{
    audit::{Action, Entry, Who},
    registry::{MAX_ENROLMENT_LIFE, Registry},
    scope::TenantScope,
    spool::blocking,
};

/// The most bytes of the list that are read. A line is some 200 bytes, one of a changed key up to 5 kB; lines of codes go with the
/// longest life of a code, and those of keys with 400 days.
pub const MAX_ACCESS_BYTES: u64 = 256 * 1024 * 1024;
/// How long changes of keys are remembered: nobody puts back an older backup and finds his agents there.
const CHANGES_KEPT: Duration = Duration::from_hours(400 * 24);
const NAME: &str = "access.jsonl";

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "did", rename_all = "lowercase")]
pub enum Access {
    /// An end was revoked.
    Revoked {
        /// Its tenant.
        tenant: TenantName,
        /// Its name.
        name: AgentName,
        /// Its key.
        key: Fingerprint,
    },
    /// A code was used, or withdrawn: either way nobody enrols with it any more.
    Redeemed {
        /// The SHA-256 of its secret.
        code: Sha256Digest,
    },
    /// An end has taken a new key, and has no other any more.
    Rotated {
        /// Its tenant.
        tenant: TenantName,
        /// Its name.
        name: AgentName,
        /// The change, which proves itself.
        rotation: Box<KeyRotation>,
    },
}

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    at: Timestamp,
    #[serde(flatten)]
    access: Access,
}

/// What was carried out again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Ends that were revoked again.
    pub revoked: usize,
    /// Codes that were closed again.
    pub closed: usize,
    /// Keys that were changed again.
    pub rotated: usize,
}

/// The list.
#[derive(Debug, Clone)]
pub struct AccessLog {
    files: Arc<dyn FileStore>,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// The codes that are known to be in the list. 32 bytes for each that was used since the relay started or in the longest life of a
    /// code before.
    redeemed: Arc<Mutex<HashSet<Sha256Digest>>>,
    /// Held while the file is written: two lines at once would have one end to begin at.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl AccessLog {
    /// The list in the folder `state`.
    #[must_use]
    pub fn new(files: Arc<dyn FileStore>, state: &std::path::Path, clock: Arc<dyn Clock>) -> Self {
        Self { files, path: state.join(NAME), clock, redeemed: Arc::default(), writing: Arc::default() }
    }

    /// Adds a line, durably. To be called before what it says is done: a line too many is carried out when the relay starts.
    ///
    /// # Errors
    /// [`Code::FileFailed`], [`Code::DiskFull`].
    pub async fn note(&self, access: Access) -> Result<()> {
        let mut bytes = line(&Line { at: self.clock.now(), access })?;
        let _alone = self.writing.lock().await;
        let (files, path) = (Arc::clone(&self.files), self.path.clone());
        blocking(move || {
            let failed = |e| file_failure("write", &path, e);
            let new = files.stat(&path).is_err();
            // A line that a power cut has left half of must not swallow this one.
            bytes.insert(0, b'\n');
            let mut file = files.open_append(&path).map_err(failed)?;
            file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
            match path.parent() {
                Some(folder) if new => files.sync_dir(folder).map_err(failed),
                _ => Ok(()),
            }
        })
        .await?
    }

    /// Adds a line for a code that was used, durably, unless there is one already. To be called whenever that code is used, also by the
    /// same key again: the time before may have failed, or was given up, between the use and its line.
    ///
    /// # Errors
    /// As [`AccessLog::note`].
    pub async fn note_redeemed(&self, code: Sha256Digest) -> Result<()> {
        if self.redeemed().contains(&code) {
            return Ok(());
        }
        self.note(Access::Redeemed { code }).await?;
        self.redeemed().insert(code);
        Ok(())
    }

    fn redeemed(&self) -> MutexGuard<'_, HashSet<Sha256Digest>> {
        self.redeemed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out again what the registry does not know any more, and says so where there was something. Lines of codes that
    /// cannot be open any more go.
    ///
    /// # Errors
    /// [`Code::FileFailed`], [`Code::LimitExceeded`] beyond [`MAX_ACCESS_BYTES`].
    pub async fn replay(&self, registry: &Registry) -> Result<Replayed> {
        let reader = self.clone();
        let lines = blocking(move || reader.lines()).await??;
        let mut replayed = Replayed::default();
        for line in &lines {
            match &line.access {
                Access::Revoked { tenant, name, key } => {
                    replayed.revoked += usize::from(revoke(registry, tenant, name, key).await?);
                }
                Access::Redeemed { code } => {
                    replayed.closed += usize::from(registry.close_code(code).await?);
                    self.redeemed().insert(*code);
                }
                Access::Rotated { tenant, name, rotation } => {
                    replayed.rotated += usize::from(rotate(registry, tenant, name, rotation).await?);
                }
            }
        }
        if replayed != Replayed::default() {
            let Replayed { revoked, closed, rotated } = replayed;
            tracing::error!(
                code = %Code::RelayRestored, revoked, closed, rotated,
                "the registry was put back from a backup: what was revoked, used up or changed since is so again"
            );
            let told = Entry::new(self.clock.now(), Who::relay(), Action::Restored);
            registry
                .audit_append(
                    &[told.detail(format!("{revoked} revoked, {closed} codes closed and {rotated} keys changed again"))],
                )
                .await?;
        }
        self.shorten().await?;
        Ok(replayed)
    }

    /// The list is read anew: what was noted while it was carried out must stay.
    async fn shorten(&self) -> Result<()> {
        let _alone = self.writing.lock().await;
        let reader = self.clone();
        let lines = blocking(move || reader.lines()).await??;
        let now = self.clock.now();
        let within = |line: &Line, life: Duration| now.saturating_sub(life).is_ok_and(|old| line.at > old);
        let counts = |line: &&Line| match line.access {
            Access::Revoked { .. } => true,
            Access::Redeemed { .. } => within(line, MAX_ENROLMENT_LIFE),
            Access::Rotated { .. } => within(line, CHANGES_KEPT),
        };
        let kept: Vec<&Line> = lines.iter().filter(counts).collect();
        if kept.len() == lines.len() {
            return Ok(());
        }
        let bytes = kept.into_iter().map(line).collect::<Result<Vec<_>>>()?.concat();
        let (files, path) = (Arc::clone(&self.files), self.path.clone());
        blocking(move || write_whole(&*files, &path, &bytes).map_err(|e| file_failure("write", &path, e))).await?
    }

    /// Every line that can be read; half a line is what a power cut has left of one whose work was never done.
    fn lines(&self) -> Result<Vec<Line>> {
        let bytes = read_if_there(&*self.files, &self.path, MAX_ACCESS_BYTES).map_err(|e| file_failure("read", &self.path, e))?;
        let bytes = bytes.unwrap_or_default();
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

fn line(line: &Line) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line).map_err(|e| Failure::park(Code::Internal, "write a line as JSON").caused_by(e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The scope of a tenant, where the registry still has it.
async fn scope_of(registry: &Registry, tenant: &TenantName) -> Result<Option<TenantScope>> {
    match registry.operator_scope(tenant).await {
        Err(failure) if failure.code() == Code::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Whether there was a key to change: the same end with the same old key.
async fn rotate(registry: &Registry, tenant: &TenantName, name: &AgentName, rotation: &KeyRotation) -> Result<bool> {
    match scope_of(registry, tenant).await? {
        Some(scope) => registry.rotate_again(&scope, name, rotation).await,
        None => Ok(false),
    }
}

/// Whether there was something to revoke: the same end with the same key.
async fn revoke(registry: &Registry, tenant: &TenantName, name: &AgentName, key: &Fingerprint) -> Result<bool> {
    let Some(scope) = scope_of(registry, tenant).await? else { return Ok(false) };
    let end = registry.end(&scope, name).await?;
    if end.is_none_or(|end| end.revoked.is_some() || !end.has_key(key)) {
        return Ok(false);
    }
    registry.revoke(&scope, name).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use towpath_keys::{RotatingEnd, sign_rotation};
    use towpath_transfer::api::Role;
    use towpath_transport::files::{FaultFiles, FileFault, FileOp, MemoryFiles};

    use super::*;
    use crate::{
        registry::AuditFilter,
        service::tests::{Enrolled, World},
    };

    struct Scene {
        world: World,
        files: MemoryFiles,
        log: AccessLog,
    }

    impl Scene {
        async fn new() -> Self {
            let (world, files) = (World::new().await, MemoryFiles::new());
            let log = AccessLog::new(Arc::new(files.clone()), "/".as_ref(), Arc::new(world.clock.clone()));
            Self { world, files, log }
        }

        fn registry(&self) -> &Registry {
            self.world.service().registry()
        }
    }

    #[tokio::test]
    async fn what_a_registry_that_was_put_back_has_forgotten_is_done_again() {
        let scene = Scene::new().await;
        let (erp, other) = (scene.world.enrol("acme", Role::Agent).await, scene.world.enrol("acme", Role::Receiver).await);
        let code = scene.world.code("acme", Role::Agent).await;
        let tenant: TenantName = "acme".parse().unwrap();
        let revoked = |name: &AgentName, key| Access::Revoked { tenant: tenant.clone(), name: name.clone(), key };
        // The registry is the one of the night; the list is of the day.
        scene.log.note(revoked(erp.caller.name(), erp.caller.key().fingerprint())).await.unwrap();
        scene.log.note(revoked(other.caller.name(), erp.caller.key().fingerprint())).await.unwrap();
        scene.log.note(revoked(&"gone".parse().unwrap(), erp.caller.key().fingerprint())).await.unwrap();
        scene.log.note(Access::Redeemed { code: Sha256Digest::of(code.secret.as_bytes()) }).await.unwrap();
        let done = Replayed { revoked: 1, closed: 1, rotated: 0 };
        assert_eq!(scene.log.replay(scene.registry()).await.unwrap(), done);
        let out =
            async |end: &Enrolled| scene.registry().is_out(&end.caller.user(), &end.caller.key().fingerprint()).await.unwrap();
        assert_eq!(out(&erp).await, Some(Code::AgentRevoked));
        assert_eq!(out(&other).await, None, "another key has that name now");
        let told = scene.registry().audit_rows(&AuditFilter::default(), 1).await.unwrap();
        assert_eq!(
            (told[0].action.as_str(), told[0].detail.as_str()),
            ("restored", "1 revoked, 1 codes closed and 0 keys changed again")
        );
        assert_eq!(scene.log.replay(scene.registry()).await.unwrap(), Replayed::default(), "once");
    }

    #[tokio::test]
    async fn keys_that_were_changed_since_are_changed_again_before_they_are_revoked() {
        let scene = Scene::new().await;
        let erp = scene.world.enrol("acme", Role::Agent).await;
        let (user, next) = (erp.caller.user(), scene.world.identity());
        let relay_url = scene.world.service().identity().public_url.clone();
        let end = RotatingEnd { relay_url: &relay_url, user: &user };
        let rotation = sign_rotation(end, &erp.identity, &next, Timestamp::UNIX_EPOCH).unwrap();
        let (tenant, name) = (erp.caller.scope().tenant().clone(), erp.caller.name().clone());
        let of = |name: &str| Access::Rotated {
            tenant: tenant.clone(),
            name: name.parse().unwrap(),
            rotation: Box::new(rotation.clone()),
        };
        scene.log.note(of("gone")).await.unwrap();
        scene.log.note(of(name.as_str())).await.unwrap();
        assert_eq!(scene.log.replay(scene.registry()).await.unwrap(), Replayed { rotated: 1, ..Replayed::default() });
        assert!(scene.registry().authenticate_key(&user, next.public_line()).await.is_ok());
        assert!(scene.registry().authenticate_key(&user, erp.identity.public_line()).await.is_err());
        assert_eq!(scene.log.replay(scene.registry()).await.unwrap(), Replayed::default(), "once");
        scene.log.note(Access::Revoked { tenant, name, key: erp.identity.fingerprint() }).await.unwrap();
        assert_eq!(scene.log.replay(scene.registry()).await.unwrap(), Replayed { revoked: 1, ..Replayed::default() });
        for (later, lines) in [(MAX_ENROLMENT_LIFE * 2, 3), (CHANGES_KEPT, 1)] {
            scene.world.clock.advance(later);
            scene.log.replay(scene.registry()).await.unwrap();
            assert_eq!(scene.log.lines().unwrap().len(), lines);
        }
    }

    #[tokio::test]
    async fn a_code_whose_line_could_not_be_written_is_noted_when_it_is_used_again() {
        let scene = Scene::new().await;
        let (code, key) = (scene.world.code("acme", Role::Agent).await, scene.world.identity());
        let mut broken = 0;
        let plan = Box::new(move |op, _: &std::path::Path| {
            broken += usize::from(op == FileOp::OpenWrite);
            (op == FileOp::OpenWrite && broken == 1).then_some(FileFault::Before(std::io::ErrorKind::StorageFull))
        });
        let files = Arc::new(FaultFiles::new(Arc::new(scene.files.clone()), plan));
        let log = AccessLog::new(files, "/".as_ref(), Arc::new(scene.world.clock.clone()));
        let service = scene.world.service().clone().remembering(log);
        let request = World::request(&code, &key);
        assert_eq!(service.enrol(&request, None).await.unwrap_err().code(), Code::DiskFull);
        assert_eq!(scene.log.lines().unwrap(), []);
        // The agent asks again, long after the first time.
        scene.world.clock.advance(Duration::from_mins(5));
        for _ in 0..3 {
            service.enrol(&request, None).await.unwrap();
        }
        assert_eq!(scene.log.lines().unwrap().len(), 1, "once is enough");
        // Also for a relay that is started again.
        let log = AccessLog::new(Arc::new(scene.files.clone()), "/".as_ref(), Arc::new(scene.world.clock.clone()));
        assert_eq!(log.replay(scene.registry()).await.unwrap(), Replayed::default());
        scene.world.service().clone().remembering(log).enrol(&request, None).await.unwrap();
        assert_eq!(scene.log.lines().unwrap().len(), 1);

        // The registry of the night has the same code, and nobody has used it.
        let night = World::new().await;
        assert!(night.code("acme", Role::Agent).await == code);
        assert_eq!(scene.log.replay(&night.registry).await.unwrap(), Replayed { closed: 1, ..Replayed::default() });
        let thief = World::request(&code, &night.identity());
        assert_eq!(night.service().enrol(&thief, None).await.unwrap_err().code(), Code::EnrolmentExpired);
    }

    #[tokio::test]
    async fn what_is_noted_while_the_list_is_carried_out_stays_in_it() {
        let scene = Scene::new().await;
        let code = |of: &[u8]| Access::Redeemed { code: Sha256Digest::of(of) };
        scene.log.note(code(b"old")).await.unwrap();
        scene.world.clock.advance(MAX_ENROLMENT_LIFE);
        // The operator's command, which is another process, writes its line after the list was read and before it is shortened.
        let (disk, late) = (scene.files.clone(), line(&Line { at: scene.world.clock.now(), access: code(b"late") }).unwrap());
        let mut opened = 0;
        let plan = Box::new(move |op, path: &std::path::Path| {
            opened += usize::from(op == FileOp::Open);
            if op == FileOp::Open && opened == 2 {
                disk.open_append(path).unwrap().write_all(&late).unwrap();
            }
            None
        });
        let files = Arc::new(FaultFiles::new(Arc::new(scene.files.clone()), plan));
        let log = AccessLog::new(files, "/".as_ref(), Arc::new(scene.world.clock.clone()));
        log.replay(scene.registry()).await.unwrap();
        let said: Vec<Access> = scene.log.lines().unwrap().into_iter().map(|line| line.access).collect();
        assert_eq!(said, [code(b"late")]);
    }

    #[tokio::test]
    async fn half_a_line_hurts_no_other_and_lines_of_codes_go_with_the_codes() {
        let scene = Scene::new().await;
        let code = |of: &[u8]| Access::Redeemed { code: Sha256Digest::of(of) };
        scene.log.note(code(b"old")).await.unwrap();
        let path = std::path::Path::new("/access.jsonl");
        scene.files.open_append(path).unwrap().write_all(b"{\"at\":\"2026").unwrap();
        scene.world.clock.advance(MAX_ENROLMENT_LIFE);
        scene.log.note(code(b"new")).await.unwrap();
        let said: Vec<Access> = scene.log.lines().unwrap().into_iter().map(|line| line.access).collect();
        assert_eq!(said, [code(b"old"), code(b"new")]);
        assert_eq!(scene.log.replay(scene.registry()).await.unwrap(), Replayed::default());
        let said: Vec<Access> = scene.log.lines().unwrap().into_iter().map(|line| line.access).collect();
        assert_eq!(said, [code(b"new")]);
        scene.files.power_loss();
        assert_eq!(scene.log.lines().unwrap().len(), 1, "it is durable");
    }
}
