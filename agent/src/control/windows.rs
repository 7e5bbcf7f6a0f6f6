//! A named pipe. Its default access control lets its owner, the system and administrators write to it, and nobody else.

use std::{io, time::Duration};

use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions};
use towpath_transfer::Clock;

use super::pipe_name;
use crate::layout::Layout;

/// `ERROR_PIPE_BUSY` of winerror.h: every instance has a client, and the next is about to be made.
const PIPE_BUSY: i32 = 231;
/// The pause before a busy pipe is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Listener {
    name: String,
    next: NamedPipeServer,
}

impl Listener {
    pub(super) fn new(layout: &Layout) -> io::Result<Self> {
        let name = pipe_name(layout.state());
        // Whoever has made a pipe of this name before us would get our answers.
        let next = ServerOptions::new().first_pipe_instance(true).reject_remote_clients(true).create(&name)?;
        Ok(Self { name, next })
    }

    /// The next connection. The pipe's access control has refused everybody who may not ask.
    pub(super) async fn accept(&mut self) -> io::Result<Option<NamedPipeServer>> {
        self.next.connect().await?;
        match ServerOptions::new().reject_remote_clients(true).create(&self.name) {
            Ok(next) => Ok(Some(std::mem::replace(&mut self.next, next))),
            Err(error) => {
                self.next.disconnect()?;
                Err(error)
            }
        }
    }
}

pub(super) async fn connect(layout: &Layout, clock: &dyn Clock) -> io::Result<NamedPipeClient> {
    let name = pipe_name(layout.state());
    loop {
        match ClientOptions::new().open(&name) {
            Err(error) if error.raw_os_error() == Some(PIPE_BUSY) => clock.sleep(BUSY_PAUSE).await,
            other => return other,
        }
    }
}
