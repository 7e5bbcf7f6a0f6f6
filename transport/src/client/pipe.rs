//! Requests and answers over one channel: sent in order, answered in any.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::DropGuard;
use towpath_transfer::Clock;

use super::{
    ANSWER_TIMEOUT, CHUNK_BYTES, MAX_IN_FLIGHT,
    stream::{Entrance, Line},
    wire::{self, Extensions, Frames, Handle, Reply},
};
use crate::store::{StoreError, StoreErrorKind, StoreResult};

/// Frames waiting to be encrypted and sent.
const OUTGOING_FRAMES: usize = 16;

/// One SFTP channel.
pub(super) struct Pipe {
    outgoing: mpsc::Sender<Bytes>,
    places: Arc<Semaphore>,
    shared: Arc<Shared>,
    extensions: Extensions,
    read_bytes: usize,
    write_bytes: usize,
}

struct Shared {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    line: Line,
    pipe: OnceLock<Weak<Pipe>>,
}

struct State {
    next_id: u32,
    waiting: HashMap<u32, Waiting>,
    /// The last time at which the server answered, or began to owe an answer.
    alive: Duration,
    lost: Option<(StoreErrorKind, String)>,
}

struct Waiting {
    answer: oneshot::Sender<Reply>,
    /// Given back with the answer, also where nobody waits for it any more.
    _place: OwnedSemaphorePermit,
}

/// An answer that is on its way.
pub(super) struct Pending {
    answer: oneshot::Receiver<Reply>,
    shared: Arc<Shared>,
}

impl Pending {
    pub(super) async fn reply(self) -> StoreResult<Reply> {
        self.answer.await.map_err(|_| self.shared.lost_error())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection, once; everything that waits learns why.
    fn lose(&self, kind: StoreErrorKind, why: &str) {
        let mut state = self.lock();
        if state.lost.is_none() {
            state.lost = Some((kind, why.to_owned()));
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.line.kill.cancel();
        drop(waiting);
    }

    /// Ends the connection because its session has ended.
    fn lose_session(&self) {
        self.lose(StoreErrorKind::ConnectionLost, self.line.why());
    }

    fn lost_error(&self) -> StoreError {
        match &self.lock().lost {
            Some((kind, why)) => StoreError::new(*kind, format!("the SFTP connection ended: {why}")),
            None => StoreError::new(StoreErrorKind::ConnectionLost, "the SFTP connection ended"),
        }
    }
}

impl Pipe {
    /// Starts SFTP on a channel whose subsystem was granted.
    pub(super) async fn start(
        channel: Channel<client::Msg>,
        line: Line,
        guard: DropGuard,
        clock: Arc<dyn Clock>,
    ) -> StoreResult<Arc<Self>> {
        let (mut reader, writer) = channel.split();
        let lost = |_| StoreError::new(StoreErrorKind::ConnectionLost, "starting SFTP: the connection ended");
        writer.data_bytes(wire::init()).await.map_err(lost)?;
        let mut frames = Frames::default();
        let extensions = wire::version(first_frame(&mut reader, &mut frames).await?).map_err(protocol)?;
        let state = State { next_id: 0, waiting: HashMap::new(), alive: clock.monotonic(), lost: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), clock, line, pipe: OnceLock::new() });
        let (outgoing, queue) = mpsc::channel(OUTGOING_FRAMES);
        tokio::spawn(send_frames(writer, queue, shared.line.entrance(), Arc::clone(&shared)));
        tokio::spawn(take_answers(reader, frames, Arc::clone(&shared), guard));
        let places = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let mut pipe = Self { outgoing, places, shared, extensions, read_bytes: CHUNK_BYTES, write_bytes: CHUNK_BYTES };
        if extensions.limits {
            pipe.ask_limits().await?;
        }
        let pipe = Arc::new(pipe);
        // It is set here and nowhere else.
        let _ = pipe.shared.pipe.set(Arc::downgrade(&pipe));
        Ok(pipe)
    }

