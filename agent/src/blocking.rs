//! File work beside the runtime.

use towpath_transfer::{Code, Failure, failure::Result};

/// Runs file work on a thread that may block.
///
/// # Errors
/// What `work` returns; `internal` where it panicked.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let joined = towpath_transport::files::blocking(work).await;
    joined.map_err(|error| Failure::park(Code::Internal, "a worker thread failed").caused_by(error))?
}
