//! How much of the line is taken at which time of day.

use std::sync::Arc;

use jiff::tz::TimeZone;
use towpath_transfer::Clock;
use towpath_transport::store::Pace;

use crate::config::{BandwidthLimit, SharedConfig};

/// The pace of all files to and from the relay together. It follows the time of day and the configuration in force.
#[must_use]
pub fn pace(config: SharedConfig, clock: Arc<dyn Clock>) -> Pace {
    let time = Arc::clone(&clock);
    Pace::new(Arc::new(move || config.now().bandwidth.rate(time.now(), &TimeZone::system())), clock)
}

/// The limit in force now, and until when.
#[must_use]
pub fn limit(config: &SharedConfig, clock: &dyn Clock) -> BandwidthLimit {
    config.now().bandwidth.limit(clock.now(), &TimeZone::system())
}
