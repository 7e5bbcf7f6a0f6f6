//! Sends finished files while the extract still reads the next tables. Best effort: whatever it leaves undone or does
//! wrongly, `push` mends.

use std::sync::Arc;

use tokio::{sync::mpsc, task::JoinHandle};
use towpath_transfer::{Failure, TransferId, packed::PackedFile};
use towpath_transport::store::Far;

use super::push::{Uploads, remote_folder};
use crate::parts::Parts;

/// Finished files that may wait for their turn; more are left to `push`.
pub(crate) const MAX_WAITING_FILES: usize = 1_024;

pub(crate) struct EagerPusher {
    queue: Option<mpsc::Sender<PackedFile>>,
    task: JoinHandle<()>,
}

impl EagerPusher {
    /// Begins to wait for files of a transfer; connects when the first one comes.
    pub(crate) fn start(parts: Arc<Parts>, id: TransferId) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING_FILES);
        let task = tokio::spawn(async move {
            if let Err(failure) = push_each(&parts, id, waiting).await {
                tracing::debug!(transfer = %id, code = %failure.code(), "sending ahead has stopped: {}", failure.report());
            }
        });
        Self { queue: Some(queue), task }
    }

    /// Hands over a finished file.
    pub(crate) fn offer(&mut self, file: PackedFile) {
        let refused = self.queue.as_ref().is_none_or(|queue| queue.try_send(file).is_err());
        if refused {
            // Later files are left alone as well: the relay does not answer, or the line is slower than the disk by far.
            self.queue = None;
        }
    }

    /// Ends it at once; a file that is half sent stays as a part.
    pub(crate) async fn stop(self) {
        self.task.abort();
        // The only way to end now is the cancellation just asked for, or a task that was done before.
        let _ = self.task.await;
    }
}

async fn push_each(parts: &Parts, id: TransferId, mut waiting: mpsc::Receiver<PackedFile>) -> Result<(), Failure> {
    let Some(first) = waiting.recv().await else { return Ok(()) };
    let far = |error: towpath_transport::store::StoreError| error.into_failure(Far::Relay);
    let uploads = Uploads::over(parts, parts.stores.connect().await.map_err(far)?, id)?;
    uploads.store.make_dir_all(&remote_folder(id)?).await.map_err(far)?;
    let mut next = Some(first);
    while let Some(file) = next {
        uploads.put(&file.name).await?;
        next = waiting.recv().await;
    }
    Ok(())
}
