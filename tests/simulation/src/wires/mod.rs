//! What a simulation puts between the programs and what they touch.

mod database;
mod far;
mod files;
mod skew;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use towpath_agent::{key_files::KeyFiles, parts::Extractor};
use towpath_journal::{FailPoints, FaultJournal, Journal, Operation, Point};
use towpath_receiver::{import::ImportTarget, parts::Trust};
use towpath_relay::uplink::forward::AppServers;
use towpath_testkit::seams::{Fate, Host, Life, Machine, Wiring};
use towpath_transfer::{Clock, Stage, TransferId, TransferKey, clock::ManualClock, state::Place};
use towpath_transport::{files::FileStore, store::Connect};

use self::database::Locks;
pub use self::skew::Skewed;
use crate::{
    broken::Broken,
    faults::{Faults, Site, Trouble, slowness},
    story::Story,
};

/// What all wires of one simulation share.
#[derive(Clone)]
pub struct Wires {
    /// What goes wrong.
    pub faults: Faults,
    /// What happened.
    pub story: Story,
    /// The time of all.
    pub clock: ManualClock,
    /// What a test has broken.
    pub broken: Option<Broken>,
    clocks: Arc<Mutex<BTreeMap<Host, Skewed>>>,
    lives: Arc<Mutex<BTreeMap<Host, Life>>>,
    books: Arc<Mutex<Books>>,
    locks: Locks,
}

/// What the ERPs had when.
#[derive(Debug, Default)]
struct Books {
    /// The state that each ERP has now, counted by its changes.
    now: BTreeMap<Host, usize>,
    /// The state that each transfer was read from.
    read: BTreeMap<TransferId, usize>,
}

impl fmt::Debug for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wires({:?})", self.faults)
    }
}

impl Wires {
    /// Wires with these faults.
    #[must_use]
    pub fn new(faults: Faults, story: Story, clock: ManualClock, broken: Option<Broken>) -> Self {
        let (clocks, lives, books, locks) = (Arc::default(), Arc::default(), Arc::default(), Locks::default());
        Self { faults, story, clock, broken, clocks, lives, books, locks }
    }

    /// The clock of a machine, to be set.
    #[must_use]
    pub fn clock_of(&self, host: &Host) -> Option<Skewed> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    /// An ERP has another content from now on.
    pub fn erp_changed(&self, host: &Host, state: usize) {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).now.insert(host.clone(), state);
    }

    /// The state of the ERP that a transfer was last read from.
    #[must_use]
    pub fn read_from(&self, id: TransferId) -> Option<usize> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner).read.get(&id).copied()
    }

    /// A machine's journal as it is kept, which a test may have broken.
    #[must_use]
    pub fn journal_of(&self, machine: &Machine) -> Arc<dyn Journal> {
        self.kept(&machine.host, machine.journal.clone())
    }

    fn kept(&self, host: &Host, journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
        match &self.broken {
            Some(broken) => broken.journal(host, journal),
            None => journal,
        }
    }

    fn was_read(&self, host: &Host, id: TransferId) {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        let state = books.now.get(host).copied().unwrap_or(0);
        books.read.insert(id, state);
    }

    fn life_of(&self, host: &Host) -> Option<Life> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    /// A wire of one machine in one life.
    fn wire(&self, host: &Host, life: &Life) -> Wire {
        Wire { wires: self.clone(), host: host.clone(), life: life.clone() }
    }

    /// How long something takes that is not slow, and how often others go first.
    async fn jitter(&self, what: &str, nth: u64) {
        let mut dice = self.faults.draws().of(what, nth);
        for _ in 0..dice.below(4) {
            tokio::task::yield_now().await;
        }
        if dice.chance(1, 200) {
            self.clock.sleep(slowness(&mut dice)).await;
        } else if dice.chance(1, 2) {
            self.clock.sleep(dice.time(Duration::from_millis(1)..Duration::from_millis(30))).await;
        }
    }
}

/// One machine in one life.
#[derive(Debug, Clone)]
struct Wire {
    wires: Wires,
    host: Host,
    life: Life,
}

impl Wire {
    fn strike(&self, site: Site, what: impl fmt::Display) -> Option<(Trouble, crate::dice::Dice)> {
        self.wires.story.trace(format_args!("{} {site:?} {what}", self.host));
        self.wires.faults.strike(&self.host, &self.life, site, what)
    }

    fn is_dead(&self) -> bool {
        self.life.is_over()
    }
}

