//! `kill -9` drawn from a seed: which program, or which two, and where, at a named failpoint or after so many of its steps, while
//! transfers are under way in both directions. Whatever was killed, everything is imported once and delivered once.
//!
//! A seed that fails is named, with how to run it alone. Which of two things that happen at once comes first is the machine's choice,
//! so a seed says what is done and not all that comes of it.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
};

use towpath_samples::erp::{self, TouchOptions};
use towpath_testkit::{AGENT, End, JOB, Program, Server, TENANT, World, assert_same_tables, eventually, query_text, query_texts};
use towpath_transfer::{Entropy as _, clock::SeededEntropy};

use crate::{downlink::Erp, executable, tables};

/// Names one seed to run, in place of all others.
const SEED: &str = "TOWPATH_KILL_SEED";
/// The agent's jobs over the same ERP database.
const JOBS: [&str; 2] = [JOB, "second"];
const KIND: &str = "recommended-orders";
const POINTS: [&str; 3] = ["before-effect", "after-effect", "after-journal"];
/// Each program's stages, and how often each comes in a round at least.
const STAGES: [(&str, &[(&str, u64)]); 3] = [
    (
        "agent",
        &[
            ("extract", 2),
            ("pack", 2),
            ("push", 2),
            ("receipt", 2),
            ("pull", 2),
            ("verify", 2),
            ("deliver", 6),
            ("acknowledge", 2),
        ],
    ),
    ("relay", &[("accept", 2), ("forward", 2), ("fetch", 2), ("pack", 2), ("queue", 2), ("remove", 2)]),
    ("receiver", &[("verify", 2), ("import", 2), ("receipt", 2), ("export", 2), ("notify", 2)]),
];
/// A program that is killed at some moment is killed after so many steps at most.
const MOST_STEPS: u64 = 10;

/// Where a program is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum When {
    At(String),
    AfterSteps(u64),
}

/// A program that is to be killed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Victim {
    program: usize,
    when: When,
}

/// Draws what a seed stands for.
struct Draw(SeededEntropy);

impl Draw {
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % bound
    }

    fn of<'a, T>(&self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    fn victims(&self) -> Vec<Victim> {
        let first = usize::try_from(self.below(3)).unwrap();
        let mut programs = vec![first];
        if self.below(3) == 0 {
            programs.push((first + 1 + usize::try_from(self.below(2)).unwrap()) % 3);
        }
        programs.into_iter().map(|program| Victim { program, when: self.when(program) }).collect()
    }

    fn when(&self, program: usize) -> When {
        if self.below(4) == 0 {
            return When::AfterSteps(1 + self.below(MOST_STEPS));
        }
        let (place, stages) = STAGES[program];
        let (stage, times) = self.of(stages);
        When::At(format!("{place}:{stage}:{}:{}", self.of(&POINTS), 1 + self.below(*times)))
    }
}

/// One installation in which seed after seed is run.
struct Scene {
    /// It stops to look before its folder goes.
    erp: Erp,
    world: World,
    end: End,
    /// The programs in the order of [`STAGES`].
    running: [Option<Server>; 3],
    returned: u64,
}

impl Scene {
    fn new() -> Self {
        let (world, end, _, relay, receiver) = World::running(executable(), 40);
        let erp = Erp::new(world.dir.path());
        let jobs: String = JOBS.iter().map(|job| erp::job_toml(job, &end.erp)).collect();
        let folder = erp.folder.display();
        end.agent
            .configure(&format!("[receipt]\npoll = \"100ms\"\n{jobs}\n[[delivery]]\nkind = \"{KIND}\"\nfolder = '{folder}'\n"));
        relay.kill();
        // Files go at once, so that the stage that removes them is one of those that can be killed.
        world.configure_relay("[spool]\nretention = \"1s\"\n");
        drop(receiver);
        let mut scene = Self { erp, world, end, running: [None, None, None], returned: 0 };
        for program in [1, 2, 0] {
            scene.start(program, None);
        }
        scene
    }

    fn program(&self, program: usize) -> &Program {
        [&self.end.agent, &self.world.relay, &self.end.receiver][program]
    }

