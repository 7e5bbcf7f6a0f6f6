//! Connections that have to end, and peers who do not let them.

use std::collections::BTreeMap;

use super::*;
use crate::{api::guest::FAREWELL_TIME, spool::SpoolFigures};

/// Frames and flags of HTTP/2 (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A peer that speaks HTTP/2 frame by frame: it answers no PING and heeds no GOAWAY, so that the relay alone cannot end the connection
/// gracefully.
struct Deaf {
    line: Line,
    stream: u32,
    goaways: usize,
}

impl Deaf {
    async fn new(mut line: Line) -> Self {
        line.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut deaf = Self { line, stream: 1, goaways: 0 };
        deaf.write(SETTINGS, 0, 0, &[]).await;
        deaf
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.line.stream.write_all(&frame).await.unwrap();
    }

    async fn read(&mut self) -> (u8, u8, u32, Vec<u8>) {
        let mut head = [0; 9];
        self.line.stream.read_exact(&mut head).await.unwrap();
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.line.stream.read_exact(&mut payload).await.unwrap();
        self.goaways += usize::from(kind == GOAWAY);
        (kind, flags, u32::from_be_bytes(stream), payload)
    }

    /// Asks for the peers with a token and returns the body of the answer.
    async fn ask(&mut self, token: &str) -> String {
        let stream = self.stream;
        self.stream += 2;
        // Literal fields without indexing and without Huffman's code (RFC 7541, section 6.2.2).
        let authorization = format!("Bearer {token}");
        let fields = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/v1/peers"),
            (":authority", "relay"),
            ("authorization", &authorization),
        ];
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                length_of(text, &mut block);
                block.extend(text.as_bytes());
            }
        }
        self.write(HEADERS, END_STREAM | END_HEADERS, stream, &block).await;
        let mut body = Vec::new();
        loop {
            let (kind, flags, of, payload) = self.read().await;
            if of == stream && kind == DATA {
                body.extend(payload);
            }
            if of == stream && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return String::from_utf8(body).unwrap();
            }
        }
    }

    /// The connection ends when so much time has gone by.
    async fn ends_after(self, clock: &towpath_transfer::clock::ManualClock, time: Duration) {
        let step = Duration::from_millis(100);
        let mut gone = Duration::ZERO;
        while !self.line.serving.is_finished() && gone < time + step {
            clock.advance(step);
            gone += step;
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        assert!(self.line.serving.is_finished(), "it stays for more than {gone:?}");
    }
}

/// The length of a string as HPACK writes it: an integer with a prefix of 7 bits (RFC 7541, section 5.1).
fn length_of(text: &str, block: &mut Vec<u8>) {
    let Some(mut rest) = text.len().checked_sub(127) else { return block.push(u8::try_from(text.len()).unwrap()) };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

impl Scene {
    /// The failed logins by token.
    fn failed(&self) -> BTreeMap<String, String> {
        let figures = self.world.relay.metrics().text(&[], &SpoolFigures::default()).unwrap();
        let lines = figures.lines().filter(|line| line.contains("authentication_failures_total{"));
        lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, count)| (name.to_owned(), count.to_owned())).collect()
    }
}

#[tokio::test]
async fn whoever_goes_on_asking_after_its_last_try_is_not_looked_at_and_does_not_stay() {
    let scene = Scene::new().await;
    let mut stranger = Deaf::new(scene.connect(HERE)).await;
    for _ in 0..scene.ssh.limits().key_offers {
        let body = stranger.ask(WRONG).await;
        assert!(body.contains("authentication-refused"), "{body}");
    }
    let before = scene.failed();
    assert_eq!(before.values().collect::<Vec<_>>(), ["6"], "{before:?}");
    while stranger.goaways == 0 {
        stranger.read().await;
    }
    // Also what is valid comes too late here.
    let agent = scene.world.enrol("acme", Role::Agent).await;
    for token in [WRONG, &agent.token(&scene.world)] {
        let body = stranger.ask(token).await;
        assert!(body.contains("rate-limited"), "{body}");
    }
    assert_eq!(scene.failed(), before);
    stranger.ends_after(&scene.world.clock, FAREWELL_TIME).await;
    assert_eq!(scene.connect(HERE).ask(&agent.token(&scene.world)).await.0, 200, "another connection is another try");
}

#[tokio::test]
async fn whoever_is_unwanted_makes_way_at_once_for_those_who_come() {
    let scene = Scene::new().await;
    for _ in 0..20 {
        scene.ssh.attempts().failed(HERE.into());
    }
    let request = format!("GET /v1/peers HTTP/1.1\r\nhost: relay\r\nauthorization: Bearer {WRONG}\r\n\r\n");
    let mut unwanted = Vec::new();
    for _ in 0..scene.ssh.limits().unauthenticated_per_address {
        let mut line = scene.connect_over(HERE, 16);
        line.stream.write_all(request.as_bytes()).await.unwrap();
        // The refusal is on its way, and is never taken.
        assert_eq!(line.stream.read_u8().await.unwrap(), b'H');
        unwanted.push(line);
    }
    let newcomers: Vec<Line> = unwanted.iter().map(|_| scene.connect(HERE)).collect();
    // No time goes by.
    for line in unwanted {
        line.serving.await.unwrap();
    }
    drop(newcomers);
}

#[tokio::test]
async fn a_peer_that_does_not_hear_of_it_holds_no_stop_up() {
    let scene = Scene::new().await;
    let agent = scene.world.enrol("acme", Role::Agent).await;
    let stop = CancellationToken::new();
    let mut proven = Deaf::new(scene.connect_until(HERE, 64 * 1024, stop.clone())).await;
    let mut stranger = Deaf::new(scene.connect_until(HERE, 64 * 1024, stop.clone())).await;
    assert!(proven.ask(&agent.token(&scene.world)).await.contains("peers"));
    for _ in 0..scene.ssh.limits().key_offers {
        stranger.ask(WRONG).await;
    }
    stop.cancel();
    while proven.goaways == 0 {
        proven.read().await;
    }
    proven.ends_after(&scene.world.clock, FAREWELL_TIME).await;
    stranger.ends_after(&scene.world.clock, FAREWELL_TIME).await;
}
