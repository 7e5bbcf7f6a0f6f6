//! A new key pair in the place of the agent's own, while the agent works.
//!
//! The new pair is made beside the old one, the relay is told of it with a proof by the old one, and only then it takes its place:
//! whatever stops in between goes on with a key that the relay knows, and [`KeyRotator::finish`] does the rest.

use std::{fmt, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use towpath_keys::{Identity, KeyKind, RotatingEnd, sign_rotation, verify_rotation};
use towpath_transfer::{
    AgentName, Clock, Code, Entropy, Failure,
    api::{KeyRotation, MAX_KEY_OVERLAP},
    failure::Result,
    public_key::Fingerprint,
};
use towpath_transport::{
    files::{FileStore, file_failure, ignore_missing},
    relay_api::RelayApi,
};

use crate::{blocking::blocking, key_files::KeyFiles, layout::Layout, own_key::OwnKey, small_file, trust::TrustStore};

/// An old key stays good for at least so long, whatever is asked for: work that is under way goes on with it until the agent has the
/// relay's answer.
pub const SHORTEST_OVERLAP: Duration = Duration::from_secs(30);
/// How soon it is looked for a change that was begun and did not come to its end; each time that fails, twice as long.
pub const FINISH_PAUSE: Duration = Duration::from_secs(10);
/// The longest of these pauses: like everything else, a change goes on within a minute after the cause is gone.
pub const LONGEST_FINISH_PAUSE: Duration = Duration::from_secs(40);
/// The largest note of a change, in bytes.
const MAX_NOTE_BYTES: usize = 1024;

/// The relay as it is called with a key.
pub type RelayOf = Arc<dyn Fn(&Identity) -> Result<Arc<dyn RelayApi>> + Send + Sync>;
/// The relay's time, as far as it is known.
pub type RelayTime = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What came of changing the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// The key until now.
    pub old: Fingerprint,
    /// The key from now on.
    pub new: Fingerprint,
    /// From then on the relay refuses the old key.
    pub old_until: Timestamp,
}

/// What was asked for, beside the key that is to follow.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    overlap: Duration,
}

/// Changes the agent's key. Clones share the right to: one change at a time.
#[derive(Clone)]
pub struct KeyRotator {
    /// The key in use and the one that is to follow.
    pub keys: Arc<dyn KeyFiles>,
    /// Where it is noted what was asked for.
    pub layout: Layout,
    /// The disk.
    pub files: Arc<dyn FileStore>,
    /// The key in use.
    pub own: OwnKey,
    /// The agent's own pins.
    pub trust: Arc<dyn TrustStore>,
    /// This agent's name.
    pub agent: AgentName,
    /// The relay's URL, as the enrolment names it.
    pub relay_url: String,
    /// The agent's user name at the relay.
    pub user: String,
    /// The relay.
    pub relay: RelayOf,
    /// Its time.
    pub now: RelayTime,
    /// Our time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Held while the key is changed.
    pub one: Arc<Mutex<()>>,
}

impl KeyRotator {
    /// Makes a new key pair, tells the relay, and goes on with it. A change that was begun before is ended instead.
    ///
    /// # Errors
    /// `request-invalid` for an `overlap` of more than [`MAX_KEY_OVERLAP`]; `rotation-invalid` where the relay refuses; those of the
    /// relay and of the disk. The old key then stays in use.
    pub async fn rotate(&self, overlap: Duration, kind: KeyKind) -> Result<Rotated> {
        if overlap > MAX_KEY_OVERLAP {
            let days = MAX_KEY_OVERLAP.as_secs() / (24 * 3600);
            return Err(Failure::park(Code::RequestInvalid, format!("an old key stays good for at most {days} days")));
        }
        let this = self.clone();
        // Whoever asked may go away meanwhile; what was begun comes to its end.
        let changed = tokio::spawn(async move {
            let _one = this.one.lock().await;
            this.refresh().await?;
            let asked = Asked { overlap: overlap.max(SHORTEST_OVERLAP) };
            let bytes = serde_json::to_vec(&asked);
            let bytes = bytes.map_err(|e| Failure::park(Code::Internal, "noting how the key is to be changed").caused_by(e))?;
            let (files, note) = (Arc::clone(&this.files), this.layout.next_key_note());
            blocking(move || small_file::write(&*files, &note, &bytes)).await?;
            this.change(kind).await
        });
        changed.await.map_err(|e| Failure::park(Code::Internal, "changing the key").caused_by(e))?
    }

