//! An installation with everything that happens to it.

mod rights;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use tempfile::TempDir;
use towpath_journal::{DriverSettings, FailPoints, Filter, Journal as _, MAX_LIST, TransferRecord};
use towpath_receiver::restored::COMPARE_INTERVAL;
use towpath_testkit::seams::{Agent, Ends, Host, Machine, Nature, Pace, Relay};
use towpath_transfer::{
    Clock as _, Direction, TransferKey, TransferState,
    clock::{ManualClock, SeededEntropy},
    state::Place,
};

use crate::{
    broken::Broken,
    dice::Draws,
    erp::{self, Erp, marker},
    faults::{Faults, Loss},
    still::Idle,
    story::Story,
    wires::Wires,
    workload::{Act, Habit, Workload},
};

/// How often the programs look where nobody tells them. Seldom: what they are not told of then shows.
const LOOK: Duration = Duration::from_secs(20);
/// How often they look while nobody does anything.
const SELDOM: Duration = Duration::from_secs(60 * 60);
/// How often a receiver compares its app databases while nobody does anything, beside the time when it starts: a database is opened
/// for each, which is what a seed costs most.
const COMPARE_SELDOM: Duration = Duration::from_secs(6 * 60 * 60);
/// How often an agent asks for a receipt.
const ASK: Duration = Duration::from_secs(10);
/// How often the relay clears away.
const UPKEEP: Duration = Duration::from_secs(60 * 60);
/// How long the relay keeps what has ended.
const RETENTION: Duration = Duration::from_secs(30);
/// How long a machine stays off.
const OFF: std::ops::Range<Duration> = Duration::from_secs(1)..Duration::from_secs(120);
/// Within this time after the last fault everything must be at rest.
const PATIENCE: Duration = Duration::from_secs(3 * 60 * 60);
/// The same where clocks were set: what has ended is kept for a while, and by a clock that was a day ahead that is a day more.
const PATIENCE_WITH_CLOCKS: Duration = Duration::from_secs(30 * 60 * 60);
/// How long is waited at the end for everything that is cleared away only now and then.
const QUIET: Duration = Duration::from_secs(26 * 60 * 60);
/// The same where clocks were set: what was written by a clock that was a day ahead becomes old a day later.
const QUIET_WITH_CLOCKS: Duration = Duration::from_secs(50 * 60 * 60);
/// How often it is looked whether everything is at rest.
const GLANCE: Duration = Duration::from_secs(5);
/// How long work may go on beside a transfer that has come to its end: what is slow has then been waited for.
const WORK_ENDS: Duration = Duration::from_secs(60);
/// What is left on a disk that is as good as full, in bytes.
const ROOM: u64 = 2_048;

pub use rights::{Revoked, Rights};

/// A file that an app has sent back.
#[derive(Debug)]
pub struct Sent {
    /// The number of its tenant.
    pub tenant: usize,
    /// Its transfer.
    pub key: TransferKey,
    /// What it has.
    pub content: Vec<u8>,
    /// Whether the app was told that it is on its way. Otherwise it may be all the same.
    pub confirmed: bool,
}

/// The installation.
pub struct World {
    /// What happened.
    pub story: Story,
    /// The time of all.
    pub clock: ManualClock,
    /// What is between the programs and the rest.
    pub wires: Wires,
    /// The comms server.
    pub relay: Relay,
    /// The tenants' two ends each.
    pub ends: Vec<Ends>,
    /// The tenants' ERPs.
    pub erps: Vec<Erp>,
    /// What the apps have sent back.
    pub sent: Vec<Sent>,
    /// What each ERP has taken.
    pub taken: Vec<Vec<Vec<u8>>>,
    /// The agents that were revoked.
    pub revoked: Vec<Revoked>,
    /// What has become of each tenant's rights.
    pub rights: Vec<Rights>,
    /// What was wrong while it went on.
    pub wrong: BTreeSet<String>,
    /// When the last fault was over.
    pub calm_at: Duration,
    habits: Vec<Habit>,
    agenda: BTreeMap<(Duration, u64), Act>,
    acts: u64,
    glanced: Duration,
    at_rest: bool,
    clocks_were_set: bool,
    idle: Idle,
    first_tasks: usize,
    nature: Nature,
    deletes: bool,
    dir: TempDir,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("ends", &self.ends.len()).finish_non_exhaustive()
    }
}

/// A folder in memory where there is one: a database syncs at every commit.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("towpath-simulation-");
        builder
    };
    builder().tempdir_in(memory).or_else(|_| builder().tempdir()).unwrap()
}

