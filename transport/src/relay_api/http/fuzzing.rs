//! For the fuzz targets: what an answer of the web service means, without a connection.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use towpath_transfer::{Clock, failure::Result};

use super::{client::Answer, clock_offset::ClockOffset, parsed};

/// What an answer means, and how far away it says the relay's clock is.
pub fn meaning<T: DeserializeOwned>(
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    clock: Arc<dyn Clock>,
) -> (Result<T>, Option<SignedDuration>) {
    let offset = ClockOffset::new(clock);
    offset.learn(&headers);
    let _ = offset.relay_now();
    let answer = Answer { status, headers, body: Ok(body) };
    (parsed("asking the relay", answer, &offset), offset.known())
}
