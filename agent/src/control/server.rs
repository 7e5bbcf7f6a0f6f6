//! The running agent's side.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use towpath_transfer::{Clock, Code, Failure, failure::Result};

use super::{
    Answer, Asked, MAX_ANSWER_BYTES, MAX_CONNECTIONS, MAX_REQUEST_BYTES, MESSAGE_TIMEOUT, Request, Said, WORK_TIMEOUT, line,
    parse, read_line, refused, system,
};
use crate::layout::Layout;

/// The pause after a connection could not be accepted, for instance because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What the running agent does for a command.
#[async_trait]
pub trait Answers: Send + Sync {
    /// Does what is asked. It is given up after [`WORK_TIMEOUT`], and when the agent stops.
    ///
    /// # Errors
    /// Those of the work; the command is told.
    async fn answer(&self, request: Request) -> Result<Answer>;
}

/// Listens for commands. Only the process that holds the state lock may make one: it takes the place of what another has left.
#[derive(Debug)]
pub struct Listener {
    listener: system::Listener,
    clock: Arc<dyn Clock>,
}

impl Listener {
    /// Begins to listen.
    ///
    /// # Errors
    /// `file-failed`.
    pub fn new(layout: &Layout, clock: Arc<dyn Clock>) -> Result<Self> {
        let failed = |error| {
            let message = format!("listening for commands in {}", layout.state().display());
            Failure::park(Code::FileFailed, message).caused_by(error)
        };
        Ok(Self { listener: system::Listener::new(layout).map_err(failed)?, clock })
    }

    /// Answers until `stop` is cancelled; what is under way then is given up.
    pub async fn serve(mut self, answers: Arc<dyn Answers>, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.accept(answers)).await;
    }

    async fn accept(&mut self, answers: Arc<dyn Answers>) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut tasks = JoinSet::new();
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            match self.listener.accept().await {
                Ok(Some(stream)) => {
                    let (answers, clock) = (Arc::clone(&answers), Arc::clone(&self.clock));
                    tasks.spawn(async move {
                        converse(stream, &*answers, &*clock).await;
                        drop(permit);
                    });
                }
                Ok(None) => tracing::warn!(
                    code = %Code::RequestInvalid,
                    "a command of another user was not answered: only the state folder's owner and root may ask"
                ),
                Err(error) => {
                    tracing::warn!(%error, "a command could not be heard");
                    self.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
            while tasks.try_join_next().is_some() {}
        }
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, answers: &dyn Answers, clock: &dyn Clock) {
    let mut stream = BufReader::new(stream);
    let said = match request(&mut stream, clock).await {
        Ok(request) => answer(request, answers, clock).await,
        Err(failure) => Err(failure),
    };
    let said = said.map_or_else(|failure| Said::Failure(refused(&failure)), Said::Answer);
    let line = line(said, MAX_ANSWER_BYTES).or_else(|failure| line(Said::Failure(refused(&failure)), MAX_ANSWER_BYTES));
    let Ok(line) = line else { return };
    let tell = async {
        stream.write_all(&line).await?;
        stream.flush().await?;
        // The asker hangs up when it has read: closing before could take the answer away from it.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    tokio::select! {
        // Who has gone needs no answer.
        _ = tell => {}
        () = clock.sleep(MESSAGE_TIMEOUT) => {}
    }
}

pub(super) async fn request(stream: &mut (impl tokio::io::AsyncBufRead + Unpin), clock: &dyn Clock) -> Result<Request> {
    let bytes = tokio::select! {
        bytes = read_line(stream, MAX_REQUEST_BYTES) => bytes,
        () = clock.sleep(MESSAGE_TIMEOUT) => {
            let message = format!("there was no request within {} seconds", MESSAGE_TIMEOUT.as_secs());
            return Err(Failure::park(Code::RequestInvalid, message));
        }
    };
    let bytes = bytes.map_err(|error| Failure::park(Code::RequestInvalid, "the request cannot be read").caused_by(error))?;
    Ok(parse::<Asked>(&bytes, "the request")?.request)
}

async fn answer(request: Request, answers: &dyn Answers, clock: &dyn Clock) -> Result<Answer> {
    tokio::select! {
        answer = answers.answer(request) => answer,
        () = clock.sleep(WORK_TIMEOUT) => {
            let message = format!("the running agent has not finished within {} seconds", WORK_TIMEOUT.as_secs());
            Err(Failure::retry(Code::Cancelled, message))
        }
    }
}