impl World {
    /// Everything enrolled and switched on; nothing has happened yet.
    ///
    /// # Panics
    /// Where it cannot be set up.
    pub async fn new(
        draws: Draws,
        workload: &Workload,
        story: Story,
        clock: ManualClock,
        faults: Faults,
        broken: Option<Broken>,
        idle: Idle,
    ) -> Self {
        let wires = Wires::new(faults, story.clone(), clock.clone(), broken);
        let drivers = DriverSettings { poll: LOOK, ..DriverSettings::default() };
        let nature = Nature {
            clock: Arc::new(clock.clone()),
            entropy: Arc::new(SeededEntropy::new(draws.of("entropy", 0).below(u64::MAX))),
            wiring: Arc::new(wires.clone()),
            pace: Pace { drivers, receipts: ASK, scan: LOOK, compare: COMPARE_INTERVAL, upkeep: Some(UPKEEP) },
        };
        let dir = folder();
        let mut relay = Relay::new(&nature, RETENTION).await;
        relay.start(Arc::new(wires.clone())).await;
        let (mut ends, mut erps) = (Vec::new(), Vec::new());
        for tenant in &workload.tenants {
            let folder = dir.path().join(tenant.as_str());
            let (made, tables) = (erp::made(tenant), erp::configured(workload.deletes));
            let made = Ends::enrolled(&nature, &relay, &folder, tenant, &made, &tables).await;
            erps.push(Erp::open(&made.agent.erp, tenant, workload.deletes).await);
            ends.push(made);
        }
        let agenda = BTreeMap::new();
        let (taken, habits, zero) = (vec![Vec::new(); ends.len()], workload.habits.clone(), Duration::ZERO);
        let (sent, wrong, revoked) = (Vec::new(), BTreeSet::new(), Vec::new());
        let rights = ends.iter().map(|_| Rights::default()).collect();
        let mut world = Self {
            story,
            clock,
            wires,
            relay,
            ends,
            erps,
            sent,
            taken,
            revoked,
            rights,
            wrong,
            calm_at: zero,
            habits,
            agenda,
            acts: 0,
            glanced: zero,
            at_rest: false,
            clocks_were_set: false,
            idle,
            first_tasks: 0,
            nature,
            deletes: workload.deletes,
            dir,
        };
        for host in world.hosts() {
            world.switch_on(&host).await;
        }
        world.settle().await;
        world.first_tasks = tasks();
        for (at, act) in &workload.acts {
            world.plan(*at, act.clone());
        }
        world
    }

    /// Every machine.
    #[must_use]
    pub fn hosts(&self) -> Vec<Host> {
        self.machines().iter().map(|machine| machine.host.clone()).collect()
    }

    /// Every machine, but those of agents that were replaced.
    #[must_use]
    pub fn machines(&self) -> Vec<&Machine> {
        let ends = self.ends.iter().flat_map(|ends| [&ends.agent.machine, &ends.receiver.machine]);
        [&self.relay.machine].into_iter().chain(ends).collect()
    }

    fn plan(&mut self, after: Duration, act: Act) {
        self.acts += 1;
        self.agenda.insert((self.clock.monotonic() + after, self.acts), act);
    }

    fn machine(&mut self, host: &Host) -> &mut Machine {
        let ends = self.ends.iter_mut().find(|ends| Some(&ends.tenant) == host.tenant.as_ref());
        match (ends, host.place) {
            (Some(ends), Place::Agent) => &mut ends.agent.machine,
            (Some(ends), Place::Receiver) => &mut ends.receiver.machine,
            _ => &mut self.relay.machine,
        }
    }

