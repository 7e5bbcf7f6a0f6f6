//! How far the relay's clock is from this host's.

use std::sync::{Arc, Mutex, PoisonError};

use http::header::{DATE, HeaderMap};
use jiff::{SignedDuration, Timestamp};
use towpath_transfer::{Clock, Code};

use super::MAX_CLOCK_SKEW;

/// What the relay's `Date` headers have told, the last one counting.
pub(super) struct ClockOffset {
    clock: Arc<dyn Clock>,
    known: Mutex<Option<SignedDuration>>,
}

impl ClockOffset {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, known: Mutex::new(None) }
    }

    pub(super) fn known(&self) -> Option<SignedDuration> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn relay_now(&self) -> Timestamp {
        let (now, offset) = (self.clock.now(), self.known().unwrap_or_default());
        now.checked_add(offset).unwrap_or(now)
    }

    /// Takes the difference from an answer that has just arrived. The header is in whole seconds and the answer was on its way for a
    /// moment, which a token's life of up to a minute allows for.
    pub(super) fn learn(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(parse_date);
        let Some(date) = date else { return };
        let offset = date.duration_since(self.clock.now());
        // Only whole seconds are known, and rounding down keeps equal clocks at an offset of nothing.
        let offset = SignedDuration::from_secs(offset.as_secs());
        let before = self.known.lock().unwrap_or_else(PoisonError::into_inner).replace(offset);
        let skewed = |offset: SignedDuration| offset.abs() > MAX_CLOCK_SKEW;
        if skewed(offset) && !before.is_some_and(skewed) {
            let ahead = -offset.as_secs();
            tracing::warn!(code = %Code::ClockSkew, seconds_ahead = ahead, "this host's clock differs from the relay's; tokens follow the relay's");
        }
    }
}

/// The date forms of HTTP that are still sent (RFC 9110 section 5.6.7).
pub(super) fn parse_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use towpath_transfer::clock::ManualClock;

    use super::*;

    fn date(text: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(DATE, http::header::HeaderValue::from_static(text))])
    }

    #[test]
    fn the_last_date_counts_and_time_goes_on_from_there() {
        let clock = ManualClock::new("2025-01-02T00:00:00Z".parse().unwrap());
        let offset = ClockOffset::new(Arc::new(clock.clone()));
        assert_eq!((offset.known(), offset.relay_now()), (None, clock.now()));
        offset.learn(&date("Wed, 01 Jan 2025 00:00:00 GMT"));
        assert_eq!(offset.known(), Some(SignedDuration::from_hours(-24)));
        clock.advance(Duration::from_secs(10));
        assert_eq!(offset.relay_now(), "2025-01-01T00:00:10Z".parse().unwrap());
        offset.learn(&date("Thu, 02 Jan 2025 00:00:10 GMT"));
        assert_eq!(offset.known(), Some(SignedDuration::ZERO));
        offset.learn(&date("nonsense"));
        offset.learn(&HeaderMap::new());
        assert_eq!(offset.known(), Some(SignedDuration::ZERO));
    }
}
