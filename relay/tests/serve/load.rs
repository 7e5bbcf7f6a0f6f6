//! The program with many agents, many logins, many handles and large folders: what it holds, and for how long.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use towpath_keys::{Identity, KeyKind, sign_enrolment};
use towpath_relay::registry::NewEnrolment;
use towpath_transfer::{
    RemotePath, TransferId,
    api::{EnrolmentRequest, Role},
};
use towpath_transport::{
    client::SftpStore,
    relay_api::{HttpRelayApi, RelayApi as _},
    server::Limits,
    store::{BytesSource, NoProgress, RemoteStore as _, StoreErrorKind, StoreResult},
};

use crate::flow::{End, PATIENCE, Running, Tokens, asked, at, clock, entropy, within};

/// What the relay may hold resident with [`AGENTS`] idle agents, in KiB; and where each has an SFTP session besides, as it has only while it
/// transfers.
const RESIDENT_KIB: u64 = 100 * 1024;
const RESIDENT_WITH_SFTP_KIB: u64 = 200 * 1024;
/// The agents of the published figure.
const AGENTS: usize = 1_000;
/// Ends of one tenant here; fewer than it may have.
const PER_TENANT: usize = 100;
/// As long as the relay lets a poll wait.
const LONGEST_POLL: Duration = Duration::from_secs(towpath_transfer::api::MAX_WAIT_SECONDS);
/// Connections that log in at once: fewer than an address may have.
const AT_ONCE: usize = 8;
/// Logins of the published figure: so many a second, for so long, and by when 99 of 100 are through.
const LOGINS_A_SECOND: u32 = 50;
const LOGIN_SECONDS: u32 = 30;
const LOGIN_P99: Duration = Duration::from_secs(2);
/// The entries of a large folder, what its first page may take, and what it may cost in memory, in KiB.
const ENTRIES: usize = 100_000;
const FIRST_PAGE: Duration = Duration::from_secs(2);
const FIRST_PAGE_KIB: u64 = 50 * 1024;
/// What a large folder may cost more than a small one, in KiB, so that it cannot be held as a whole; and what it has more of.
const LISTING_MORE_KIB: u64 = 2 * 1024;
const FEW_ENTRIES: usize = 1_000;