    /// Lets `time` pass with everything that is to happen in it; ends earlier where `enough` says so.
    async fn pass(&mut self, time: Duration, enough: impl Fn(&Self) -> bool) {
        let end = self.clock.monotonic() + time;
        loop {
            self.settle().await;
            let now = self.clock.monotonic();
            if self.glanced + GLANCE <= now {
                self.glanced = now;
                self.release().await;
                self.at_rest = self.open().await.is_empty() && self.agenda.values().all(|act| !act.is_owed());
            }
            if now >= end || enough(self) {
                return;
            }
            let sleeper = self.clock.next_due().map_or(end, |due| now + due);
            let agenda = self.agenda.first_key_value().map_or(end, |((at, _), _)| *at);
            self.clock.advance(sleeper.min(agenda).min(end).saturating_sub(now));
            // A sleep that was given up can be due without anybody waking.
            let now = self.clock.monotonic();
            while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= now) {
                let act = entry.remove();
                self.act(act).await;
            }
        }
    }

    /// Lets everybody go on who can, and clears away who died of it.
    async fn settle(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.wires.faults.death() => {}
                () = self.idle.reached() => {}
            }
            let deaths = self.wires.faults.deaths();
            if deaths.is_empty() {
                break;
            }
            for death in deaths {
                self.bury(&death.host, death.loss).await;
            }
        }
        self.watch_deliveries();
    }

    async fn bury(&mut self, host: &Host, loss: Loss) {
        let number = self.ends.iter().position(|ends| Some(&ends.tenant) == host.tenant.as_ref());
        // The ERP is on the agent's host: whoever takes files away at once and loses the power knows itself not what it had.
        let takes = host.place == Place::Agent && number.and_then(|number| self.habits.get(number)) == Some(&Habit::Takes);
        let machine = self.machine(host);
        machine.kill().await;
        let disk = machine.disk.clone();
        let mut dice = self.wires.faults.draws().of(format_args!("{host} is off"), self.acts);
        if loss == Loss::Power && !takes {
            // Either nothing that was not synced is there, or some of it.
            if dice.chance(1, 2) { disk.power_loss() } else { disk.torn_power_loss(&mut |limit| dice.below(limit)) }
        }
        let off = dice.time(OFF);
        self.plan(off, Act::Start(host.clone()));
    }

    async fn switch_on(&mut self, host: &Host) {
        if self.machine(host).is_on() {
            return;
        }
        let points: Arc<dyn FailPoints> = Arc::new(self.wires.clone());
        let door = self.relay.door.clone();
        let ends = self.ends.iter_mut().find(|ends| Some(&ends.tenant) == host.tenant.as_ref());
        let started = match (ends, host.place) {
            (Some(ends), Place::Agent) => {
                ends.agent.start(&door, 1, points).await;
                Ok(())
            }
            (Some(ends), Place::Receiver) => ends.receiver.try_start(&door, 1, points).await,
            _ => self.relay.try_start(points).await,
        };
        match started {
            Ok(()) => self.story.tell(format_args!("{host}: on")),
            Err(failure) => {
                self.story.tell(format_args!("{host}: does not start: {}", failure.report()));
                // Whatever has died meanwhile was never on.
                self.plan(Duration::from_secs(5), Act::Start(host.clone()));
            }
        }
    }

    async fn act(&mut self, act: Act) {
        match act {
            Act::ChangeErp(tenant) => self.change_erp(tenant).await,
            Act::Plan { tenant, full } => self.plan_transfer(tenant, full).await,
            Act::Send(tenant) => self.send(tenant).await,
            Act::Stop(host, loss) => {
                if let Some(life) = self.machine(&host).life().cloned() {
                    self.wires.faults.die(&host, &life, loss, "as if somebody had pulled the plug");
                }
            }
            Act::Start(host) => self.switch_on(&host).await,
            Act::Fill(host, time) => {
                let disk = self.machine(&host).disk.clone();
                disk.set_space(Some(disk.used() + ROOM));
                self.story.tell(format_args!("{host}: the disk is nearly full"));
                self.plan(time, Act::Empty(host));
            }
            Act::Empty(host) => {
                self.machine(&host).disk.set_space(None);
                self.story.tell(format_args!("{host}: the disk has room again"));
            }
            Act::Rotate(tenant, overlap) => self.rotate(tenant, overlap),
            Act::Revoke(tenant, again) => self.revoke(tenant, again).await,
            Act::EndSessions(number) => self.end_sessions(number).await,
            Act::Replace(tenant) => self.replace(tenant).await,
            Act::RevokeReceiver(tenant) => self.revoke_receiver(tenant).await,
            Act::Disapprove(tenant) => self.disapprove(tenant),
            Act::Approve(tenant) => self.approve(tenant).await,
            Act::Retry(tenant) => self.retry(tenant).await,
            Act::SetClock(host, millis) => {
                if let Some(clock) = self.wires.clock_of(&host) {
                    clock.set(millis);
                    self.clocks_were_set = true;
                    self.story.tell(format_args!("{host}: the clock is off by {millis} ms from now on"));
                }
            }
        }
    }

    async fn change_erp(&mut self, tenant: usize) {
        let (Some(erp), Some(ends)) = (self.erps.get_mut(tenant), self.ends.get(tenant)) else { return };
        let mut dice = self.wires.faults.draws().of(format_args!("{} changes", ends.tenant), erp.now() as u64);
        let state = erp.change(&mut dice).await;
        self.wires.erp_changed(&ends.agent.machine.host, state);
        self.story.tell(format_args!("{}'s ERP: state {state}", ends.tenant));
    }

    async fn plan_transfer(&mut self, tenant: usize, full: bool) {
        let Some(ends) = self.ends.get(tenant) else { return };
        let host = &ends.agent.machine.host;
        if ends.agent.machine.life().is_none_or(towpath_testkit::seams::Life::is_over) {
            self.story.tell(format_args!("{host}: is off, and nothing is planned"));
            return;
        }
        match ends.agent.try_plan(full).await {
            Ok(id) => {
                self.story.call(id, |number| format!("U{number}"));
                self.story.tell(format_args!("{host}: planned {}{}", self.story.name(id), if full { ", full" } else { "" }));
            }
            Err(failure) => self.story.tell(format_args!("{host}: not planned: {}", failure.report())),
        }
    }

    async fn send(&mut self, tenant: usize) {
        let Some(ends) = self.ends.get(tenant) else { return };
        let host = &ends.receiver.machine.host;
        if ends.receiver.machine.life().is_none_or(towpath_testkit::seams::Life::is_over) {
            self.story.tell(format_args!("{host}: is off, and nothing is sent"));
            return;
        }
        let number = self.sent.len();
        let content = format!("item,quantity\r\n{},{number}\r\n", marker(&ends.tenant)).into_bytes();
        // Names come again, so that some files get another one at the ERP.
        let name = format!("orders-{}.csv", number % 3);
        let (id, sent) = ends.receiver.try_send(&ends.agent.enrolment.name, &name, &content).await;
        let key = ends.agent.key(id);
        self.story.call(id, |number| format!("D{number}"));
        let told = sent.as_ref().map_or_else(towpath_transfer::Failure::report, |()| "taken".to_owned());
        self.story.tell(format_args!("{host}: {name} is sent as {}: {told}", self.story.name(id)));
        let confirmed = sent.is_ok() && !ends.receiver.machine.life().is_none_or(towpath_testkit::seams::Life::is_over);
        self.sent.push(Sent { tenant, key, content, confirmed });
    }

    /// The ERPs look into their folders: whatever is there must be whole.
    fn watch_deliveries(&mut self) {
        for (number, ends) in self.ends.iter().enumerate() {
            let seen: Vec<_> = self.agents(number).into_iter().flat_map(Agent::delivered).collect();
            for (name, bytes) in seen {
                if !self.sent.iter().any(|sent| sent.tenant == number && sent.content == bytes) {
                    let what =
                        format!("{}: the ERP sees {name}, which nobody has sent as it is: {bytes:?}", ends.agent.machine.host);
                    self.wrong.insert(what);
                }
            }
            if self.habits.get(number) == Some(&Habit::Takes) {
                let taken = ends.agent.take_delivered();
                if !taken.is_empty() {
                    self.story.tell(format_args!("{}'s ERP: takes {} files", ends.tenant, taken.len()));
                }
                if let Some(all) = self.taken.get_mut(number) {
                    all.extend(taken);
                }
            }
        }
    }

    /// Lets the whole workload happen, and then everything come to rest.
    pub async fn live(&mut self, window: Duration) {
        self.wires.faults.begin();
        self.pass(window, |_| false).await;
        self.calm().await;
        self.rest("after the last fault").await;
    }

    async fn calm(&mut self) {
        self.wires.faults.end();
        self.story.tell("from here on nothing goes wrong any more");
        let mut owed: Vec<Act> = std::mem::take(&mut self.agenda).into_values().filter(Act::is_owed).collect();
        for host in self.hosts() {
            self.machine(&host).disk.set_space(None);
            if let Some(clock) = self.wires.clock_of(&host) {
                clock.set(0);
            }
        }
        self.settle().await;
        owed.extend(std::mem::take(&mut self.agenda).into_values().filter(Act::is_owed));
        for host in self.hosts() {
            self.switch_on(&host).await;
        }
        owed.into_iter().for_each(|act| self.plan(Duration::ZERO, act));
        self.calm_at = self.clock.monotonic();
    }

    async fn rest(&mut self, when: &str) {
        self.at_rest = false;
        let patience = if self.clocks_were_set { PATIENCE_WITH_CLOCKS } else { PATIENCE };
        self.pass(patience, |world| world.at_rest).await;
        let open = self.open().await;
        if open.is_empty() {
            self.story.tell(format_args!("everything is at rest, {:?} {when}", self.clock.monotonic() - self.calm_at));
            return;
        }
        for record in open {
            let (id, state) = (self.story.name(record.key.id), record.state.word());
            let why = record.last_failure.map_or_else(|| "no failure".to_owned(), |failure| format!("{failure:?}"));
            let parked = if record.parked { ", parked" } else { "" };
            self.wrong.insert(format!(
                "{id} of {} does not come to rest at the {:?}: {state}{parked}: {why}",
                record.key.tenant, record.place
            ));
        }
    }

    /// Everything once more, now that nothing goes wrong; then a day in which nobody does anything.
    pub async fn once_more(&mut self) {
        for tenant in (0..self.ends.len()).filter(|tenant| !self.is_out(*tenant)).collect::<Vec<_>>() {
            self.change_erp(tenant).await;
            self.plan_transfer(tenant, false).await;
            self.send(tenant).await;
        }
        self.calm_at = self.clock.monotonic();
        self.rest("after everything was sent once more").await;
        // Now, because a program that starts ends whatever leases it finds.
        self.pass(WORK_ENDS, |world| world.leases_held().is_empty()).await;
        let held = self.leases_held();
        self.wrong.extend(held);
        for host in self.hosts() {
            let machine = self.machine(&host);
            machine.kill().await;
            let pace = &mut machine.nature.pace;
            (pace.drivers.poll, pace.scan, pace.compare) = (SELDOM, SELDOM, COMPARE_SELDOM);
            // The agents are off meanwhile: they would ask the relay all day long. So would whoever waits for one that was revoked.
            if host.place == Place::Relay || host.place == Place::Receiver && !self.is_concerned(&host) {
                self.switch_on(&host).await;
            }
        }
        let quiet = if self.clocks_were_set { QUIET_WITH_CLOCKS } else { QUIET };
        self.pass(quiet, |_| false).await;
        for host in self.hosts() {
            self.switch_on(&host).await;
        }
        // What was taken in the middle of a fault is noted within the hour, and then delivered.
        self.calm_at = self.clock.monotonic();
        self.rest("after a day").await;
    }

    /// How many transfers there were, both ways.
    pub async fn transfers(&self) -> usize {
        let mut count = 0;
        for ends in &self.ends {
            count += known(&ends.agent.machine, Direction::Uplink).await.len();
            count += known(&ends.agent.machine, Direction::Downlink).await.len();
        }
        count
    }

    /// What is wrong with the number of tasks: once everything is at rest there are hardly more than there were before anything
    /// happened, at most one for each machine.
    #[must_use]
    pub fn tasks_left(&self) -> Option<String> {
        let (first, now) = (self.first_tasks, tasks());
        (now > first + self.machines().len()).then(|| format!("{now} tasks are alive where {first} were at the start"))
    }

    /// Who holds a lease. Whoever waits for what a revoked end will never say asks again and again, and may.
    ///
    /// # Panics
    /// Never: a journal in memory answers at once.
    #[must_use]
    pub fn leases_held(&self) -> Vec<String> {
        let all = self.all_machines().into_iter().filter(|machine| !self.is_concerned(&machine.host));
        let held = |machine: &Machine| machine.journal.copy().break_leases().now_or_never().unwrap().unwrap();
        let held = all.map(|machine| (&machine.host, held(machine)));
        held.filter(|(_, held)| *held > 0)
            .map(|(host, held)| format!("{host}: {held} leases are held though nothing is to be done"))
            .collect()
    }

    /// Every transfer on every machine that has not ended there.
    async fn open(&self) -> Vec<TransferRecord> {
        let mut open = Vec::new();
        for machine in self.machines() {
            let all = machine.journal.list(&Filter::default(), MAX_LIST, None).await.unwrap_or_default();
            open.extend(all.into_iter().filter(|record| !is_over(record) && !self.is_explained(record)));
        }
        open
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Whether nothing is left to be done with a transfer on a machine.
fn is_over(record: &TransferRecord) -> bool {
    match (record.place, &record.state) {
        (Place::Relay, TransferState::Removed { .. }) => true,
        (Place::Relay, _) => false,
        _ => record.is_over(),
    }
}

/// The transfers of one direction that a machine knows, oldest first.
///
/// # Panics
/// Never: a journal in memory can be read.
pub async fn known(machine: &Machine, direction: Direction) -> Vec<TransferRecord> {
    let filter = Filter { direction: Some(direction), ..Filter::default() };
    let mut all = machine.journal.list(&filter, MAX_LIST, None).await.unwrap();
    all.reverse();
    all
}
