//! How many connections one user has.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts logged-in connections by user.
#[derive(Debug)]
pub(super) struct Users {
    most: usize,
    counts: Mutex<HashMap<String, usize>>,
}

/// One connection's share of its user's measure; dropping it gives it back.
#[derive(Debug)]
pub(super) struct UserPlace {
    users: Arc<Users>,
    user: String,
}

impl Users {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, counts: Mutex::default() })
    }

    /// `None` when the user has all the connections that one may have.
    pub(super) fn take(self: &Arc<Self>, user: &str) -> Option<UserPlace> {
        let mut counts = self.lock();
        let count = counts.entry(user.to_owned()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(UserPlace { users: Arc::clone(self), user: user.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut counts = self.users.lock();
        if let Some(count) = counts.get_mut(&self.user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_bounded_number_of_connections() {
        let users = Users::new(2);
        let places = (users.take("a").unwrap(), users.take("a").unwrap());
        assert!(users.take("a").is_none());
        assert!(users.take("b").is_some());
        drop(places);
        assert!(users.take("a").is_some());
        assert!(users.lock().is_empty());
    }
}