impl Running {
    /// A line of the process's status, in KiB.
    fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process())).unwrap();
        let found = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
        found.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// From now on `VmHWM:` is what the process holds at most after this; returns what it holds now.
    fn forget_peak(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.process()), "5").unwrap();
        self.memory("VmHWM:")
    }

    fn resident(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Files, sockets and whatever else the process has open.
    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process())).unwrap().count()
    }

    async fn connections(&self, kind: &str) -> usize {
        let metrics = asked(self.admin, "/metrics").await;
        let name = format!("towpath_relay_connections{{kind=\"{kind}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |number| number.parse().unwrap())
    }

    async fn until_connected(&self, kind: &str, count: usize) {
        within(async {
            while self.connections(kind).await != count {
                clock().sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    /// Agents, each with a key of its own, written to the registry as an enrolment over the network does.
    async fn enrol_many(&self, count: usize, kind: impl Fn(usize) -> KeyKind) -> Vec<End> {
        let registry = self.registry().await;
        registry.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
        let model = self.enrol(Role::Agent, KeyKind::Ed25519).await.answer;
        let mut ends = Vec::new();
        for first in (0..count).step_by(PER_TENANT) {
            let tenant = format!("t{first}").parse().unwrap();
            let scope = registry.create_tenant(&tenant, None).await.unwrap();
            for number in first..count.min(first + PER_TENANT) {
                let identity = Identity::generate(kind(number), &*entropy()).unwrap();
                let new = NewEnrolment {
                    role: Role::Agent,
                    name: Some(format!("a{number}").parse().unwrap()),
                    valid_for: PATIENCE,
                    relay_url: self.url.clone(),
                    spki_pin: None,
                };
                let (code, name) = registry.create_enrolment(&scope, new).await.unwrap();
                let request = EnrolmentRequest {
                    tenant: tenant.clone(),
                    role: Role::Agent,
                    public_key: identity.public_line().clone(),
                    proof: sign_enrolment(&identity, code.secret.as_bytes(), &self.url).unwrap(),
                    secret: code.secret,
                    landing: None,
                };
                registry.redeem(&request).await.unwrap();
                let sftp_user = format!("{tenant}.{name}");
                let answer = towpath_transfer::api::EnrolmentAnswer { tenant: tenant.clone(), name, sftp_user, ..model.clone() };
                let tokens = Tokens { identity: identity.clone(), user: answer.sftp_user.clone() };
                let api = HttpRelayApi::new(&self.url, &self.trust(), Some(Arc::new(tokens)), clock()).unwrap();
                ends.push(End { identity, answer, api });
            }
        }
        ends
    }

    /// A connection from an address of this loopback that belongs to the agent of this number alone.
    async fn stream(&self, number: usize) -> TcpStream {
        stream_from(self.address, number).await
    }

    /// A transfer of an agent with this many files in its folder, written by the SFTP server's side.
    async fn large_folder(&self, agent: &End, sftp: &SftpStore, files: usize) -> String {
        let id = TransferId::new(&*clock(), &*entropy());
        let name = format!("/uplink/{id}");
        sftp.make_dir_all(&at(&name)).await.unwrap();
        let folder = self.spool_of(agent).join("uplink").join(id.to_string());
        for number in 0..files {
            std::fs::write(folder.join(format!("f{number:06}.csv.bz2")), b"x").unwrap();
        }
        name
    }

    fn spool_of(&self, agent: &End) -> PathBuf {
        self.host.state.join("spool").join(agent.answer.tenant.as_str()).join(agent.answer.name.as_str())
    }
}

async fn stream_from(to: SocketAddr, number: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let [high, low] = u16::try_from(number % 60_000 + 256).unwrap().to_be_bytes();
    socket.bind(SocketAddr::from((Ipv4Addr::new(127, 1, high, low), 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// What an agent has open that does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Idle {
    /// A long poll.
    Polls,
    /// An SFTP session, too.
    PollsAndSftp,
}

/// Agents that do nothing; the longer they are kept the longer they do.
async fn idle(relay: &Running, agents: Vec<End>, from: usize, how: Idle) -> (Vec<SftpStore>, JoinSet<()>) {
    let (places, mut starting) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for (number, agent) in agents.into_iter().enumerate() {
        let (places, address) = (Arc::clone(&places), relay.address);
        starting.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let mut sftp = None;
            if how == Idle::PollsAndSftp {
                let session = within(agent.log_in(stream_from(address, from + number).await)).await.unwrap();
                assert!(within(session.list(&at("/downlink"), 10)).await.unwrap().is_empty());
                sftp = Some(session);
            }
            within(agent.api.peers()).await.unwrap();
            (sftp, agent)
        });
    }
    let (mut sessions, mut polls) = (Vec::new(), JoinSet::new());
    while let Some(started) = starting.join_next().await {
        let (sftp, agent) = started.unwrap();
        sessions.extend(sftp);
        polls.spawn(async move {
            loop {
                agent.api.downlinks(LONGEST_POLL, None).await.unwrap();
            }
        });
    }
    (sessions, polls)
}

/// What the relay holds resident with a few idle agents, and with so many, in KiB.
async fn resident_with(count: usize, how: Idle) -> (u64, u64) {
    const FEW: usize = 4;
    let state = tempfile::tempdir().unwrap();
    let relay = Running::start_program(state.path()).await;
    let mut few = relay.enrol_many(count, |_| KeyKind::Ed25519).await;
    let rest = few.split_off(FEW);
    let first = idle(&relay, few, 0, how).await;
    relay.until_connected("poll", FEW).await;
    let base = relay.resident();
    let others = idle(&relay, rest, FEW, how).await;
    relay.until_connected("poll", count).await;
    relay.until_connected("ssh", if how == Idle::Polls { 0 } else { count }).await;
    let (resident, most) = (relay.resident(), relay.memory("VmHWM:"));
    println!("{how:?}: {FEW} idle agents: {base} KiB resident; {count}: {resident} KiB; the most ever: {most} KiB");
    drop((first, others));
    relay.stop().await;
    (base, resident)
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_agents_cost_the_relay_little_memory() {
    const COUNT: usize = 40;
    let (base, resident) = resident_with(COUNT, Idle::PollsAndSftp).await;
    // Few agents are lost in what the program and the system hold at any moment, so that they get more than their share.
    let most = base + 4 * RESIDENT_WITH_SFTP_KIB * COUNT as u64 / AGENTS as u64;
    assert!(resident <= most, "{base} KiB with 4, {resident} KiB with {COUNT}; {most} KiB would be much");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_a_thousand_idle_agents_take_less_than_100_mib() {
    let (_, resident) = resident_with(AGENTS, Idle::Polls).await;
    assert!(resident < RESIDENT_KIB, "{resident} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_a_thousand_idle_agents_with_sftp_sessions_take_less_than_200_mib() {
    let (_, resident) = resident_with(AGENTS, Idle::PollsAndSftp).await;
    assert!(resident < RESIDENT_WITH_SFTP_KIB, "{resident} KiB");
}

/// Has so many logins begin at that pace, with Ed25519 and RSA in turn, and says how long each took from when it was due.
async fn log_in_often(relay: &Running, users: &[Arc<End>], logins: u32, a_second: u32) -> Vec<Duration> {
    let (watch, mut running) = (clock(), JoinSet::new());
    let begun = watch.monotonic();
    for number in 0..logins {
        // The next one comes when it comes, however long the others take.
        let due = begun + Duration::from_secs(1) * number / a_second;
        watch.sleep(due.saturating_sub(watch.monotonic())).await;
        let number = usize::try_from(number).unwrap();
        let (agent, address, watch) = (Arc::clone(&users[number % users.len()]), relay.address, Arc::clone(&watch));
        running.spawn(async move {
            let stream = stream_from(address, number).await;
            let sftp = within(agent.log_in(stream)).await.unwrap();
            let took = watch.monotonic().saturating_sub(due);
            drop(sftp);
            took
        });
    }
    let mut took: Vec<Duration> = running.join_all().await;
    took.sort_unstable();
    took
}

/// Logins at a pace while so many other agents do nothing; by when 99 of 100 were through.
async fn logins_beside(idle_agents: usize, logins: u32, a_second: u32) -> Duration {
    const USERS: usize = 16;
    let state = tempfile::tempdir().unwrap();
    let relay = Running::start_program(state.path()).await;
    let kind = |number: usize| if number < USERS && number.is_multiple_of(2) { KeyKind::Rsa2048 } else { KeyKind::Ed25519 };
    let mut users = relay.enrol_many(USERS + idle_agents, kind).await;
    let others = idle(&relay, users.split_off(USERS), 0, Idle::Polls).await;
    relay.until_connected("poll", idle_agents).await;
    let users: Vec<Arc<End>> = users.into_iter().map(Arc::new).collect();
    let before = relay.resident();
    let took = log_in_often(&relay, &users, logins, a_second).await;
    let at = |percent: usize| took[took.len() * percent / 100];
    println!(
        "{} logins, {a_second} a second, Ed25519 and RSA-2048, beside {idle_agents} idle agents: half within {:?}, 99 of 100 within {:?}, \
         the last {:?}; the relay had {before} KiB resident before and {} KiB after, and never more than {} KiB",
        took.len(),
        at(50),
        at(99),
        took[took.len() - 1],
        relay.resident(),
        relay.memory("VmHWM:"),
    );
    // Nobody has lost its long poll to the logins; one that is asked again just now is there in a moment.
    relay.until_connected("poll", idle_agents).await;
    drop(others);
    relay.stop().await;
    at(99)
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_at_a_pace_are_through_within_two_seconds() {
    let p99 = logins_beside(4, 20, LOGINS_A_SECOND / 5).await;
    assert!(p99 < LOGIN_P99, "{p99:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_fifty_logins_a_second_beside_a_thousand_idle_agents_are_through_within_two_seconds() {
    let p99 = logins_beside(AGENTS, LOGINS_A_SECOND * LOGIN_SECONDS, LOGINS_A_SECOND).await;
    assert!(p99 < LOGIN_P99, "{p99:?}");
}

/// Opens and closes files and listings, then drops sessions with all the handles they may have; nothing stays open.
async fn open_and_drop(cycles: usize, sessions: usize) {
    let state = tempfile::tempdir().unwrap();
    let relay = Running::start_program(state.path()).await;
    relay.registry().await.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    let agent = Arc::new(relay.enrol(Role::Agent, KeyKind::Ed25519).await);
    let sftp = agent.log_in(relay.stream(0).await).await.unwrap();
    let folder = relay.large_folder(&agent, &sftp, 3).await;
    let (file, part) = (at(&format!("{folder}/f000000.csv.bz2")), at(&format!("{folder}/g.csv.bz2.part")));
    let cycle = async |number: usize| match number % 30 {
        // Whatever is written is synced, too, which takes its time.
        0 => drop(sftp.put_new(&part, BytesSource::new(b"xy".to_vec()), &NoProgress).await.unwrap()),
        one if one % 2 == 0 => assert!(sftp.list(&at(&folder), 10).await.unwrap().len() >= 3),
        _ => assert!(sftp.open(&file, 0).await.unwrap().next().await.unwrap().is_some()),
    };
    // Whatever is opened only once, such as connections to the databases, is open then.
    for number in 0..60 {
        cycle(number).await;
    }
    relay.until_connected("ssh", 1).await;
    let before = relay.descriptors();
    for number in 0..cycles {
        cycle(number).await;
    }
    for _ in 0..sessions {
        let stream = relay.stream(1).await.into_std().unwrap();
        let cord = stream.try_clone().unwrap();
        let other = agent.log_in(TcpStream::from_std(stream).unwrap()).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..Limits::default().open_handles {
            held.push(other.open(&file, 0).await.unwrap());
        }
        let one_more: StoreResult<_> = other.open(&file, 0).await;
        assert!(one_more.is_err(), "a session has no more handles than that");
        // Nothing says goodbye.
        cord.shutdown(std::net::Shutdown::Both).unwrap();
        drop((held, other));
    }
    relay.until_connected("ssh", 1).await;
    let mut left = relay.descriptors();
    let patient = clock().monotonic() + PATIENCE;
    while left > before && clock().monotonic() < patient {
        clock().sleep(Duration::from_millis(50)).await;
        left = relay.descriptors();
    }
    println!(
        "{cycles} times opened and closed, {sessions} sessions dropped with 100 handles: {before} open before, {left} after"
    );
    assert!(left <= before, "{before} descriptors before, {left} after");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_descriptor_leaks_from_handles_or_dropped_sessions() {
    open_and_drop(200, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_no_descriptor_leaks_over_100_000_cycles() {
    open_and_drop(100_000, 300).await;
}

/// A folder for many files, in memory where the system has such a place: a disk that has to take 50,000 new files keeps everybody waiting
/// whose data it is to hold, such as the databases of other tests.
fn roomy() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A folder of so many entries over SFTP, after one of [`FEW_ENTRIES`]: how long its first page took, how much more memory the relay ever
/// had than before both, and how much of that the larger one took, in KiB.
async fn large_listing(entries: usize) -> (Duration, u64, u64) {
    let state = roomy();
    let relay = Running::start_program(state.path()).await;
    relay.registry().await.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    let agent = relay.enrol(Role::Agent, KeyKind::Ed25519).await;
    let sftp = agent.log_in(relay.stream(0).await).await.unwrap();
    let list_all = async |folder: &RemotePath, entries: usize| {
        let listed = sftp.list(folder, entries).await.unwrap();
        assert_eq!(listed.len(), entries);
        assert!(listed.windows(2).all(|pair| pair[0].name < pair[1].name), "each name once");
    };
    let [small, large] = [FEW_ENTRIES, entries].map(|entries| relay.large_folder(&agent, &sftp, entries));
    let [small, large] = [at(&small.await), at(&large.await)];
    let (before, watch) = (relay.forget_peak(), clock());
    list_all(&small, FEW_ENTRIES).await;
    let with_few = relay.memory("VmHWM:");
    let begun = watch.monotonic();
    let refused = sftp.list(&large, 1).await.unwrap_err();
    let first = watch.monotonic().saturating_sub(begun);
    assert_eq!(refused.kind(), StoreErrorKind::Limit, "who wants one is told after the first page that there are more");
    let begun = watch.monotonic();
    list_all(&large, entries).await;
    let all = watch.monotonic().saturating_sub(begun);
    let peak = relay.memory("VmHWM:");
    let (all_more, more) = (peak.saturating_sub(before), peak.saturating_sub(with_few));
    println!(
        "{entries} entries: the first page after {first:?}, all after {all:?}, {all_more} KiB more than before, {more} KiB more than {FEW_ENTRIES} entries"
    );
    relay.stop().await;
    (first, all_more, more)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_folder_is_listed_whole_in_little_memory() {
    let (_, _, more) = large_listing(50_000).await;
    assert!(more < LISTING_MORE_KIB, "{more} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_a_folder_of_100_000_entries_shows_its_first_page_within_two_seconds() {
    let (first, all, more) = large_listing(ENTRIES).await;
    assert!(first < FIRST_PAGE, "{first:?}");
    assert!(all < FIRST_PAGE_KIB && more < LISTING_MORE_KIB, "{all} KiB, {more} KiB");
}