    /// Starts a program, which dies at this failpoint.
    fn start(&mut self, program: usize, failpoint: Option<&str>) {
        self.running[program] = None;
        let idle = self.program(program);
        let server = match failpoint {
            // It may reach its failpoint before it listens.
            Some(failpoint) => idle.with("TOWPATH_FAILPOINT", failpoint).start(&[COMMANDS[program]]),
            None if program == 0 => idle.start(&[COMMANDS[program]]),
            None => idle.serve(&[COMMANDS[program]]),
        };
        self.running[program] = Some(server);
    }

    /// Steps that a program has noted in its journal.
    fn steps(&self, program: usize) -> u64 {
        journal(self.program(program), "SELECT coalesce(sum(events), 0) FROM transfers")
    }

    /// Sets two transfers under way each way.
    fn send(&mut self, seed: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime
            .block_on(erp::touch(&self.end.erp, &TouchOptions { seed: seed * 1_000 + self.returned, ..TouchOptions::default() }))
            .unwrap();
        for _ in 0..2 {
            self.returned += 1;
            let file = self.world.dir.path().join("orders.csv");
            fs::write(&file, content(self.returned)).unwrap();
            let path = file.to_str().unwrap();
            let _ = self.end.receiver.run(&["send", path, "--kind", KIND, "--to", AGENT]).succeeded();
        }
        let planned = |end: &End| -> u64 { journal(&end.agent, "SELECT count(*) FROM transfers WHERE direction = 'uplink'") };
        let before = planned(&self.end);
        let mut sending = JOBS.map(|job| self.end.agent.start(&["send", "--job", job]));
        // One that is still there when its transfer is in the journal has nothing more to do for it.
        eventually("both transfers are in the journal", || {
            let over = sending.iter_mut().all(|send| send.ended().is_some());
            (planned(&self.end) >= before + 2 || over).then_some(())
        });
    }

    /// Kills and starts again whoever is to die, until all have died. Another round of transfers is sent where all is quiet before.
    fn kill(&mut self, seed: u64, victims: &[Victim]) {
        let mut open: Vec<(Victim, u64)> = Vec::new();
        for victim in victims {
            if let When::At(failpoint) = &victim.when {
                self.start(victim.program, Some(failpoint));
            }
            open.push((victim.clone(), self.steps(victim.program)));
        }
        let mut rounds = 0;
        while !open.is_empty() {
            assert!(rounds < 4, "{open:?} was not reached");
            rounds += 1;
            self.send(seed);
            eventually(&format!("{open:?} has died, or all is quiet"), || {
                open.retain(|(victim, before)| !self.has_died(victim, *before));
                (open.is_empty() || self.is_quiet()).then_some(())
            });
        }
    }

    /// Whether a victim's time has come; if so it is dead, and has been started again.
    fn has_died(&mut self, victim: &Victim, before: u64) -> bool {
        let over = match &victim.when {
            When::At(failpoint) => self.running[victim.program].as_mut().is_none_or(|server| {
                let ended = server.ended();
                assert!(ended.is_none_or(|status| status.signal() == Some(9)), "{failpoint}: it has ended with {ended:?}");
                ended.is_some()
            }),
            When::AfterSteps(steps) => self.steps(victim.program) >= before + steps,
        };
        if over {
            self.start(victim.program, None);
        }
        over
    }

    /// Whether nothing is under way anywhere.
    fn is_quiet(&self) -> bool {
        let open = "SELECT count(*) FROM transfers WHERE ended = 0";
        let removed = "SELECT count(*) FROM transfers WHERE over = 0";
        journal(&self.end.agent, open) == 0 && journal(&self.end.receiver, open) == 0 && journal(&self.world.relay, removed) == 0
    }

