//! A proxy that does what proxies do to those behind them: refuses, cuts what is idle, cuts in the middle.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// The most bytes that are passed on at a time, so that a cut comes where it is asked for.
const BLOCK: usize = 4 * 1024;
/// The pause after each block where a tunnel is to be cut: a line of 1 MB/s. What a cut swallows is what its reader has not come to
/// yet, and a reader that has to share two cores with other tests keeps up with such a line.
const PACE: Duration = Duration::from_millis(4);
/// How often an idle tunnel looks whether it is to end.
const LOOK: Duration = Duration::from_millis(250);

/// What a proxy does with who asks it for a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It answers so, and nothing else.
    Answers(u16),
    /// It passes everything on.
    Passes,
    /// It passes everything on until a tunnel has carried so many bytes, both ways together.
    CutsAfter(u64),
    /// It cuts a tunnel on which nothing has moved for so long.
    CutsIdle(Duration),
}

/// What a proxy has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Tunnels that it has opened.
    pub tunnels: u64,
    /// Requests that it has refused.
    pub refused: u64,
    /// Tunnels that it has cut.
    pub cut: u64,
    /// Bytes from those behind it.
    pub up: u64,
    /// Bytes to those behind it.
    pub down: u64,
}

#[derive(Debug)]
struct State {
    manner: Mutex<Manner>,
    /// Both ends of every tunnel that may be open.
    open: Mutex<Vec<TcpStream>>,
    tunnels: AtomicU64,
    refused: AtomicU64,
    cut: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

/// An HTTP proxy for `CONNECT` on loopback. It lives as long as the test's process.
#[derive(Debug, Clone)]
pub struct RoughProxy {
    port: u16,
    state: Arc<State>,
}

impl RoughProxy {
    /// Listens on a port of its own.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port on loopback");
        let port = listener.local_addr().expect("the port").port();
        let state = Arc::new(State {
            manner: Mutex::new(manner),
            open: Mutex::default(),
            tunnels: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A client that goes away before its tunnel stands is no fault of the test's.
                thread::spawn(move || state.serve(&stream));
            }
        });
        Self { port, state }
    }

    /// The agent's settings that lead through it.
    #[must_use]
    pub fn toml(&self) -> String {
        format!("[network]\nproxy = \"http://127.0.0.1:{}\"\n", self.port)
    }

    /// From now on it is so, and every tunnel that stands is cut.
    pub fn become_one_that(&self, manner: Manner) {
        *self.state.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
        for stream in self.state.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // One that has ended needs no more.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// What it has done so far.
    #[must_use]
    pub fn told(&self) -> Told {
        let of = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let State { tunnels, refused, cut, up, down, .. } = &*self.state;
        Told { tunnels: of(tunnels), refused: of(refused), cut: of(cut), up: of(up), down: of(down) }
    }
}

/// One tunnel, as both of its directions see it.
struct Tunnel {
    manner: Manner,
    moved: AtomicU64,
}

impl State {
    fn serve(&self, client: &TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(client.try_clone()?);
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let manner = *self.manner.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = |text: &str| (&*client).write_all(text.as_bytes());
        if let Manner::Answers(status) = manner {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return answer(&format!(
                "HTTP/1.1 {status} No\r\nProxy-Authenticate: Basic realm=\"x\"\r\nConnection: close\r\n\r\n"
            ));
        }
        let target = request.split(' ').nth(1).ok_or(ErrorKind::InvalidData)?;
        let relay = TcpStream::connect(target)?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).extend([client.try_clone()?, relay.try_clone()?]);
        self.tunnels.fetch_add(1, Ordering::SeqCst);
        answer("HTTP/1.1 200 OK\r\n\r\n")?;
        for stream in [client, &relay] {
            let pause = if let Manner::CutsIdle(idle) = manner { idle } else { LOOK };
            stream.set_read_timeout(Some(pause))?;
            stream.set_nodelay(true)?;
        }
        let tunnel = Tunnel { manner, moved: AtomicU64::new(0) };
        thread::scope(|scope| {
            scope.spawn(|| self.carry(&tunnel, client, &relay, &self.up));
            scope.spawn(|| self.carry(&tunnel, &relay, client, &self.down));
        });
        Ok(())
    }

    /// Passes on what comes from one side until either ends or the manner cuts it.
    #[expect(clippy::disallowed_methods, reason = "a slow line: nothing waits for the pause to have had an effect")]
    fn carry(&self, tunnel: &Tunnel, from: &TcpStream, to: &TcpStream, count: &AtomicU64) {
        let mut block = [0; BLOCK];
        let (mut from, mut to) = (from, to);
        loop {
            let before = tunnel.moved.load(Ordering::SeqCst);
            let read = match from.read(&mut block) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if matches!(tunnel.manner, Manner::CutsIdle(_)) && tunnel.moved.load(Ordering::SeqCst) == before {
                        self.cut.fetch_add(1, Ordering::SeqCst);
                        break;
                    }
                    continue;
                }
                Err(_) => break,
            };
            if to.write_all(block.get(..read).unwrap_or_default()).is_err() {
                break;
            }
            count.fetch_add(read as u64, Ordering::SeqCst);
            let moved = tunnel.moved.fetch_add(read as u64, Ordering::SeqCst) + read as u64;
            if let Manner::CutsAfter(most) = tunnel.manner {
                if moved >= most {
                    self.cut.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                thread::sleep(PACE);
            }
        }
        // Both ends see it end at once, wherever it was; one that is gone already needs no telling.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}
