//! Several ways to one server, of which a firewall may close any at any time.
//!
//! The way that worked last is tried first. One that gives no answer holds nobody up: after [`HEAD_START`] the next one is tried
//! beside it, and the first that gets through is taken. Where a worse way is in use, the better ones are looked at again now
//! and then, beside the work and not before it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use towpath_transfer::Clock;

use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// How long a way is tried alone.
pub const HEAD_START: Duration = Duration::from_secs(3);
/// How long a worse way is used before the better ones are looked at again.
pub const LOOK_AGAIN: Duration = Duration::from_secs(15 * 60);

/// Makes a connection by one way, each time anew.
pub type Open<T> = Box<dyn Fn() -> BoxFuture<'static, StoreResult<T>> + Send + Sync>;

/// A way that is not open, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Its name.
    pub way: String,
    /// What was tried and why it failed.
    pub why: String,
}

/// What is known of the ways, for whoever remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The way in use.
    pub way: String,
    /// Better or earlier ways that were blocked when this one was taken, or when they were last looked at.
    pub blocked: Vec<Blocked>,
}

/// Keeps what was found beyond the life of the process. Both calls must return quickly.
pub trait Memory: fmt::Debug + Send + Sync {
    /// The way that worked last, which may be of another configuration, and for how long the better ones need no other look.
    fn last(&self) -> Option<(String, Duration)>;

    /// A way was taken that was not in use before, or the better ones were looked at again.
    fn found(&self, found: &Found);
}

/// Forgets everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoMemory;

impl Memory for NoMemory {
    fn last(&self) -> Option<(String, Duration)> {
        None
    }

    fn found(&self, _: &Found) {}
}

/// The ways to one server, the best first. Clones share what they know.
pub struct Ways<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    purpose: &'static str,
    ways: Vec<(String, Open<T>)>,
    memory: Arc<dyn Memory>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The way that worked last.
    used: Option<usize>,
    /// When the better ways are due to be looked at, as [`Clock::monotonic`] counts.
    look_again: Duration,
    looking: bool,
}

impl<T> Clone for Ways<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Ways<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.shared.ways.iter().map(|(name, _)| name.as_str()).collect();
        write!(f, "Ways({}: {})", self.shared.purpose, names.join(", "))
    }
}

impl<T: Send + 'static> Ways<T> {
    /// These ways by their names, the best first. `purpose` is what they lead to, such as `SSH to the relay`.
    pub fn new(purpose: &'static str, ways: Vec<(String, Open<T>)>, memory: Arc<dyn Memory>, clock: Arc<dyn Clock>) -> Self {
        let (used, rest) = match memory.last() {
            Some((last, rest)) => (ways.iter().position(|(name, _)| *name == last), rest.min(LOOK_AGAIN)),
            None => (None, LOOK_AGAIN),
        };
        let look_again = clock.monotonic().saturating_add(rest);
        let state = Mutex::new(State { used, look_again, looking: false });
        Self { shared: Arc::new(Shared { purpose, ways, memory, clock, state }) }
    }

    /// A connection by the first way that is open.
    ///
    /// # Errors
    /// What the server itself says, where it was reached and said no: another way would lead to the same server. Else
    /// [`StoreErrorKind::ProxyRefused`] where a proxy refused any of them, or the kind of the best way's error, naming them all.
    pub async fn open(&self) -> StoreResult<T> {
        let shared = &self.shared;
        let used = shared.state().used;
        let order = used.into_iter().chain((0..shared.ways.len()).filter(|index| Some(*index) != used));
        let mut race = Race { shared, running: FuturesUnordered::new(), started: Vec::new(), failed: Vec::new() };
        match race.run(order).await {
            Some(Ok((index, connection))) => {
                let blocked = race.blocked_before(index);
                drop(race);
                shared.took(index, blocked);
                self.look_again_where_due();
                Ok(connection)
            }
            Some(Err(refused)) => Err(refused),
            None => Err(shared.none_is_open(race.failed)),
        }
    }

    fn look_again_where_due(&self) {
        let mut state = self.shared.state();
        let Some(used) = state.used.filter(|used| *used > 0) else { return };
        if state.looking || self.shared.clock.monotonic() < state.look_again {
            return;
        }
        state.looking = true;
        drop(state);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move { shared.look_again(used).await });
    }
}