    /// Goes on with the key on the disk, where that is another one: whoever has put it there may have been stopped before this agent
    /// knew.
    async fn refresh(&self) -> Result<()> {
        let keys = Arc::clone(&self.keys);
        let there = blocking(move || keys.load()).await?;
        if there.fingerprint() == self.own.now().fingerprint() {
            return Ok(());
        }
        tracing::info!(new = %there.fingerprint(), "the key was changed by another process");
        self.own.replace(there)
    }

    async fn change(&self, kind: KeyKind) -> Result<Rotated> {
        let old = self.own.now();
        let (keys, entropy) = (Arc::clone(&self.keys), Arc::clone(&self.entropy));
        let next = blocking(move || keys.next(kind, &*entropy)).await?;
        let (files, note) = (Arc::clone(&self.files), self.layout.next_key_note());
        let noted = blocking(move || small_file::read(&*files, &note, MAX_NOTE_BYTES)).await?;
        let noted = noted.and_then(|bytes| serde_json::from_slice::<Asked>(&bytes).ok());
        let overlap = noted.map_or(SHORTEST_OVERLAP, |asked| asked.overlap.clamp(SHORTEST_OVERLAP, MAX_KEY_OVERLAP));
        let told = self.tell(&old, &next, overlap).await;
        if told.as_ref().is_err_and(|failure| failure.code() == Code::RotationInvalid) {
            // The relay will never know this key.
            let keys = Arc::clone(&self.keys);
            blocking(move || keys.remove_next()).await?;
            self.forget().await?;
        }
        let told = told?;
        self.take(next.clone()).await?;
        let rotated = Rotated { old: old.fingerprint(), new: next.fingerprint(), old_until: told.old_until };
        tracing::info!(old = %rotated.old, new = %rotated.new, old_until = %rotated.old_until, "the key was changed");
        Ok(rotated)
    }

    /// Ends changes that were begun and did not come to their end, until `stop`.
    pub async fn finish(&self, stop: CancellationToken) {
        let mut pause = FINISH_PAUSE;
        loop {
            let ended = self.finish_or_warn().await;
            pause = if ended { FINISH_PAUSE } else { pause.saturating_mul(2).min(LONGEST_FINISH_PAUSE) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(pause) => {}
            }
        }
    }

    /// Ends a change that was begun, where there is one. Where that cannot be done now it is logged, and `false`.
    pub async fn finish_or_warn(&self) -> bool {
        let ended = self.finish_once().await;
        if let Err(failure) = &ended {
            tracing::warn!(code = %failure.code(), "changing the key goes on later: {}", failure.report());
        }
        ended.is_ok()
    }

    async fn finish_once(&self) -> Result<()> {
        let _one = self.one.lock().await;
        self.refresh().await?;
        let keys = Arc::clone(&self.keys);
        if !blocking(move || Ok(keys.has_next())).await? {
            // It may have been stopped before it made a key, or after the key was in its place.
            return self.forget().await;
        }
        match self.change(KeyKind::default()).await {
            // Nothing is left to be ended: the relay knows another key, and the one that was begun is gone.
            Err(failure) if failure.code() == Code::RotationInvalid => {
                tracing::error!(code = %failure.code(), "the key was not changed: {}", failure.report());
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Tells the relay, by the old key; by the new one where the old key is refused, because an earlier try may have come through
    /// and its answer not.
    async fn tell(&self, old: &Identity, next: &Identity, overlap: Duration) -> Result<KeyRotation> {
        let relay = (self.relay)(old)?;
        // The first answer tells the relay's time.
        let known = relay.peers().await.map(|_| ());
        let end = RotatingEnd { relay_url: &self.relay_url, user: &self.user };
        let asked = sign_rotation(end, old, next, until((self.now)(), overlap)?)?;
        let told = match known {
            Ok(()) => relay.rotate_key(&asked).await,
            Err(failure) => Err(failure),
        };
        let told = match told {
            Err(refused) if refused.code() == Code::AuthenticationRefused => {
                (self.relay)(next)?.rotate_key(&asked).await.map_err(|_| refused)?
            }
            other => other?,
        };
        verify_rotation(end, &told)?;
        if told.old_key != asked.old_key || told.new_key != asked.new_key {
            let message = "telling the relay of the new key: it answers with another one";
            return Err(Failure::park(Code::RelayProtocol, message));
        }
        Ok(told)
    }

    async fn take(&self, next: Identity) -> Result<()> {
        let (trust, agent, key) = (Arc::clone(&self.trust), self.agent.clone(), next.public_key().clone());
        let keys = Arc::clone(&self.keys);
        blocking(move || {
            // What it signs has to be believed here as well, before it signs anything.
            trust.pin_end(agent.as_str(), &key)?;
            keys.put_next_in_place()
        })
        .await?;
        self.own.replace(next)?;
        self.forget().await
    }

    /// Removes the note of a change that is over, and what an agent that was stopped has begun of one.
    async fn forget(&self) -> Result<()> {
        let files = Arc::clone(&self.files);
        let notes = [self.layout.next_key_note(), self.layout.next_key_note_begun()];
        blocking(move || {
            for note in notes.iter().filter(|note| small_file::exists(&*files, note)) {
                ignore_missing(files.remove(note)).map_err(|error| file_failure("removing", note, error))?;
            }
            Ok(())
        })
        .await
    }
}

/// Whole seconds, because people read it.
fn until(now: Timestamp, overlap: Duration) -> Result<Timestamp> {
    let far = |e: jiff::Error| Failure::park(Code::Internal, "adding to the relay's time").caused_by(e);
    let until = SignedDuration::try_from(overlap).and_then(|overlap| now.checked_add(overlap)).map_err(far)?;
    Timestamp::from_second(until.as_second()).map_err(far)
}

impl fmt::Debug for KeyRotator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRotator({} {:?})", self.user, self.own)
    }
}

#[cfg(test)]
mod tests {
    use towpath_keys::Namespace;
    use towpath_transfer::clock::{ManualClock, SeededEntropy};
    use towpath_transport::{files::Disk, relay_api::MemoryRelay};

