//! Files of a drop folder go to its archive once the app has what was in them.
//!
//! What a transfer has taken is noted before the transfer is extracted, and acted on when the receipt `imported` is kept and before
//! the journal says so. A transfer that ends otherwise leaves the files where they are, for the next one.

use std::sync::Arc;

use towpath_transfer::{Code, Failure, TransferId};
use towpath_transport::files::FileStore;

use crate::{
    blocking::blocking,
    extract::source::files::{MAX_TAKEN_BYTES, Taken, archive},
    layout::Layout,
    parts::Parts,
    small_file,
};

/// Notes what a transfer has taken.
///
/// # Errors
/// `limit-exceeded` beyond [`MAX_TAKEN_BYTES`], and as the disk reports.
pub fn note(files: &dyn FileStore, layout: &Layout, id: TransferId, taken: &Taken) -> Result<(), Failure> {
    let internal = |error| Failure::park(Code::Internal, "writing what was taken as JSON").caused_by(error);
    let bytes = serde_json::to_vec(taken).map_err(internal)?;
    if bytes.len() > MAX_TAKEN_BYTES {
        let said = format!(
            "the note of the files of transfer {id} is longer than {MAX_TAKEN_BYTES} bytes: they are too many for one transfer"
        );
        return Err(Failure::park(Code::LimitExceeded, said));
    }
    small_file::write(files, &layout.taken(id), &bytes)
}

/// Archives what a transfer has taken, if anything. May be repeated.
///
/// # Errors
/// `file-failed` (retry).
pub async fn put_away(parts: &Parts, id: TransferId) -> Result<(), Failure> {
    let Some(bytes) = small_file::read(&*parts.files, &parts.layout.taken(id), MAX_TAKEN_BYTES)? else { return Ok(()) };
    let taken: Taken = match serde_json::from_slice(&bytes) {
        Ok(taken) => taken,
        Err(error) => {
            tracing::warn!(transfer = %id, %error, "the note of its files is damaged: they stay where they are and are sent again");
            return Ok(());
        }
    };
    let files = Arc::clone(&parts.files);
    blocking(move || archive(&*files, &taken)).await
}