/// Ways that are tried beside each other.
struct Race<'a, T> {
    shared: &'a Shared<T>,
    running: FuturesUnordered<BoxFuture<'static, (usize, StoreResult<T>)>>,
    started: Vec<usize>,
    failed: Vec<(usize, StoreError)>,
}

impl<T: Send + 'static> Race<'_, T> {
    /// The first that gets through, or the server's own no; `None` where every way is blocked.
    async fn run(&mut self, mut order: impl Iterator<Item = usize>) -> Option<StoreResult<(usize, T)>> {
        self.start(order.next()?);
        let mut pause = self.shared.clock.sleep(HEAD_START);
        loop {
            tokio::select! {
                biased;
                Some((index, result)) = self.running.next() => match result {
                    Ok(connection) => return Some(Ok((index, connection))),
                    Err(error) if !is_blocked(error.kind()) => return Some(Err(error)),
                    Err(error) => self.failed.push((index, error)),
                },
                () = &mut pause => {}
            }
            // Whether the last one failed or is only slow, it is the next one's turn.
            match order.next() {
                Some(next) => {
                    self.start(next);
                    pause = self.shared.clock.sleep(HEAD_START);
                }
                None if self.running.is_empty() => return None,
                None => pause = Box::pin(std::future::pending()),
            }
        }
    }

    fn start(&mut self, index: usize) {
        let Some((_, open)) = self.shared.ways.get(index) else { return };
        let opening = open();
        self.started.push(index);
        self.running.push(Box::pin(async move { (index, opening.await) }));
    }

    /// What was tried before the way that won, and has failed or was overtaken.
    fn blocked_before(&self, won: usize) -> Vec<Blocked> {
        let earlier = self.started.iter().copied().take_while(|index| *index != won);
        let why = |index| match self.failed.iter().find(|(failed, _)| *failed == index) {
            Some((_, error)) => error.report(),
            None => format!("no answer within {} seconds", HEAD_START.as_secs()),
        };
        earlier.map(|index| Blocked { way: self.shared.name(index), why: why(index) }).collect()
    }
}

