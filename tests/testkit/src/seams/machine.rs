//! A machine: what lasts when its program crashes, and the program's one life at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use towpath_journal::{DriverSettings, Journal, Lease, MemoryJournal, Observer, StageReport};
use towpath_receiver::restored::COMPARE_INTERVAL;
use towpath_transfer::{Clock, Entropy, Stage, state::Place};
use towpath_transport::files::{FileStore, MemoryFiles};

use super::{
    power::{Life, PoweredFiles},
    wiring::{Host, Plain, Wiring},
};

/// How often the programs look where nobody tells them.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Of the stages.
    pub drivers: DriverSettings,
    /// How often an agent asks for receipts.
    pub receipts: Duration,
    /// How often a receiver looks at its landing.
    pub scan: Duration,
    /// How often a receiver compares its app databases with what it has signed for.
    pub compare: Duration,
    /// How often the relay clears away beside its stages; never, where this is absent.
    pub upkeep: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        let (receipts, scan) = (Duration::from_secs(1), Duration::from_secs(5));
        Self { drivers: DriverSettings::default(), receipts, scan, compare: COMPARE_INTERVAL, upkeep: None }
    }
}

/// Time and randomness of a whole installation, and what is between its programs and the rest of the world.
#[derive(Debug, Clone)]
pub struct Nature {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// What is in between.
    pub wiring: Arc<dyn Wiring>,
    /// How often the programs look.
    pub pace: Pace,
}

impl Nature {
    /// Nothing is in between.
    #[must_use]
    pub fn plain(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy, wiring: Arc::new(Plain), pace: Pace::default() }
    }
}

/// Counts the steps that run, so that a test knows when every program waits.
#[derive(Debug, Default)]
pub struct Busy(AtomicUsize);

impl Busy {
    /// How many steps run.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Observer for Busy {
    fn stage_started(&self, _: Place, _: Stage, _: &Lease) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn stage_finished(&self, _: &StageReport<'_>) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One machine.
#[derive(Debug)]
pub struct Machine {
    /// Which one it is.
    pub host: Host,
    /// What it lives in; the clock is its own.
    pub nature: Nature,
    /// Its disk.
    pub disk: MemoryFiles,
    /// Its journal.
    pub journal: Arc<MemoryJournal>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    life: Life,
    busy: Arc<Busy>,
    program: JoinHandle<()>,
}

/// What a machine had at some time.
#[derive(Debug)]
pub struct Backup {
    /// Its disk.
    pub disk: MemoryFiles,
    journal: MemoryJournal,
}

/// What a program is started with.
#[derive(Debug)]
pub struct Start {
    /// The life that begins.
    pub life: Life,
    /// The disk in it.
    pub files: Arc<dyn FileStore>,
    /// The journal in it.
    pub journal: Arc<dyn Journal>,
    /// Watches the steps.
    pub busy: Arc<Busy>,
}

impl Machine {
    /// A machine that is off.
    #[must_use]
    pub fn new(host: Host, nature: &Nature) -> Self {
        let nature = Nature { clock: nature.wiring.clock(&host, Arc::clone(&nature.clock)), ..nature.clone() };
        let disk = MemoryFiles::with_clock(Arc::clone(&nature.clock));
        let journal = MemoryJournal::new(host.place, Arc::clone(&nature.clock), Arc::clone(&nature.entropy));
        Self { host, nature, disk, journal: Arc::new(journal), running: None }
    }

    /// Whether a program runs on it, or stands still on it since its life has ended.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.running.is_some()
    }

    /// The life of the program that runs on it.
    #[must_use]
    pub fn life(&self) -> Option<&Life> {
        self.running.as_ref().map(|running| &running.life)
    }

    /// Switches the machine on. Leases of an earlier life end, as they do when a program starts.
    ///
    /// # Panics
    /// Where the machine is on.
    pub async fn switch_on(&self) -> Start {
        assert!(self.running.is_none(), "the machine is on");
        self.journal.break_leases().await.unwrap();
        let life = Life::new();
        let wiring = &self.nature.wiring;
        let files = wiring.files(&self.host, &life, Arc::new(PoweredFiles::new(self.disk.clone(), life.clone())));
        let journal = wiring.journal(&self.host, &life, self.journal.clone());
        Start { life, files, journal, busy: Arc::default() }
    }

    /// What a backup has that is made now, whether the program runs or not.
    #[must_use]
    pub fn backup(&self) -> Backup {
        Backup { disk: self.disk.copy(), journal: self.journal.copy() }
    }

    /// Puts a backup back, as often as one likes; with `disk` only where that is wanted, else the files stay as they are.
    ///
    /// # Panics
    /// Where the machine is on.
    pub fn put_back(&mut self, backup: &Backup, disk: bool) {
        assert!(self.running.is_none(), "the machine is on");
        self.journal = Arc::new(backup.journal.copy());
        if disk {
            self.disk = backup.disk.copy();
        }
    }

    /// Runs a program on the machine.
    pub fn run(&mut self, start: &Start, program: impl Future<Output = ()> + Send + 'static) {
        let (life, busy) = (start.life.clone(), Arc::clone(&start.busy));
        self.running = Some(Running { life, busy, program: tokio::spawn(program) });
    }

    /// How many steps run.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.busy.steps())
    }

    /// The power goes: the program stands where it was, and what was not synced is lost.
    ///
    /// # Panics
    /// Where the program had ended by itself before.
    pub async fn crash(&mut self) {
        if self.kill().await {
            self.disk.power_loss();
        }
    }

    /// The program alone is killed: the disk keeps everything. Whether there was one.
    ///
    /// # Panics
    /// Where the program had ended by itself before.
    pub async fn kill(&mut self) -> bool {
        let Some(running) = self.running.take() else { return false };
        running.life.end();
        running.program.abort();
        let ended = running.program.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "the program ended by itself");
        true
    }
}