impl Wiring for Wires {
    fn clock(&self, host: &Host, clock: Arc<dyn Clock>) -> Arc<dyn Clock> {
        let clock = match &self.broken {
            Some(broken) => broken.clock(host, clock),
            None => clock,
        };
        let skewed = Skewed::new(clock);
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone(), skewed.clone());
        Arc::new(skewed)
    }

    fn files(&self, host: &Host, life: &Life, files: Arc<dyn FileStore>) -> Arc<dyn FileStore> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone(), life.clone());
        let files = match &self.broken {
            Some(broken) => broken.files(host, files),
            None => files,
        };
        files::wired(self.wire(host, life), files)
    }

    fn journal(&self, host: &Host, life: &Life, journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
        let wire = self.wire(host, life);
        let plan = move |operation: Operation, nth: u64| {
            use towpath_journal::Fault;
            if wire.is_dead() {
                return Some(Fault::Before);
            }
            let site = match operation {
                Operation::Create | Operation::Append | Operation::AppendUnleased | Operation::Release | Operation::Renew => {
                    Site::Journal
                }
                _ => Site::JournalLook,
            };
            match wire.strike(site, format_args!("{operation:?} {nth} of the journal"))?.0 {
                Trouble::Unanswered => Some(Fault::After),
                _ => Some(Fault::Before),
            }
        };
        Arc::new(FaultJournal::new(self.kept(host, journal), plan))
    }

    fn fate(&self, host: &Host, call: &'static str) -> Fate {
        let refused = self.broken.as_ref().and_then(|broken| broken.refusal(host, call));
        let plain = Fate { refused, ..Fate::copied(1) };
        let Some(life) = self.life_of(host) else { return plain };
        let Some((trouble, mut dice)) = self.wire(host, &life).strike(Site::Call, format_args!("call {call}")) else {
            return plain;
        };
        match trouble {
            Trouble::Slow if dice.chance(1, 2) => Fate { before: slowness(&mut dice), ..plain },
            Trouble::Slow => Fate { after: slowness(&mut dice), ..plain },
            Trouble::Unanswered => Fate { answered: false, ..plain },
            Trouble::Doubled => Fate { copies: 2, ..plain },
            Trouble::Echoed => Fate { echo: Some(slowness(&mut dice) * 5), ..plain },
            _ => Fate { copies: 0, ..plain },
        }
    }

    fn connect(&self, host: &Host, life: &Life, connect: Arc<dyn Connect>) -> Arc<dyn Connect> {
        Arc::new(far::Link::new(self.wire(host, life), connect))
    }

    fn app_servers(&self, host: &Host, life: &Life, servers: Arc<dyn AppServers>) -> Arc<dyn AppServers> {
        let servers = match &self.broken {
            Some(broken) => broken.app_servers(servers),
            None => servers,
        };
        Arc::new(far::Links::new(self.wire(host, life), servers))
    }

    fn target(&self, host: &Host, life: &Life, target: Arc<dyn ImportTarget>) -> Arc<dyn ImportTarget> {
        let target = match &self.broken {
            Some(broken) => broken.target(target),
            None => target,
        };
        Arc::new(database::App::new(self.wire(host, life), target, self.locks.clone()))
    }

    fn trust(&self, _: &Host, trust: Arc<dyn Trust>) -> Arc<dyn Trust> {
        match &self.broken {
            Some(broken) => broken.trust(trust),
            None => trust,
        }
    }

    fn keys(&self, _: &Host, keys: Arc<dyn KeyFiles>) -> Arc<dyn KeyFiles> {
        match &self.broken {
            Some(broken) => broken.keys(keys),
            None => keys,
        }
    }

    fn extractor(&self, host: &Host, life: &Life, extractor: Arc<dyn Extractor>) -> Arc<dyn Extractor> {
        Arc::new(database::Erp::new(self.wire(host, life), extractor))
    }
}

#[async_trait]
impl FailPoints for Wires {
    async fn hit(&self, place: Place, stage: Stage, point: Point, key: &TransferKey) {
        let tenant = (place != Place::Relay).then(|| key.tenant.clone());
        let host = Host { place, tenant };
        let name = self.story.name(key.id);
        let what = format!("{name} {stage} {point}");
        if point == Point::AfterJournal {
            self.story.tell(format_args!("{host}: {name} has passed {stage}"));
        }
        self.jitter(&format!("{host} {what}"), 0).await;
        let Some(life) = self.life_of(&host) else { return };
        self.wire(&host, &life).strike(Site::Stage, &what);
        if life.is_over() {
            std::future::pending::<()>().await;
        }
    }
}
