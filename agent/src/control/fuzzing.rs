//! For the fuzz targets: what the two sides of the channel read.

use tokio::io::BufReader;
use towpath_transfer::{Clock, failure::Result};

use super::{Answer, Request, Said, as_failure, parse, server};

/// The request that these bytes are.
///
/// # Errors
/// `request-invalid`.
pub async fn request(bytes: &[u8], clock: &dyn Clock) -> Result<Request> {
    server::request(&mut BufReader::new(bytes), clock).await
}

/// The answer that these bytes are.
///
/// # Errors
/// `request-invalid`, and what the answer says.
pub fn answer(bytes: &[u8]) -> Result<Answer> {
    match parse::<Said>(bytes, "the answer")? {
        Said::Answer(answer) => Ok(answer),
        Said::Failure(told) => Err(as_failure(told)),
    }
}