    use super::*;
    use crate::trust::FileTrust;

    const HOUR: Duration = Duration::from_hours(1);

    struct Bench {
        folder: tempfile::TempDir,
        /// With the old key it answers as `relay` does, with any other as `later`.
        relay: MemoryRelay,
        later: MemoryRelay,
        rotator: KeyRotator,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let entropy = Arc::new(SeededEntropy::new(7));
            let layout = Layout::new(folder.path());
            let old = Identity::create_file(&layout.key(), KeyKind::Ed25519, &*entropy).unwrap();
            let (relay, later) = (MemoryRelay::new(), MemoryRelay::new());
            let clock = Arc::new(ManualClock::new("2026-03-01T12:00:00.25Z".parse().unwrap()));
            let (first, second, own) = (relay.clone(), later.clone(), old.fingerprint());
            let now = Arc::clone(&clock);
            let rotator = KeyRotator {
                own: OwnKey::new(old).unwrap(),
                trust: Arc::new(FileTrust(layout.allowed_signers())),
                keys: Arc::new(layout.clone()),
                layout,
                files: Arc::new(Disk),
                agent: "erp".parse().unwrap(),
                relay_url: "https://relay.example".into(),
                user: "acme.erp".into(),
                relay: Arc::new(move |key| Ok(Arc::new(if key.fingerprint() == own { first.clone() } else { second.clone() }))),
                now: Arc::new(move || now.now()),
                clock,
                entropy,
                one: Arc::default(),
            };
            Self { folder, relay, later, rotator }
        }

        fn on_disk(&self) -> Fingerprint {
            Identity::load(&self.rotator.layout.key()).unwrap().fingerprint()
        }

