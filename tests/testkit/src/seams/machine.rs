//! A machine: what lasts when its program crashes, and the program's one life at a time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::task::JoinHandle;
use towpath_journal::{Journal as _, Lease, MemoryJournal, Observer, StageReport};
use towpath_transfer::{Clock, Entropy, Stage, state::Place};
use towpath_transport::files::MemoryFiles;

use super::power::{Life, PoweredFiles};

/// Time and randomness of a whole installation.
#[derive(Debug, Clone)]
pub struct Nature {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
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
    pub files: Arc<PoweredFiles>,
    /// Watches the steps.
    pub busy: Arc<Busy>,
}

impl Machine {
    /// A machine that is off.
    #[must_use]
    pub fn new(place: Place, nature: &Nature) -> Self {
        let disk = MemoryFiles::with_clock(Arc::clone(&nature.clock));
        let journal = MemoryJournal::new(place, Arc::clone(&nature.clock), Arc::clone(&nature.entropy));
        Self { disk, journal: Arc::new(journal), running: None }
    }

    /// Switches the machine on. Leases of an earlier life end, as they do when a program starts.
    ///
    /// # Panics
    /// Where the machine is on.
    pub async fn switch_on(&self) -> Start {
        assert!(self.running.is_none(), "the machine is on");
        self.journal.break_leases().await.unwrap();
        let life = Life::new();
        let files = Arc::new(PoweredFiles::new(self.disk.clone(), life.clone()));
        Start { life, files, busy: Arc::default() }
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
