//! How much of the web service each caller may have at once, so that no single one, whose key may have been stolen, keeps the others out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use towpath_transfer::{Code, Failure, failure::Result};

/// How long a caller is asked to wait who has as much as there is for one.
const PAUSE: Duration = Duration::from_secs(5);

/// The places of each caller. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Callers {
    /// What is counted, in the plural.
    what: &'static str,
    most: usize,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// A place of a caller, until it is dropped.
#[derive(Debug)]
pub(super) struct CallerPlace {
    callers: Callers,
    user: String,
}

/// Where the place of a request is kept until it is answered. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct RequestPlace(Arc<OnceLock<CallerPlace>>);

impl Callers {
    /// At most `most` of them for each caller.
    pub(super) fn new(what: &'static str, most: usize) -> Self {
        Self { what, most: most.max(1), taken: Arc::default() }
    }

    /// A place for one more.
    ///
    /// # Errors
    /// `rate-limited` where the caller has as many as it may have.
    pub(super) fn take(&self, user: &str) -> Result<CallerPlace> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(user.to_owned()).or_default();
        if *count >= self.most {
            let message = format!("a caller has at most {} {} at once", self.most, self.what);
            return Err(Failure::retry(Code::RateLimited, message).after(PAUSE));
        }
        *count += 1;
        Ok(CallerPlace { callers: self.clone(), user: user.to_owned() })
    }
}

#[cfg(test)]
impl Callers {
    /// How many a caller has.
    pub(super) fn taken_by(&self, user: &str) -> usize {
        self.taken.lock().unwrap().get(user).copied().unwrap_or_default()
    }
}

impl Drop for CallerPlace {
    fn drop(&mut self) {
        let mut taken = self.callers.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody is remembered who has none, so that this stays as small as what is open.
        if let Some(count) = taken.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

impl RequestPlace {
    /// Keeps a place; a request has one caller.
    pub(super) fn keep(&self, place: CallerPlace) {
        let _ = self.0.set(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_nobody_is_remembered_without() {
        let callers = Callers::new("requests", 2);
        let (one, two) = (callers.take("a").unwrap(), callers.take("a").unwrap());
        let refused = callers.take("a").unwrap_err();
        assert!(refused.code() == Code::RateLimited && refused.report().contains("at most 2 requests"), "{}", refused.report());
        let other = callers.take("b").unwrap();
        drop(one);
        let three = callers.take("a").unwrap();
        assert!(callers.take("a").is_err());
        drop((two, three, other));
        assert!(callers.taken.lock().unwrap().is_empty());
    }
}