/// Whether another way may help: not where the server was reached and has said no. A certificate that is not the relay's is that
/// of something in between.
fn is_blocked(kind: StoreErrorKind) -> bool {
    use StoreErrorKind as Kind;
    matches!(
        kind,
        Kind::Unreachable | Kind::TimedOut | Kind::ConnectionLost | Kind::Protocol | Kind::ProxyRefused | Kind::Certificate
    )
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, index: usize) -> String {
        self.ways.get(index).map(|(name, _)| name.clone()).unwrap_or_default()
    }

    fn took(&self, index: usize, blocked: Vec<Blocked>) {
        {
            let mut state = self.state();
            if state.used.replace(index) == Some(index) {
                return;
            }
            state.look_again = self.clock.monotonic().saturating_add(LOOK_AGAIN);
        }
        let way = self.name(index);
        let reasons: Vec<String> = blocked.iter().map(|Blocked { way, why }| format!("{way} is blocked ({why})")).collect();
        let because = if reasons.is_empty() { String::new() } else { format!(", because {}", reasons.join(" and ")) };
        tracing::info!(way, "{} goes by {way} now{because}", self.purpose);
        self.memory.found(&Found { way, blocked });
    }

    async fn look_again(&self, used: usize) {
        let mut blocked = Vec::new();
        let mut better = None;
        for (index, (name, open)) in self.ways.iter().enumerate().take(used) {
            match open().await {
                Ok(_) => {
                    better = Some(index);
                    break;
                }
                Err(error) => blocked.push(Blocked { way: name.clone(), why: error.report() }),
            }
        }
        let now_used = {
            let mut state = self.state();
            state.looking = false;
            state.look_again = self.clock.monotonic().saturating_add(LOOK_AGAIN);
            // Somebody may have taken another way meanwhile, and knows better.
            if state.used != Some(used) {
                return;
            }
            state.used = better.or(Some(used));
            better.unwrap_or(used)
        };
        let way = self.name(now_used);
        if better.is_some() {
            tracing::info!(way, "{} goes by {way} again, which is open now and better than {}", self.purpose, self.name(used));
        }
        self.memory.found(&Found { way, blocked });
    }

    fn none_is_open(&self, mut failed: Vec<(usize, StoreError)>) -> StoreError {
        failed.sort_by_key(|(index, _)| *index);
        let reasons: Vec<String> =
            failed.iter().map(|(index, error)| format!("{} ({})", self.name(*index), error.report())).collect();
        // What a page in the way answers instead of the server says less than any other error.
        let says_most = failed
            .iter()
            .position(|(_, error)| error.kind() == StoreErrorKind::ProxyRefused)
            .or_else(|| failed.iter().position(|(_, error)| error.kind() != StoreErrorKind::Protocol))
            .unwrap_or(0);
        if failed.len() <= 1 {
            let none = || StoreError::new(StoreErrorKind::Internal, format!("{}: there is no way", self.purpose));
            return failed.pop().map_or_else(none, |(_, error)| error);
        }
        let (_, error) = failed.swap_remove(says_most);
        let message = format!("{}: every way is blocked: {}", self.purpose, reasons.join(", "));
        StoreError::new(error.kind(), message).caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use jiff::Timestamp;
    use towpath_transfer::clock::ManualClock;

    use super::*;

    type Script = Arc<Mutex<VecDeque<Option<StoreErrorKind>>>>;

    /// Ways whose every opening is told what to answer; without a word it never answers.
    struct Scene {
        ways: Ways<usize>,
        scripts: Vec<Script>,
        tried: Arc<Mutex<Vec<usize>>>,
        notes: Arc<Notes>,
        clock: ManualClock,
    }

    #[derive(Debug, Default)]
    struct Notes {
        last: Option<(String, Duration)>,
        found: Mutex<Vec<Found>>,
    }

    impl Memory for Notes {
        fn last(&self) -> Option<(String, Duration)> {
            self.last.clone()
        }

        fn found(&self, found: &Found) {
            self.found.lock().unwrap().push(found.clone());
        }
    }

    const NAMES: [&str; 3] = ["ssh:443", "tls:443", "ssh:80"];

    fn scene(last: Option<(&str, Duration)>) -> Scene {
        let clock = ManualClock::new(Timestamp::UNIX_EPOCH);
        let notes = Arc::new(Notes { last: last.map(|(way, rest)| (way.to_owned(), rest)), ..Notes::default() });
        let tried: Arc<Mutex<Vec<usize>>> = Arc::default();
        let scripts: Vec<Script> = NAMES.iter().map(|_| Script::default()).collect();
        let way = |(index, script): (usize, &Script)| {
            let (script, tried) = (Arc::clone(script), Arc::clone(&tried));
            let open: Open<usize> = Box::new(move || {
                tried.lock().unwrap().push(index);
                let answer = script.lock().unwrap().pop_front();
                Box::pin(async move {
                    match answer {
                        Some(None) => Ok(index),
                        Some(Some(kind)) => Err(StoreError::new(kind, format!("on purpose {index}"))),
                        None => std::future::pending().await,
                    }
                })
            });
            (NAMES[index].to_owned(), open)
        };
        let ways = scripts.iter().enumerate().map(way).collect();
        let ways = Ways::new("SSH to the relay", ways, notes.clone(), Arc::new(clock.clone()));
        Scene { ways, scripts, tried, notes, clock }
    }

    impl Scene {
        fn answers(&self, way: usize, answers: &[Option<StoreErrorKind>]) {
            self.scripts[way].lock().unwrap().extend(answers);
        }

        fn tried(&self) -> Vec<usize> {
            std::mem::take(&mut self.tried.lock().unwrap())
        }

        fn found(&self) -> Vec<(String, Vec<String>)> {
            let found = std::mem::take(&mut *self.notes.found.lock().unwrap());
            found.into_iter().map(|f| (f.way, f.blocked.into_iter().map(|b| format!("{}: {}", b.way, b.why)).collect())).collect()
        }

        /// Until every sleep that `work` waits for has begun, then past it.
        async fn after_head_starts(&self, work: impl Future<Output = StoreResult<usize>>) -> StoreResult<usize> {
            let mut work = std::pin::pin!(work);
            loop {
                if let std::task::Poll::Ready(done) = futures::poll!(&mut work) {
                    return done;
                }
                self.clock.advance(HEAD_START);
            }
        }
    }

    const OPEN: Option<StoreErrorKind> = None;
    const CLOSED: Option<StoreErrorKind> = Some(StoreErrorKind::Unreachable);

    #[tokio::test]
    async fn the_way_that_is_open_is_found_and_then_tried_first() {
        let scene = scene(None);
        scene.answers(0, &[CLOSED, OPEN]);
        scene.answers(1, &[Some(StoreErrorKind::Protocol), CLOSED]);
        scene.answers(2, &[OPEN, OPEN, Some(StoreErrorKind::ConnectionLost)]);
        assert_eq!(scene.ways.open().await.unwrap(), 2);
        assert_eq!(scene.ways.clone().open().await.unwrap(), 2);
        assert_eq!(scene.tried(), [0, 1, 2, 2]);
        let blocked = ["ssh:443: on purpose 0", "tls:443: on purpose 1"].map(str::to_owned).to_vec();
        assert_eq!(scene.found(), [("ssh:80".to_owned(), blocked)]);
        // It closes and another has opened.
        assert_eq!(scene.ways.open().await.unwrap(), 0);
        assert_eq!(scene.tried(), [2, 0]);
        assert_eq!(scene.found(), [("ssh:443".to_owned(), vec!["ssh:80: on purpose 2".to_owned()])]);
    }

    #[tokio::test]
    async fn a_silent_way_holds_up_for_its_head_start_only_and_may_still_win() {
        let scene = scene(None);
        scene.answers(1, &[OPEN]);
        assert_eq!(scene.after_head_starts(scene.ways.open()).await.unwrap(), 1);
        assert_eq!(scene.clock.monotonic(), HEAD_START);
        assert_eq!(scene.found(), [("tls:443".to_owned(), vec!["ssh:443: no answer within 3 seconds".to_owned()])]);

        // All are silent, so that all are under way when nothing is left to wait for but them.
        let scene = self::scene(None);
        let mut opening = std::pin::pin!(scene.ways.open());
        for _ in 0..4 {
            assert!(futures::poll!(&mut opening).is_pending());
            scene.clock.advance(HEAD_START);
        }
        assert_eq!(scene.tried(), [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_server_that_says_no_is_not_asked_another_way() {
        for kind in [StoreErrorKind::HostKeyUnknown, StoreErrorKind::AuthenticationRefused] {
            let scene = scene(None);
            scene.answers(0, &[CLOSED]);
            scene.answers(1, &[Some(kind)]);
            assert_eq!(scene.ways.open().await.unwrap_err().kind(), kind);
            assert_eq!(scene.tried(), [0, 1]);
            assert_eq!(scene.found(), []);
        }
    }

    #[tokio::test]
    async fn where_every_way_is_blocked_all_are_named_and_the_error_that_says_most_counts() {
        use StoreErrorKind as Kind;
        for (kinds, expected) in [
            ([Kind::TimedOut, Kind::Certificate, Kind::Unreachable], Kind::TimedOut),
            ([Kind::Certificate, Kind::Unreachable, Kind::Unreachable], Kind::Certificate),
            ([Kind::Protocol, Kind::Protocol, Kind::Unreachable], Kind::Unreachable),
            ([Kind::Protocol, Kind::Protocol, Kind::Protocol], Kind::Protocol),
            ([Kind::Unreachable, Kind::ProxyRefused, Kind::Unreachable], Kind::ProxyRefused),
        ] {
            let scene = scene(Some(("ssh:80", LOOK_AGAIN)));
            for (way, kind) in kinds.iter().enumerate() {
                scene.answers(way, &[Some(*kind)]);
            }
            let error = scene.ways.open().await.unwrap_err();
            assert_eq!(error.kind(), expected);
            assert_eq!(scene.tried(), [2, 0, 1]);
            let said = error.report();
            assert!(said.contains("ssh:443 (on purpose 0), tls:443 (on purpose 1), ssh:80 (on purpose 2)"), "{said}");
        }
    }

    #[tokio::test]
    async fn what_is_remembered_comes_first_unless_it_is_of_another_configuration() {
        let scene = scene(Some(("tls:443", LOOK_AGAIN)));
        scene.answers(1, &[OPEN]);
        assert_eq!(scene.ways.open().await.unwrap(), 1);
        assert_eq!((scene.tried(), scene.found()), (vec![1], vec![]));
        let scene = self::scene(Some(("ssh:2222", Duration::ZERO)));
        scene.answers(0, &[OPEN]);
        assert_eq!(scene.ways.open().await.unwrap(), 0);
        assert_eq!(scene.found(), [("ssh:443".to_owned(), vec![])]);
    }

    async fn until(done: impl Fn() -> bool) {
        while !done() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn better_ways_are_looked_at_again_beside_the_work() {
        let scene = scene(Some(("ssh:80", Duration::from_secs(60))));
        scene.answers(2, &[OPEN; 4]);
        scene.ways.open().await.unwrap();
        assert_eq!(scene.tried(), [2], "it is not due yet");
        scene.clock.advance(Duration::from_secs(60));
        scene.answers(0, &[CLOSED]);
        scene.answers(1, &[CLOSED]);
        assert_eq!(scene.ways.open().await.unwrap(), 2);
        until(|| !scene.notes.found.lock().unwrap().is_empty()).await;
        assert_eq!(scene.tried(), [2, 0, 1]);
        let blocked = ["ssh:443: on purpose 0", "tls:443: on purpose 1"].map(str::to_owned).to_vec();
        assert_eq!(scene.found(), [("ssh:80".to_owned(), blocked)]);

        assert_eq!(scene.ways.open().await.unwrap(), 2);
        assert_eq!(scene.tried(), [2], "it is not due again");
        scene.clock.advance(LOOK_AGAIN);
        scene.answers(0, &[CLOSED]);
        scene.answers(1, &[OPEN, OPEN]);
        assert_eq!(scene.ways.open().await.unwrap(), 2, "the work does not wait for the look");
        until(|| !scene.notes.found.lock().unwrap().is_empty()).await;
        assert_eq!(scene.found(), [("tls:443".to_owned(), vec!["ssh:443: on purpose 0".to_owned()])]);
        assert_eq!(scene.ways.open().await.unwrap(), 1);
        assert_eq!(scene.tried(), [2, 0, 1, 1]);
    }

    #[tokio::test]
    async fn one_look_at_a_time() {
        let scene = scene(Some(("tls:443", Duration::ZERO)));
        scene.answers(1, &[OPEN; 2]);
        scene.ways.open().await.unwrap();
        until(|| scene.tried.lock().unwrap().len() == 2).await;
        scene.ways.open().await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(scene.tried(), [1, 0, 1]);
    }
}