    /// After everything has come to its end everything is there, once.
    fn all_is_well(&self) {
        eventually("all is quiet", || self.is_quiet().then_some(()));
        for job in JOBS {
            let app = self.end.receiver.state.join("import").join(AGENT).join(format!("{job}.sqlite"));
            assert_same_tables(&self.end.erp, &app, &tables());
            let sql = format!("SELECT id FROM transfers WHERE job = '{job}' AND word = 'imported' ORDER BY id");
            let (imported, sent) =
                (query_texts(&app, "SELECT transfer FROM towpath_imports ORDER BY transfer"), ids(&self.end.agent, &sql));
            assert_eq!(imported, sent, "the app database's ledger and the agent's journal");
        }
        let other = "SELECT count(*) FROM transfers WHERE NOT word IN ('imported', 'delivered', 'removed')";
        for (program, (place, _)) in STAGES.iter().enumerate() {
            assert_eq!(journal(self.program(program), other), 0, "a transfer of {place} has ended otherwise");
            assert_eq!(journal(self.program(program), "SELECT count(*) FROM transfers WHERE parked = 1"), 0);
        }
        let taken = self.erp.taken_all(self.returned);
        assert_eq!(taken, (1..=self.returned).map(|nth| (content(nth), 1)).collect());
        for folder in ["uplink", "downlink"] {
            let landing = self.end.receiver.state.join("landing").join(folder).join(AGENT);
            eventually("nothing is left on the landing", || names(&landing).is_empty().then_some(()));
        }
        for room in ["uplink", "fetched", "packed", "downlink"] {
            let spool = self.world.relay.state.join("spool").join(TENANT).join(AGENT).join(room);
            eventually("nothing is left in the spool", || names(&spool).is_empty().then_some(()));
        }
    }

    /// Every receipt that either end has kept is the other's word.
    fn receipts_verify(&self) {
        let _ = self.end.agent.run(&["receipts", "verify"]).succeeded();
        for id in ids(&self.end.receiver, "SELECT id FROM transfers WHERE direction = 'downlink'") {
            let _ = self.end.receiver.run(&["receipts", "verify", &id]).succeeded();
        }
    }
}

/// How each program is told to work, in the order of [`STAGES`].
const COMMANDS: [&str; 3] = ["run", "serve", "serve"];

fn content(nth: u64) -> String {
    format!("item_no,quantity\r\nA-{nth},{nth}\r\n")
}

fn names(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// A number from a program's journal.
fn journal(program: &Program, sql: &str) -> u64 {
    query_text(&program.state.join("journal.sqlite"), sql).parse().unwrap()
}

fn ids(program: &Program, sql: &str) -> Vec<String> {
    query_texts(&program.state.join("journal.sqlite"), sql)
}

/// Says which seed it was, where the test fails.
struct Told {
    seed: u64,
    victims: Vec<Victim>,
}

impl Drop for Told {
    #[expect(clippy::print_stderr, reason = "a seed that fails is of use only where it is named")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, victims } = self;
            eprintln!(
                "seed {seed} failed: {victims:?}\nto run it alone: {SEED}={seed} cargo nextest run -p towpath-e2e seeded_kills_of_the_first"
            );
        }
    }
}

fn run(seeds: impl Iterator<Item = u64>) {
    let mut scene = Scene::new();
    for seed in seeds {
        let victims = Draw(SeededEntropy::new(seed)).victims();
        let _told = Told { seed, victims: victims.clone() };
        scene.kill(seed, &victims);
        scene.all_is_well();
    }
    scene.receipts_verify();
}

/// The seeds of one test, or, in the first of them alone, the one seed that the environment names.
fn seeds(first: u64, last: u64) {
    match std::env::var(SEED).map(|seed| seed.parse().unwrap()) {
        Ok(seed) if first == 1 => run([seed].into_iter()),
        Ok(_) => {}
        Err(_) => run(first..=last),
    }
}

#[test]
fn seeded_kills_of_the_first_ten() {
    seeds(1, 10);
}

#[test]
fn seeded_kills_of_the_second_ten() {
    seeds(11, 20);
}

#[test]
fn seeded_kills_of_the_third_ten() {
    seeds(21, 30);
}

#[test]
fn long_seeded_kills_of_two_hundred() {
    seeds(31, 230);
}

#[test]
fn seeds_draw_every_program_and_every_stage() {
    let drawn: Vec<Victim> = (1..=230).flat_map(|seed| Draw(SeededEntropy::new(seed)).victims()).collect();
    for (program, (place, stages)) in STAGES.iter().enumerate() {
        assert!(drawn.iter().any(|victim| victim.program == program && matches!(victim.when, When::AfterSteps(_))), "{place}");
        for (stage, _) in *stages {
            let named = |victim: &Victim| matches!(&victim.when, When::At(at) if at.starts_with(&format!("{place}:{stage}:")));
            assert!(drawn.iter().any(named), "no seed kills {place} at {stage}");
        }
    }
}
