//! How much of the web service each caller may have at once, so that no single one, whose key may have been stolen, keeps the others
//! out; and each tenant, so that all the keys of one do not keep out those of another.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use towpath_transfer::{Code, Failure, failure::Result};

/// How long a caller is asked to wait who has as much as there is for one.
const PAUSE: Duration = Duration::from_secs(5);

/// The places of each caller and of each tenant. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Callers {
    /// What is counted, in the plural.
    what: &'static str,
    most: usize,
    most_of_tenant: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    by_user: Counts,
    by_tenant: Counts,
}

/// Nobody is in it who has none, so that it stays as small as what is open.
#[derive(Debug, Default)]
struct Counts(HashMap<String, usize>);

/// A place of a caller, until it is dropped.
#[derive(Debug)]
pub(super) struct CallerPlace {
    callers: Callers,
    user: String,
}

/// The place of a request, once it is known whose it is, until it is answered. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct RequestPlace {
    among: Callers,
    place: Arc<OnceLock<CallerPlace>>,
}

impl Counts {
    fn of(&self, name: &str) -> usize {
        self.0.get(name).copied().unwrap_or_default()
    }

    fn add(&mut self, name: &str) {
        *self.0.entry(name.to_owned()).or_default() += 1;
    }

    fn remove(&mut self, name: &str) {
        if let Some(count) = self.0.get_mut(name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(name);
            }
        }
    }
}

/// The tenant of a user, which is `<tenant>.<name>` with a dot in neither.
fn tenant_of(user: &str) -> &str {
    user.split_once('.').map_or(user, |(tenant, _)| tenant)
}

impl Callers {
    /// At most `most` of them for each caller, and `most_of_tenant` for all callers of a tenant together.
    pub(super) fn new(what: &'static str, most: usize, most_of_tenant: usize) -> Self {
        Self { what, most: most.max(1), most_of_tenant: most_of_tenant.max(1), taken: Arc::default() }
    }

    /// A place for one more.
    ///
    /// # Errors
    /// `rate-limited` where the caller, or its tenant, has as many as it may have.
    pub(super) fn take(&self, user: &str) -> Result<CallerPlace> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let tenant = tenant_of(user);
        let of_user = ("caller", taken.by_user.of(user), self.most);
        let of_tenant = ("tenant", taken.by_tenant.of(tenant), self.most_of_tenant);
        if let Some((who, _, most)) = [of_user, of_tenant].into_iter().find(|(_, count, most)| count >= most) {
            let message = format!("a {who} has at most {most} {} at once", self.what);
            return Err(Failure::retry(Code::RateLimited, message).after(PAUSE));
        }
        taken.by_user.add(user);
        taken.by_tenant.add(tenant);
        Ok(CallerPlace { callers: self.clone(), user: user.to_owned() })
    }
}

#[cfg(test)]
impl Callers {
    /// How many a caller has.
    pub(super) fn taken_by(&self, user: &str) -> usize {
        self.taken.lock().unwrap().by_user.of(user)
    }
}

impl Drop for CallerPlace {
    fn drop(&mut self) {
        let mut taken = self.callers.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.by_user.remove(&self.user);
        taken.by_tenant.remove(tenant_of(&self.user));
    }
}

impl RequestPlace {
    /// A request that is to have its place among these.
    pub(super) fn among(callers: &Callers) -> Self {
        Self { among: callers.clone(), place: Arc::default() }
    }

    /// The request is one of `user`'s; a request has one caller.
    ///
    /// # Errors
    /// Those of [`Callers::take`].
    pub(super) fn take(&self, user: &str) -> Result<()> {
        let _ = self.place.set(self.among.take(user)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_nobody_is_remembered_without() {
        let callers = Callers::new("requests", 2, 9);
        let (one, two) = (callers.take("a.x").unwrap(), callers.take("a.x").unwrap());
        let refused = callers.take("a.x").unwrap_err();
        assert!(
            refused.code() == Code::RateLimited && refused.report().contains("a caller has at most 2 requests"),
            "{}",
            refused.report()
        );
        let other = callers.take("a.y").unwrap();
        drop(one);
        let three = callers.take("a.x").unwrap();
        assert!(callers.take("a.x").is_err());
        drop((two, three, other));
        let taken = callers.taken.lock().unwrap();
        assert!(taken.by_user.0.is_empty() && taken.by_tenant.0.is_empty());
    }

    #[test]
    fn all_keys_of_a_tenant_share_what_it_may_have() {
        let callers = Callers::new("requests", 2, 3);
        let mut held: Vec<_> = ["a.x", "a.x", "a.y"].map(|user| callers.take(user).unwrap()).into();
        for user in ["a.y", "a.z"] {
            let refused = callers.take(user).unwrap_err();
            assert!(
                refused.code() == Code::RateLimited && refused.report().contains("a tenant has at most 3 requests"),
                "{user}"
            );
        }
        assert_eq!((callers.taken_by("a.y"), callers.taken_by("a.z")), (1, 0), "a refusal takes nothing");
        // A name that begins alike is another tenant.
        let other = callers.take("aa.x").unwrap();
        held.remove(0);
        held.push(callers.take("a.z").unwrap());
        assert!(callers.take("a.y").is_err());
        drop((held, other));
        let taken = callers.taken.lock().unwrap();
        assert!(taken.by_user.0.is_empty() && taken.by_tenant.0.is_empty());
    }
}