        fn files(&self) -> Vec<String> {
            let entries = std::fs::read_dir(self.folder.path()).unwrap();
            let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    #[tokio::test]
    async fn the_new_key_takes_the_place_of_the_old_one_and_is_believed() {
        let bench = Bench::new();
        let old = bench.on_disk();
        let rotated = bench.rotator.rotate(HOUR, KeyKind::Ed25519).await.unwrap();
        assert_eq!(rotated.old, old);
        assert_eq!(rotated.old_until, "2026-03-01T13:00:00Z".parse().unwrap());
        assert_eq!((bench.on_disk(), bench.rotator.own.now().fingerprint()), (rotated.new, rotated.new));
        let public = std::fs::read_to_string(bench.folder.path().join("key.pub")).unwrap();
        assert_eq!(public.trim(), bench.rotator.own.now().public_line().to_string());
        let [told] = &bench.relay.rotations()[..] else { panic!("told once") };
        assert_eq!(told.new_key.fingerprint(), rotated.new);
        let pins = bench.rotator.trust.signers().unwrap();
        for namespace in [Namespace::Manifest, Namespace::Receipt] {
            assert!(pins.lookup("erp", namespace).any(|key| key.fingerprint() == rotated.new));
        }
        assert_eq!(bench.files(), ["allowed_signers", "allowed_signers.lock", "key", "key.pub"]);
        // Work that is under way goes on for a moment, whatever was asked for.
        let at_once = bench.rotator.rotate(Duration::ZERO, KeyKind::Ed25519).await.unwrap();
        assert_eq!((at_once.old, at_once.old_until), (rotated.new, "2026-03-01T12:00:30Z".parse().unwrap()));
        let again = bench.rotator.rotate(HOUR, KeyKind::Ed25519).await.unwrap();
        assert_eq!(again.old, at_once.new);
        // Another process has changed it.
        let other = Identity::create_file(&bench.folder.path().join("other"), KeyKind::Ed25519, &SeededEntropy::new(9)).unwrap();
        Identity::put_in_place(&bench.folder.path().join("other"), &bench.rotator.layout.key()).unwrap();
        bench.rotator.finish_once().await.unwrap();
        assert_eq!(bench.rotator.own.now().fingerprint(), other.fingerprint());
    }

    #[tokio::test]
    async fn a_lost_answer_changes_nothing_here_and_the_next_try_ends_the_change() {
        let bench = Bench::new();
        let old = bench.on_disk();
        bench.relay.fail_after(Failure::retry(Code::RelayUnreachable, "asking for peers"));
        let failure = bench.rotator.rotate(HOUR, KeyKind::Ed25519).await.unwrap_err();
        assert_eq!((failure.code(), bench.on_disk()), (Code::RelayUnreachable, old));
        // The relay has heard it, its answer is lost, and meanwhile the old key has been retired.
        let next = Identity::load(&bench.rotator.layout.next_key()).unwrap();
        let end = RotatingEnd { relay_url: "https://relay.example", user: "acme.erp" };
        let until = "2026-03-01T12:30:00Z".parse().unwrap();
        let before = sign_rotation(end, &bench.rotator.own.now(), &next, until).unwrap();
        bench.later.rotate_key(&before).await.unwrap();
        bench.relay.fail_before(Failure::park(Code::AuthenticationRefused, "the key was not accepted"));
        let note = std::fs::read_to_string(bench.rotator.layout.next_key_note()).unwrap();
        assert!(note.contains("3600"), "the change goes on as it was asked for: {note}");
        bench.rotator.finish_once().await.unwrap();
        bench.rotator.finish_once().await.unwrap();
        assert_eq!(bench.on_disk(), next.fingerprint());
        assert!(!bench.rotator.layout.next_key().exists());
    }

    #[tokio::test]
    async fn a_note_of_a_change_that_is_over_or_never_began_does_not_stay() {
        let bench = Bench::new();
        let note = bench.rotator.layout.next_key_note();
        small_file::write(&Disk, &note, b"{}").unwrap();
        std::fs::rename(&note, bench.rotator.layout.next_key_note_begun()).unwrap();
        small_file::write(&Disk, &note, b"{}").unwrap();
        bench.rotator.finish_once().await.unwrap();
        assert_eq!(bench.files(), ["key", "key.pub"]);
    }

    #[tokio::test]
    async fn what_the_relay_refuses_for_good_is_not_tried_again() {
        let bench = Bench::new();
        let old = bench.on_disk();
        let taken = Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(8)).unwrap();
        let end = RotatingEnd { relay_url: "https://relay.example", user: "acme.erp" };
        let until = "2026-03-02T12:00:00Z".parse().unwrap();
        bench.relay.rotate_key(&sign_rotation(end, &bench.rotator.own.now(), &taken, until).unwrap()).await.unwrap();
        let failure = bench.rotator.rotate(HOUR, KeyKind::Ed25519).await.unwrap_err();
        assert_eq!((failure.code(), bench.on_disk()), (Code::RotationInvalid, old));
        assert_eq!(bench.files(), ["key", "key.pub"]);
        let failure = bench.rotator.rotate(MAX_KEY_OVERLAP + HOUR, KeyKind::Ed25519).await.unwrap_err();
        assert_eq!(failure.code(), Code::RequestInvalid);
    }

    #[tokio::test]
    async fn where_both_keys_are_refused_the_refusal_of_the_old_one_is_told() {
        let bench = Bench::new();
        let old = bench.on_disk();
        bench.relay.fail_before(Failure::park(Code::AuthenticationRefused, "the key was not accepted"));
        bench.later.fail_before(Failure::park(Code::AuthenticationRefused, "neither is this one"));
        let failure = bench.rotator.rotate(HOUR, KeyKind::Ed25519).await.unwrap_err();
        assert_eq!((failure.code(), bench.on_disk()), (Code::AuthenticationRefused, old));
        assert!(failure.report().contains("the key was not accepted"), "{}", failure.report());
        assert!(bench.rotator.layout.next_key().exists(), "the next try goes on with the same key");
    }
}
