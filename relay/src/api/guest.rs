//! Whoever is at the other end of a connection, until somebody there has proven who they are.

use std::{
    future::pending,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::http::Extensions;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, Code, Failure};
use towpath_transport::server::{Attempts, Grace, Limits, Ticket};

use super::callers::{CallerPlace, Callers};

/// The peer of one connection. It holds its place among the connections that have not logged in until a token or an enrolment code of
/// it was accepted, and answers for what was refused. Clones are the same guest.
#[derive(Debug, Clone)]
pub struct Guest {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Only the connection itself says so, never a header.
    address: IpAddr,
    ticket: Mutex<Option<Ticket>>,
    displaced: CancellationToken,
    accepted: CancellationToken,
    /// Refused too often.
    unwanted: CancellationToken,
    attempts: Arc<Attempts>,
    failures: AtomicUsize,
    most_failures: usize,
    /// By when somebody must have proven who they are.
    grace: Grace,
    /// Whether the connection is about to end.
    leaving: AtomicBool,
    /// Requests that are being answered, without those whose body is still awaited.
    running: watch::Sender<usize>,
    /// Whether a call is under way whose body comes before any proof.
    turn: AtomicBool,
    /// What it takes of what its caller may have.
    place: Mutex<Option<CallerPlace>>,
}

/// How a connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// Its running requests are answered.
    Answered,
    /// At once.
    Cut,
}

/// A request that is being answered; dropping it says that it is no more.
#[derive(Debug)]
pub(super) struct Running(Guest);

/// A request that came over a connection that ends, and on which nobody was accepted; what it asks is not looked at.
#[derive(Debug, Clone)]
pub(super) struct TurnedAway(Guest);

/// The one call of a connection whose body comes before any proof; dropping it says that it is answered.
#[derive(Debug)]
pub(super) struct Turn(Guest);

/// The body of such a call is awaited, which is nothing that a stranger could be waited for; dropping it says that it is there.
#[derive(Debug)]
pub(super) struct Reading<'a>(&'a Guest);

/// How long whoever makes more of such calls at once is asked to wait.
const TURN_PAUSE: Duration = Duration::from_secs(1);
/// How long somebody has to take the last answers on a connection that ends and on which nothing is worked on any more.
pub(super) const FAREWELL_TIME: Duration = Duration::from_secs(2);
/// How long whoever asks on such a connection is asked to wait.
const FAREWELL_PAUSE: Duration = Duration::from_secs(1);