    async fn ask_limits(&mut self) -> StoreResult<()> {
        // A server that announces limits and refuses to tell them has none that we could break.
        if let Reply::Extended(body) = self.request(wire::limits).await? {
            let (read, write) = wire::max_transfer(body).map_err(protocol)?;
            let within = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, CHUNK_BYTES);
            (self.read_bytes, self.write_bytes) = (within(read), within(write));
        }
        Ok(())
    }

    pub(super) fn extensions(&self) -> Extensions {
        self.extensions
    }

    pub(super) fn read_bytes(&self) -> usize {
        self.read_bytes
    }

    pub(super) fn write_bytes(&self) -> usize {
        self.write_bytes
    }

    /// Whether nothing can be asked any more. The session may have ended a moment before the reason is known here: a request
    /// that has failed because of it must already find the connection closed.
    pub(super) fn is_lost(&self) -> bool {
        self.shared.line.kill.is_cancelled() || self.shared.lock().lost.is_some()
    }

    pub(super) fn lose(&self, kind: StoreErrorKind, why: &str) {
        self.shared.lose(kind, why);
    }

    /// Sends a request, after waiting for a place among those in flight, and does not wait for its answer. A caller that is
    /// cancelled has sent all of it or nothing.
    pub(super) async fn send(&self, frame: impl FnOnce(u32) -> Bytes) -> StoreResult<Pending> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| self.shared.lost_error())?;
        let slot = self.outgoing.reserve().await.map_err(|_| {
            // The session has ended, and whoever takes its answers may not have seen that yet.
            self.shared.lose_session();
            self.shared.lost_error()
        })?;
        let (sender, answer) = oneshot::channel();
        let mut state = self.shared.lock();
        if state.lost.is_some() {
            drop(state);
            return Err(self.shared.lost_error());
        }
        if state.waiting.is_empty() {
            state.alive = self.shared.clock.monotonic();
        }
        let id = state.next_id;
        state.next_id = id.wrapping_add(1);
        state.waiting.insert(id, Waiting { answer: sender, _place: place });
        drop(state);
        slot.send(frame(id));
        Ok(Pending { answer, shared: Arc::clone(&self.shared) })
    }

    pub(super) async fn request(&self, frame: impl FnOnce(u32) -> Bytes) -> StoreResult<Reply> {
        self.send(frame).await?.reply().await
    }

    /// Closes a handle that nobody waits for.
    pub(super) fn forget_handle(self: &Arc<Self>, handle: &Handle) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (pipe, handle) = (Arc::clone(self), handle.clone());
        runtime.spawn(async move {
            // A connection that is lost has no handles any more.
            let _ = pipe.request(|id| wire::handle_request(wire::CLOSE, id, &handle)).await;
        });
    }
}

fn protocol(error: wire::Malformed) -> StoreError {
    StoreError::new(StoreErrorKind::Protocol, "speaking SFTP").caused_by(error)
}

async fn first_frame(reader: &mut ChannelReadHalf, frames: &mut Frames) -> StoreResult<Bytes> {
    loop {
        if let Some(frame) = frames.next().map_err(protocol)? {
            return Ok(frame);
        }
        match reader.wait().await {
            Some(ChannelMsg::Data { data }) => frames.push(&data),
            Some(ChannelMsg::Eof | ChannelMsg::Close) | None => {
                return Err(StoreError::new(StoreErrorKind::Unsupported, "the server ended SFTP before it began"));
            }
            Some(_) => {}
        }
    }
}

/// Frames go out whole and one after the other, which callers that may be cancelled could not promise.
async fn send_frames(
    writer: ChannelWriteHalf<client::Msg>,
    mut queue: mpsc::Receiver<Bytes>,
    mut entrance: Entrance,
    shared: Arc<Shared>,
) {
    let sending = async {
        while let Some(frame) = queue.recv().await {
            if !entrance.admit(frame.len()).await || writer.data_bytes(frame).await.is_err() {
                // The session has ended, and says why as the last it does. Until then nothing more is taken.
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = shared.line.kill.cancelled() => {}
    }
}

/// Never waits for anybody who wants an answer: a session whose reader waits stops for ever.
async fn take_answers(mut reader: ChannelReadHalf, mut frames: Frames, shared: Arc<Shared>, _kill: DropGuard) {
    let clock = Arc::clone(&shared.clock);
    let mut tick = clock.sleep(ANSWER_TIMEOUT / 4);
    loop {
        let message = tokio::select! {
            // Answers that came before the session ended count; a server that never stops sending must not hide what it owes.
            biased;
            () = &mut tick => {
                if shared.is_overdue() {
                    let why = format!("no answer within {} seconds", ANSWER_TIMEOUT.as_secs());
                    return shared.lose(StoreErrorKind::TimedOut, &why);
                }
                tick = clock.sleep(ANSWER_TIMEOUT / 4);
                continue;
            }
            message = reader.wait() => message,
            () = shared.line.kill.cancelled() => None,
        };
        match message {
            Some(ChannelMsg::Data { data }) => frames.push(&data),
            Some(ChannelMsg::Eof | ChannelMsg::Close) | None => {
                return shared.lose_session();
            }
            Some(_) => continue,
        }
        if let Err(error) = shared.dispatch(&mut frames) {
            return shared.lose(StoreErrorKind::Protocol, &error.to_string());
        }
    }
}

impl Shared {
    fn is_overdue(&self) -> bool {
        let state = self.lock();
        !state.waiting.is_empty() && self.clock.monotonic().saturating_sub(state.alive) >= ANSWER_TIMEOUT
    }

    fn dispatch(&self, frames: &mut Frames) -> Result<(), wire::Malformed> {
        while let Some(frame) = frames.next()? {
            let (id, reply) = wire::reply(frame)?;
            let mut state = self.lock();
            state.alive = self.clock.monotonic();
            let waiting = state.waiting.remove(&id);
            drop(state);
            // An answer to nothing was asked for by nobody: a server that makes them up is not trusted with more.
            let waiting = waiting.ok_or(wire::Malformed::UNASKED)?;
            // Whoever asked for a handle and is gone cannot close it.
            if let Err(Reply::Handle(handle)) = waiting.answer.send(reply)
                && let Some(pipe) = self.pipe.get().and_then(Weak::upgrade)
            {
                pipe.forget_handle(&handle);
            }
        }
        Ok(())
    }
}