impl Guest {
    /// The peer at `address`, which has taken the place of `ticket`. Failures are counted in `attempts`, and of `limits` counts how
    /// often a login may fail on one connection. Its grace is that of the ticket.
    #[must_use]
    pub fn new(address: SocketAddr, ticket: Ticket, attempts: Arc<Attempts>, limits: &Limits) -> Self {
        let inner = Inner {
            address: address.ip(),
            displaced: ticket.displacement(),
            grace: ticket.grace(),
            ticket: Mutex::new(Some(ticket)),
            accepted: CancellationToken::new(),
            unwanted: CancellationToken::new(),
            attempts,
            failures: AtomicUsize::new(0),
            most_failures: limits.key_offers.max(1),
            leaving: AtomicBool::new(false),
            running: watch::Sender::new(0),
            turn: AtomicBool::new(false),
            place: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whose request it is, where it came over a connection.
    pub(super) fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    pub(super) fn address(&self) -> IpAddr {
        self.inner.address
    }

    /// `user` has proven who they are: the connection is counted among the `callers` as theirs, where nobody was accepted on it before,
    /// and to its end. It gives its place among the strangers back.
    ///
    /// # Errors
    /// `rate-limited` where that one has as many as it may have; then the connection ends.
    pub(super) fn accepted(&self, callers: &Callers, user: &str) -> Result<(), Failure> {
        let mut place = self.inner.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none() {
            *place = Some(callers.take(user).inspect_err(|_| self.inner.unwanted.cancel())?);
            self.inner.accepted.cancel();
            self.inner.ticket.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        Ok(())
    }

    /// Notes a refusal, where it is one of a proof, and returns it with how long it makes no sense to try again. The connection ends
    /// when it has had its tries, and at once where its address has failed too often. What is valid is accepted from there all the
    /// same, so that nobody can lock out a neighbour behind the same address translation.
    pub(super) fn refused(&self, failure: Failure) -> Failure {
        if !is_of_proof(failure.code()) {
            return failure;
        }
        let Inner { attempts, failures, most_failures, unwanted, address, .. } = &*self.inner;
        attempts.failed(*address);
        let penalty = attempts.refused_for(*address);
        if failures.fetch_add(1, SeqCst).saturating_add(1) >= *most_failures || penalty.is_some() {
            unwanted.cancel();
        }
        match penalty {
            Some(pause) => failure.after(pause),
            None => failure,
        }
    }

    /// A request that is being answered from here on.
    ///
    /// # Errors
    /// Where the connection ends and nobody was accepted on it. That is looked at once for each request, which is counted or refused.
    pub(super) fn runs(&self) -> Result<Running, TurnedAway> {
        if self.is_turned_away() {
            return Err(TurnedAway(self.clone()));
        }
        self.count(true);
        Ok(Running(self.clone()))
    }

    /// Whether the connection ends and nobody was accepted on it. Over HTTP/2 the peer decides when it stops asking.
    fn is_turned_away(&self) -> bool {
        let Inner { accepted, unwanted, leaving, .. } = &*self.inner;
        !accepted.is_cancelled() && (unwanted.is_cancelled() || leaving.load(SeqCst))
    }

    fn count(&self, more: bool) {
        let change = |count: &mut usize| *count = if more { count.saturating_add(1) } else { count.saturating_sub(1) };
        self.inner.running.send_modify(change);
    }

    /// A call begins whose body comes before any proof. Such bodies have no place among the requests, so that also whoever was accepted
    /// on the connection sends one at a time.
    ///
    /// # Errors
    /// `rate-limited` where there is one already.
    pub(super) fn turn(&self) -> Result<Turn, Failure> {
        if self.inner.turn.swap(true, SeqCst) {
            let message = "a connection makes one call without a token after the other";
            return Err(Failure::retry(Code::RateLimited, message).after(TURN_PAUSE));
        }
        Ok(Turn(self.clone()))
    }

    /// Completes when the connection has to end.
    pub(super) async fn farewell(&self) -> Farewell {
        let Inner { displaced, accepted, unwanted, grace, running, leaving, .. } = &*self.inner;
        let stranger = async {
            tokio::select! {
                biased;
                () = accepted.cancelled() => pending().await,
                () = displaced.cancelled() => {}
                () = grace.over() => {}
            }
            // Who is just being answered may be about to prove it; a request has its own bound in time.
            if *running.borrow() > 0 { Farewell::Answered } else { Farewell::Cut }
        };
        let farewell = tokio::select! {
            () = unwanted.cancelled() => Farewell::Answered,
            farewell = stranger => farewell,
        };
        leaving.store(true, SeqCst);
        farewell
    }
}

impl Guest {
    /// Completes when somebody who was said farewell to has had the time to take the answers. Who has not proven who they are has
    /// [`FAREWELL_TIME`] from when nothing is worked on, and no time at all once another needs the place. Whoever was accepted, which
    /// may still come with the requests that are being answered, stays; but where they are unwanted all the same, for `time`. That is
    /// also the most that anybody else has.
    pub(super) async fn outstays(&self, clock: &dyn Clock, time: Duration) {
        let Inner { accepted, unwanted, displaced, .. } = &*self.inner;
        let stranger = async {
            tokio::select! {
                () = self.rests(clock) => {}
                () = clock.sleep(time) => {}
                () = async { displaced.cancelled().await; self.until(|count| count == 0).await } => {}
            }
        };
        tokio::select! {
            biased;
            () = accepted.cancelled() => {}
            () = stranger => return,
        }
        unwanted.cancelled().await;
        clock.sleep(time).await;
    }

    /// Completes when nothing has been worked on for [`FAREWELL_TIME`].
    pub(super) async fn rests(&self, clock: &dyn Clock) {
        loop {
            self.until(|count| count == 0).await;
            tokio::select! {
                biased;
                () = self.until(|count| count > 0) => {}
                () = clock.sleep(FAREWELL_TIME) => return,
            }
        }
    }

    /// Waits until so many requests are being answered.
    async fn until(&self, so_many: impl Fn(usize) -> bool) {
        // It does not end before this guest, who has the sender.
        let _ = self.inner.running.subscribe().wait_for(|count| so_many(*count)).await;
    }
}

impl TurnedAway {
    /// What such a request is told: `rate-limited`.
    pub(super) fn why(&self) -> Failure {
        let Inner { attempts, address, .. } = &*self.0.inner;
        let pause = attempts.refused_for(*address).unwrap_or(FAREWELL_PAUSE);
        Failure::retry(Code::RateLimited, "this connection ends: nobody was accepted on it in time or in so many tries")
            .after(pause)
    }
}

impl Turn {
    /// Its body is awaited from here on.
    pub(super) fn reads(&self) -> Reading<'_> {
        self.0.count(false);
        Reading(&self.0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.count(false);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.inner.turn.store(false, SeqCst);
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.count(true);
    }
}

/// Whether a refusal says that somebody is not who they claim to be. A clock that is wrong is none, and neither is a fault in here.
fn is_of_proof(code: Code) -> bool {
    matches!(
        code,
        Code::AuthenticationRefused
            | Code::AgentRevoked
            | Code::EnrolmentUnknown
            | Code::EnrolmentUsed
            | Code::EnrolmentExpired
            | Code::EnrolmentProofInvalid
    )
}

#[cfg(test)]
mod tests {
    mod farewells;

    use async_trait::async_trait;
    use axum::{
        body::Body,
        http::{
            Request,
            header::{AUTHORIZATION, CONTENT_TYPE},
        },
    };
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        task::JoinHandle,
    };
    use tower::ServiceExt as _;
    use towpath_transfer::{
        api::{EnrolmentRequest, Role},
        public_key::PublicKeyLine,
    };
    use towpath_transport::server::{Authenticator, HostKey, Session, SshServer, SshServerConfig};

    use super::*;
    use crate::{
        api::{WebLimits, WebService},
        service::tests::{Enrolled, World},
    };

    const WRONG: &str = "a.b.c";
    const HERE: [u8; 4] = [192, 0, 2, 7];

    struct Nobody;

    #[async_trait]
    impl Authenticator for Nobody {
        async fn authenticate(&self, _: &str, _: &PublicKeyLine, _: SocketAddr) -> Option<Session> {
            None
        }
    }

    struct Scene {
        world: World,
        web: WebService,
        ssh: SshServer,
    }

    impl Scene {
        async fn new() -> Self {
            Self::with(WebLimits::default()).await
        }

        async fn with(limits: WebLimits) -> Self {
            let world = World::new().await;
            let web = WebService::new(world.service().clone(), limits, world.relay.metrics().clone());
            let host_keys = vec![HostKey::ed25519_from_seed(&[7; 32])];
            let config = SshServerConfig { host_keys, limits: Limits::default(), clock: Arc::new(world.clock.clone()) };
            Self { ssh: SshServer::new(config, Arc::new(Nobody)).unwrap(), world, web }
        }

        /// A connection from `address`.
        fn connect(&self, address: [u8; 4]) -> Line {
            self.connect_over(address, 64 * 1024)
        }

        /// A connection on which so many bytes may be under way.
        fn connect_over(&self, address: [u8; 4], bytes: usize) -> Line {
            self.connect_until(address, bytes, CancellationToken::new())
        }

        /// The same at a relay that may be stopped.
        fn connect_until(&self, address: [u8; 4], bytes: usize, shutdown: CancellationToken) -> Line {
            let peer = SocketAddr::from((address, 1));
            let (stream, far) = tokio::io::duplex(bytes);
            let guest = Guest::new(peer, self.ssh.admit(peer), self.ssh.attempts(), self.ssh.limits());
            let web = self.web.clone();
            let serving = tokio::spawn(async move { web.serve(far, guest, shutdown).await });
            Line { stream, serving }
        }

        fn refused_for(&self) -> Option<Duration> {
            self.ssh.attempts().refused_for(HERE.into())
        }
    }

    struct Line {
        stream: DuplexStream,
        serving: JoinHandle<()>,
    }

    impl Line {
        async fn send(&mut self, request: &str) -> (u16, String) {
            self.stream.write_all(request.as_bytes()).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(self.stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let length = header(&head, "content-length").unwrap().parse().unwrap();
            self.stream.read_exact(&mut vec![0; length]).await.unwrap();
            (head[9..12].parse().unwrap(), head)
        }

        async fn ask(&mut self, token: &str) -> (u16, String) {
            self.send(&format!("GET /v1/peers HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {token}\r\n\r\n")).await
        }

        /// Nothing more comes, and nobody works on it any more.
        async fn ends_here(mut self) {
            let mut rest = Vec::new();
            self.stream.read_to_end(&mut rest).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&rest), "");
            self.serving.await.unwrap();
        }
    }

    /// An enrolment as it is sent.
    fn enrolment(request: &EnrolmentRequest) -> String {
        let body = serde_json::to_string(request).unwrap();
        let length = body.len();
        format!(
            "POST /v1/enrolments HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    }

    fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    #[tokio::test]
    async fn a_flood_of_silent_connections_pushes_itself_out_and_never_who_has_shown_a_token() {
        let scene = Scene::new().await;
        let agent = scene.world.enrol("acme", Role::Agent).await;
        let first: Vec<Line> = (0..20).map(|_| scene.connect(HERE)).collect();
        let mut neighbour = scene.connect(HERE);
        assert_eq!(neighbour.ask(&agent.token(&scene.world)).await.0, 200);
        let second: Vec<Line> = (0..21).map(|_| scene.connect(HERE)).collect();
        for line in first {
            line.ends_here().await;
        }
        let mut second = second.into_iter();
        second.next().unwrap().ends_here().await;
        assert_eq!(neighbour.ask(&agent.token(&scene.world)).await.0, 200, "it is no stranger any more");
        // A place is given back with the connection, too.
        let mut last = second.next_back().unwrap();
        drop(second);
        assert_eq!(last.send("GET /healthz HTTP/1.1\r\nhost: relay\r\n\r\n").await.0, 200, "who is not in the way stays");
    }

    #[tokio::test]
    async fn whoever_fails_too_often_is_refused_for_longer_and_longer_and_the_neighbour_is_not() {
        let scene = Scene::new().await;
        let agent = scene.world.enrol("acme", Role::Agent).await;
        let (code, identity) = (scene.world.code("acme", Role::Receiver).await, scene.world.identity());
        for minutes in [1_u64, 2, 4] {
            let mut line = scene.connect(HERE);
            for _ in 0..6 {
                let (status, head) = line.ask(WRONG).await;
                assert_eq!((status, header(&head, "retry-after")), (401, None));
            }
            line.ends_here().await;
            let mut line = scene.connect(HERE);
            for _ in 0..3 {
                assert_eq!(header(&line.ask(WRONG).await.1, "retry-after"), None);
            }
            assert_eq!(scene.refused_for(), None);
            let (status, head) = line.ask(WRONG).await;
            assert_eq!((status, header(&head, "retry-after")), (401, Some(&*(60 * minutes).to_string())), "the tenth");
            line.ends_here().await;
            assert_eq!(scene.refused_for(), Some(Duration::from_mins(minutes)), "also for SSH");

            let mut line = scene.connect(HERE);
            assert!(header(&line.ask(WRONG).await.1, "retry-after").is_some());
            line.ends_here().await;
            assert_eq!(scene.connect(HERE).ask(&agent.token(&scene.world)).await.0, 200, "a neighbour gets in");
            assert_eq!(header(&scene.connect([192, 0, 2, 8]).ask(WRONG).await.1, "retry-after"), None, "another address");
            scene.world.clock.advance(Duration::from_mins(minutes));
        }

        // The same for codes; the one that is right is taken from a refused address.
        let good = World::request(&code, &identity);
        let guess = EnrolmentRequest { secret: "guess".into(), ..good.clone() };
        while scene.refused_for().is_none() {
            assert_eq!(scene.connect(HERE).send(&enrolment(&guess)).await.0, 403);
        }
        let mut line = scene.connect(HERE);
        assert_eq!(line.send(&enrolment(&good)).await.0, 200);
        let pushing: Vec<Line> = (0..25).map(|_| scene.connect(HERE)).collect();
        assert_eq!(line.send(&enrolment(&good)).await.0, 200, "and is no stranger from then on");
        drop(pushing);
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_request_or_a_clock_is_no_failed_login() {
        let scene = Scene::new().await;
        let agent = scene.world.enrol("acme", Role::Agent).await;
        for _ in 0..20 {
            let late = agent.token(&scene.world);
            scene.world.clock.advance(Duration::from_secs(70));
            let mut line = scene.connect(HERE);
            assert!(line.ask(&late).await.1.starts_with("HTTP/1.1 401"));
            assert_eq!(line.send("GET /nothing HTTP/1.1\r\nhost: relay\r\n\r\n").await.0, 404);
            assert_eq!(line.send("POST /v1/enrolments HTTP/1.1\r\nhost: relay\r\ncontent-length: 0\r\n\r\n").await.0, 415);
        }
        assert_eq!(scene.refused_for(), None);
    }

    #[tokio::test]
    async fn whoever_does_not_take_the_answer_does_not_stay_for_it() {
        let scene = Scene::new().await;
        for _ in 0..20 {
            scene.ssh.attempts().failed(HERE.into());
        }
        let Line { mut stream, serving } = scene.connect_over(HERE, 16);
        let request = format!("GET /v1/peers HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {WRONG}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        // The refusal is on its way, and is never taken.
        assert_eq!(stream.read_u8().await.unwrap(), b'H');
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
            scene.world.clock.advance(Duration::from_millis(100));
            if serving.is_finished() {
                return;
            }
        }
        panic!("the connection stays");
    }

    #[tokio::test]
    async fn strangers_who_take_their_time_with_a_body_hold_nobody_up_and_stay_no_longer() {
        // The time of a request would end them as well.
        let limits = WebLimits { requests: 1, request_time: Duration::from_mins(5), ..WebLimits::default() };
        let scene = Scene::with(limits).await;
        let agent = scene.world.enrol("acme", Role::Agent).await;
        let mut slow: Vec<Line> = (0..20).map(|_| scene.connect(HERE)).collect();
        for line in &mut slow {
            let head = "POST /v1/enrolments HTTP/1.1\r\nhost: relay\r\ncontent-type: application/json\r\ncontent-length: 100\r\n";
            // The answer that asks for the body says that it is awaited.
            line.stream.write_all(format!("{head}expect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
            let mut begun = [0; 25];
            line.stream.read_exact(&mut begun).await.unwrap();
            assert_eq!(&begun, b"HTTP/1.1 100 Continue\r\n\r\n");
            line.stream.write_all(b"{").await.unwrap();
        }
        let mut neighbour = scene.connect([192, 0, 2, 8]);
        assert_eq!(neighbour.ask(&agent.token(&scene.world)).await.0, 200, "the one place is free");
        let code = scene.world.code("acme", Role::Receiver).await;
        let mut other = scene.connect(HERE);
        let request = World::request(&code, &scene.world.identity());
        assert_eq!(other.send(&enrolment(&request)).await.0, 200);
        slow.remove(0).ends_here().await;
        while scene.world.clock.sleepers() < slow.len() {
            tokio::task::yield_now().await;
        }
        scene.world.clock.advance(Duration::from_secs(30));
        for line in slow {
            line.ends_here().await;
        }
    }

    #[tokio::test]
    async fn the_login_grace_counts_from_the_place_on() {
        let scene = Scene::new().await;
        let peer = SocketAddr::from((HERE, 1));
        let ticket = scene.ssh.admit(peer);
        // What comes before HTTP is TLS.
        scene.world.clock.advance(Duration::from_secs(12));
        let guest = Guest::new(peer, ticket, scene.ssh.attempts(), scene.ssh.limits());
        let mut farewell = Box::pin(guest.farewell());
        assert!(futures::poll!(&mut farewell).is_pending());
        scene.world.clock.advance(Duration::from_millis(17_999));
        assert!(futures::poll!(&mut farewell).is_pending());
        scene.world.clock.advance(Duration::from_millis(1));
        assert_eq!(farewell.await, Farewell::Cut);
    }

    #[tokio::test]
    async fn one_key_takes_its_share_of_the_connections_and_no_more() {
        let scene = Scene::with(WebLimits { connections_per_end: 3, ..WebLimits::default() }).await;
        let (greedy, other) = (scene.world.enrol("acme", Role::Agent).await, scene.world.enrol("acme", Role::Receiver).await);
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut line = scene.connect(HERE);
            assert_eq!(line.ask(&greedy.token(&scene.world)).await.0, 200);
            open.push(line);
        }
        let mut further = scene.connect(HERE);
        let (status, head) = further.ask(&greedy.token(&scene.world)).await;
        assert_eq!((status, header(&head, "retry-after")), (429, Some("5")));
        further.ends_here().await;
        assert_eq!(scene.refused_for(), None, "it is no failed login");
        assert_eq!(scene.connect(HERE).ask(&other.token(&scene.world)).await.0, 200);
        let mut first = open.remove(0);
        assert_eq!(first.ask(&greedy.token(&scene.world)).await.0, 200, "what it has goes on");
        let Line { stream, serving } = first;
        drop(stream);
        serving.await.unwrap();
        assert_eq!(scene.connect(HERE).ask(&greedy.token(&scene.world)).await.0, 200);
    }

    #[tokio::test]
    async fn all_keys_of_one_tenant_take_its_share_of_the_connections_and_no_more() {
        let scene = Scene::with(WebLimits { connections_per_tenant: 2, ..WebLimits::default() }).await;
        let (agent, receiver) = (scene.world.enrol("acme", Role::Agent).await, scene.world.enrol("acme", Role::Receiver).await);
        let other = scene.world.enrol("other", Role::Agent).await;
        let (mut one, mut two, mut further) = (scene.connect(HERE), scene.connect(HERE), scene.connect(HERE));
        assert_eq!(one.ask(&agent.token(&scene.world)).await.0, 200);
        assert_eq!(two.ask(&receiver.token(&scene.world)).await.0, 200);
        assert_eq!(further.ask(&receiver.token(&scene.world)).await.0, 429);
        further.ends_here().await;
        assert_eq!(scene.connect(HERE).ask(&other.token(&scene.world)).await.0, 200);
        let Line { stream, serving } = two;
        drop(stream);
        serving.await.unwrap();
        assert_eq!(scene.connect(HERE).ask(&agent.token(&scene.world)).await.0, 200);
    }

    #[tokio::test]
    async fn one_key_takes_its_share_of_the_connections_with_its_enrolment_code_too() {
        let scene = Scene::with(WebLimits { connections_per_end: 3, ..WebLimits::default() }).await;
        let other = scene.world.enrol("acme", Role::Receiver).await;
        let (code, identity) = (scene.world.code("acme", Role::Agent).await, scene.world.identity());
        // The same key is told the same again until the code expires.
        let enrolment = enrolment(&World::request(&code, &identity));
        let mut open = Vec::new();
        for _ in 0..3 {
            let mut line = scene.connect(HERE);
            assert_eq!(line.send(&enrolment).await.0, 200);
            open.push(line);
        }
        let mut further = scene.connect(HERE);
        let (status, head) = further.send(&enrolment).await;
        assert_eq!((status, header(&head, "retry-after")), (429, Some("5")));
        further.ends_here().await;
        let user = "acme.agent";
        let caller = scene.world.registry.authenticate_key(user, identity.public_line()).await.unwrap();
        let greedy = Enrolled { identity, caller };
        let mut further = scene.connect(HERE);
        assert_eq!(further.ask(&greedy.token(&scene.world)).await.0, 429, "its tokens are counted together with its code");
        further.ends_here().await;
        assert_eq!(scene.refused_for(), None, "it is no failed login");
        assert_eq!(scene.connect(HERE).ask(&other.token(&scene.world)).await.0, 200);
        let mut first = open.remove(0);
        assert_eq!(first.send(&enrolment).await.0, 200, "what it has goes on");
        assert_eq!(first.ask(&greedy.token(&scene.world)).await.0, 200);
        let Line { stream, serving } = first;
        drop(stream);
        serving.await.unwrap();
        assert_eq!(scene.connect(HERE).send(&enrolment).await.0, 200);
    }

    #[tokio::test]
    async fn a_connection_enrols_once_at_a_time_whether_it_was_accepted_or_not() {
        let scene = Scene::new().await;
        let agent = scene.world.enrol("acme", Role::Agent).await;
        let (code, identity) = (scene.world.code("acme", Role::Receiver).await, scene.world.identity());
        let peer = SocketAddr::from((HERE, 1));
        let guest = Guest::new(peer, scene.ssh.admit(peer), scene.ssh.attempts(), scene.ssh.limits());
        let call = |path: &str, token: Option<String>, body: Body| {
            let request = Request::post(path).header(CONTENT_TYPE, "application/json").extension(guest.clone());
            let request =
                token.into_iter().fold(request, |request, token| request.header(AUTHORIZATION, format!("Bearer {token}")));
            let answering = scene.web.router.clone().oneshot(request.body(body).unwrap());
            let running = guest.runs().unwrap();
            async move {
                let answer = answering.await.unwrap();
                drop(running);
                answer.status().as_u16()
            }
        };
        let never = || Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        let good = || Body::from(serde_json::to_string(&World::request(&code, &identity)).unwrap());
        for accepted in [false, true] {
            let mut slow = Box::pin(call("/v1/enrolments", None, never()));
            while !guest.inner.turn.load(SeqCst) {
                assert!(futures::poll!(&mut slow).is_pending());
                tokio::task::yield_now().await;
            }
            assert_eq!(*guest.inner.running.borrow(), 0, "nobody waits for it");
            assert_eq!(call("/v1/enrolments", None, good()).await, 429, "{accepted}");
            drop(slow);
            assert_eq!(call("/v1/enrolments", None, good()).await, 200);
        }
        // Who shows a token with each has its share of the requests instead.
        let users = &scene.web.app.requests_of;
        let mut slow: Vec<_> = (0..3).map(|_| Box::pin(call("/v1/keys", Some(agent.token(&scene.world)), never()))).collect();
        while users.taken_by(&agent.caller.user()) < slow.len() {
            for call in &mut slow {
                assert!(futures::poll!(call).is_pending());
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn whoever_becomes_unwanted_after_the_farewell_does_not_stay_either() {
        let scene = Scene::new().await;
        let callers = Callers::new("connections", 1, 9);
        let of_its_key = callers.take("a").unwrap();
        let time = Duration::from_secs(30);
        for accepted_first in [false, true] {
            let peer = SocketAddr::from((HERE, 1));
            let guest = Guest::new(peer, scene.ssh.admit(peer), scene.ssh.attempts(), scene.ssh.limits());
            let mut staying = Box::pin(guest.outstays(&scene.world.clock, time));
            assert!(futures::poll!(&mut staying).is_pending());
            // Its requests, which were running when the grace ended, are answered now.
            if accepted_first {
                guest.accepted(&callers, "b").unwrap();
                assert!(futures::poll!(&mut staying).is_pending());
                scene.world.clock.advance(time);
                assert!(futures::poll!(&mut staying).is_pending(), "whoever was accepted stays for its answers");
                for _ in 0..scene.ssh.limits().key_offers {
                    guest.refused(Failure::park(Code::AuthenticationRefused, "no"));
                }
            } else {
                guest.accepted(&callers, "a").unwrap_err();
            }
            assert!(futures::poll!(&mut staying).is_pending(), "it has its time for the answer");
            scene.world.clock.advance(time);
            assert!(futures::poll!(&mut staying).is_ready(), "{accepted_first}");
        }
        drop(of_its_key);
    }

    #[tokio::test]
    async fn the_login_grace_ends_silent_drip_fed_and_anonymous_connections() {
        let scene = Scene::new().await;
        let agent = scene.world.enrol("acme", Role::Agent).await;
        let (silent, mut drip, mut anonymous) = (scene.connect(HERE), scene.connect(HERE), scene.connect(HERE));
        drip.stream.write_all(b"GET /v1/pe").await.unwrap();
        assert_eq!(anonymous.send("GET /healthz HTTP/1.1\r\nhost: relay\r\n\r\n").await.0, 200);
        while scene.world.clock.sleepers() < 3 {
            tokio::task::yield_now().await;
        }
        scene.world.clock.advance(Duration::from_secs(29));
        drip.stream.write_all(b"er").await.unwrap();
        assert_eq!(anonymous.send("GET /healthz HTTP/1.1\r\nhost: relay\r\n\r\n").await.0, 200);
        let mut proven = scene.connect(HERE);
        assert_eq!(proven.ask(&agent.token(&scene.world)).await.0, 200);
        scene.world.clock.advance(Duration::from_secs(1));
        for line in [silent, drip, anonymous] {
            line.ends_here().await;
        }
        scene.world.clock.advance(Duration::from_mins(2));
        assert_eq!(proven.ask(&agent.token(&scene.world)).await.0, 200, "a login has no such end");
    }
}
