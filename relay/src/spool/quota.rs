//! How much the spool holds, and how much it may hold: in all, per tenant, kept for single tenants, and with a reserve left on the
//! disk.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use towpath_transfer::TenantName;
use towpath_transport::{files::FileStore, server::Lack};

use super::count::{DEPTH, Hidden, names, walk};
use crate::{registry::TenantLimits, scope::TenantScope};

/// The disk is asked for its free space again after so many bytes.
const ASK_AGAIN_BYTES: u64 = 4 * 1024 * 1024;
/// The most tenants of which the figures are told one by one, those with the most bytes first.
pub const MAX_TENANT_FIGURES: usize = 1_000;

/// How much the spool may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Bytes of all tenants.
    pub total_bytes: u64,
    /// Bytes of a tenant of which nothing else is said.
    pub tenant_bytes: u64,
    /// Bytes that must stay free on the disk.
    pub reserve_bytes: u64,
    /// Transfers of one agent that have a folder and are not complete.
    pub open_transfers: usize,
    /// Files of one transfer, those still being written included.
    pub files_per_transfer: usize,
}

/// What is counted now, for the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpoolFigures {
    /// Bytes of all tenants.
    pub bytes: u64,
    /// Of each tenant that has any, or of which limits are said: its bytes, and its quota; at most [`MAX_TENANT_FIGURES`].
    pub tenants: BTreeMap<TenantName, (u64, u64)>,
    /// How often room was refused since the start, by what there was no room in.
    pub refusals: Vec<(&'static str, u64)>,
}

/// Counts bytes against [`SpoolLimits`] and what is said of each tenant.
#[derive(Debug)]
pub struct Quota {
    files: Arc<dyn FileStore>,
    root: PathBuf,
    limits: SpoolLimits,
    used: Mutex<Used>,
    /// Bytes granted since the disk was last asked.
    unasked: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
}

/// What room can be refused for, and its word.
const REASONS: [(Lack, &str); 3] = [(Lack::Quota, "quota"), (Lack::Spool, "spool"), (Lack::Reserve, "reserve")];

/// The word for what there is no room in.
#[must_use]
pub fn reason(lack: Lack) -> &'static str {
    REASONS.iter().find(|(known, _)| *known == lack).map_or("disk", |(_, word)| word)
}

#[derive(Debug, Default)]
struct Used {
    total: u64,
    tenants: HashMap<TenantName, u64>,
    /// The bytes of all tenants that are counted and not on the disk yet: what is reserved and not taken.
    held: u64,
    /// What is said of tenants.
    said: HashMap<TenantName, TenantLimits>,
    /// The bytes that are kept for tenants and that these do not use yet, of all together.
    kept: u64,
    /// The bytes that are kept for tenants, used or not.
    reserves: u64,
}

/// What is new of that which is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// The tenants whose retention has changed.
    pub retention: Vec<TenantName>,
    /// The sum of all reserves in bytes, where it is another one and more than there is.
    pub too_much: Option<u64>,
}

impl Used {
    fn of(&self, tenant: &TenantName) -> u64 {
        self.tenants.get(tenant).copied().unwrap_or(0)
    }

    /// The bytes that are kept for a tenant and that it does not use yet.
    fn kept_for(&self, tenant: &TenantName) -> u64 {
        let reserve = self.said.get(tenant).and_then(|limits| limits.reserve).unwrap_or(0);
        reserve.saturating_sub(self.of(tenant))
    }

    /// The bytes that are kept for every other tenant.
    fn kept_for_others(&self, tenant: &TenantName) -> u64 {
        self.kept.saturating_sub(self.kept_for(tenant))
    }

    fn set(&mut self, tenant: &TenantName, total: u64, bytes: u64) {
        let others = self.kept_for_others(tenant);
        self.total = total;
        if bytes == 0 {
            self.tenants.remove(tenant);
        } else {
            self.tenants.insert(tenant.clone(), bytes);
        }
        self.kept = others.saturating_add(self.kept_for(tenant));
    }

    fn add_up_kept(&mut self) {
        self.kept = self.said.keys().map(|tenant| self.kept_for(tenant)).fold(0, u64::saturating_add);
    }
}

impl Quota {
    pub(super) fn new(files: Arc<dyn FileStore>, root: PathBuf, limits: SpoolLimits) -> Self {
        // The first growth asks the disk.
        let unasked = AtomicU64::new(ASK_AGAIN_BYTES);
        Self { files, root, limits, used: Mutex::default(), unasked, refused: Default::default() }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &SpoolLimits {
        &self.limits
    }

    /// Bytes of all tenants.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().total
    }

    /// Bytes of one tenant.
    #[must_use]
    pub fn used_by(&self, scope: &TenantScope) -> u64 {
        self.lock().of(scope.tenant())
    }

    /// Bytes that a tenant may have.
    #[must_use]
    pub fn of(&self, scope: &TenantScope) -> u64 {
        self.said_of(scope.tenant()).quota.unwrap_or(self.limits.tenant_bytes)
    }

    /// What is said of a tenant.
    #[must_use]
    pub fn said_of(&self, tenant: &TenantName) -> TenantLimits {
        self.lock().said.get(tenant).copied().unwrap_or_default()
    }

    /// Takes over what is said of tenants now; of every other one nothing is.
    pub fn follow(&self, said: Vec<(TenantName, TenantLimits)>) -> Followed {
        let said: HashMap<_, _> = said.into_iter().collect();
        let mut used = self.lock();
        let time = |of: &HashMap<TenantName, TenantLimits>, name| of.get(name).and_then(|limits| limits.retention);
        let mut known: Vec<&TenantName> = used.said.keys().chain(said.keys()).collect();
        known.sort_unstable();
        known.dedup();
        let retention = known.into_iter().filter(|name| time(&used.said, name) != time(&said, name)).cloned().collect();
        let reserves = said.values().filter_map(|limits| limits.reserve).fold(0, u64::saturating_add);
        let told = std::mem::replace(&mut used.reserves, reserves) == reserves;
        used.said = said;
        used.add_up_kept();
        drop(used);
        // What was kept on the disk for others may be another sum now.
        self.unasked.store(ASK_AGAIN_BYTES, Ordering::SeqCst);
        Followed { retention, too_much: (!told && reserves > self.limits.total_bytes).then_some(reserves) }
    }

    /// The figures as they are now.
    #[must_use]
    pub fn figures(&self) -> SpoolFigures {
        let used = self.lock();
        let mut names: Vec<(u64, &TenantName)> = used.tenants.iter().map(|(name, bytes)| (*bytes, name)).collect();
        names.extend(used.said.keys().filter(|name| !used.tenants.contains_key(*name)).map(|name| (0, name)));
        names.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        names.truncate(MAX_TENANT_FIGURES);
        let quota = |name| used.said.get(name).and_then(|limits| limits.quota).unwrap_or(self.limits.tenant_bytes);
        let tenants = names.into_iter().map(|(bytes, name)| (name.clone(), (bytes, quota(name)))).collect();
        let refusals = REASONS.iter().zip(&self.refused).map(|((_, word), count)| (*word, count.load(Ordering::Relaxed)));
        SpoolFigures { bytes: used.total, tenants, refusals: refusals.collect() }
    }

    /// Whether the disk has less than its reserve. Blocking.
    #[must_use]
    pub fn below_reserve(&self) -> bool {
        self.free().is_some_and(|free| free < self.limits.reserve_bytes)
    }

    /// The bytes that are free on the disk; `None` where it cannot be asked: then it has no reserve, and writing to it will tell.
    fn free(&self) -> Option<u64> {
        self.files.free_space(&self.root).ok()
    }

    /// Takes room for `bytes` more that are written now; with 0, asks whether there may be more. Blocking, now and then.
    ///
    /// # Errors
    /// What there is no room in; nothing is taken then.
    pub fn grow(&self, scope: &TenantScope, bytes: u64) -> Result<(), Lack> {
        // What others hold on the disk is theirs.
        let asked = || self.ask_now_and_then(scope, bytes, |used| used.held);
        self.counted(asked().and_then(|()| self.take(scope.tenant(), bytes)))
    }

    /// Takes room for `bytes` more that are written later, each part after [`Quota::write_held`]. The disk is asked at once, whether it
    /// has room for these and for everything else that is held. Blocking.
    ///
    /// # Errors
    /// What there is no room in; nothing is taken then.
    pub(super) fn hold(&self, scope: &TenantScope, bytes: u64) -> Result<(), Lack> {
        let held = || {
            self.take(scope.tenant(), bytes)?;
            // Before the disk is asked: of two that ask at the same time, neither overlooks the other.
            let others = {
                let mut used = self.lock();
                let others = used.held;
                used.held = others.saturating_add(bytes);
                others
            };
            self.ask_disk(scope, bytes, others).inspect_err(|_| self.release(scope, bytes))
        };
        self.counted(held())
    }

    /// Asks whether `bytes` of what is held can be written now: the disk may have filled up since. What others hold does not count
    /// against it. Blocking, now and then.
    ///
    /// # Errors
    /// What there is no room in.
    pub(super) fn write_held(&self, scope: &TenantScope, bytes: u64) -> Result<(), Lack> {
        self.counted(self.ask_now_and_then(scope, bytes, |_| 0))
    }

    /// Of what is counted, so much is on the disk now, or will be in a moment.
    pub(super) fn written(&self, bytes: u64) {
        let mut used = self.lock();
        used.held = used.held.saturating_sub(bytes);
    }

    /// Of what is counted, so much is not on the disk any more, and will be written once more.
    pub(super) fn unwritten(&self, bytes: u64) {
        let mut used = self.lock();
        used.held = used.held.saturating_add(bytes);
    }

    /// Gives back room that was held and not written.
    pub(super) fn release(&self, scope: &TenantScope, bytes: u64) {
        self.written(bytes);
        self.shrink(scope, bytes);
    }

    fn counted(&self, grown: Result<(), Lack>) -> Result<(), Lack> {
        if let Err(lack) = grown {
            let count = REASONS.iter().zip(&self.refused).find(|((known, _), _)| *known == lack);
            if let Some((_, count)) = count {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        grown
    }

    fn ask_now_and_then(&self, scope: &TenantScope, bytes: u64, held: impl FnOnce(&Used) -> u64) -> Result<(), Lack> {
        if self.unasked.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes) < ASK_AGAIN_BYTES {
            return Ok(());
        }
        let held = held(&self.lock());
        self.ask_disk(scope, bytes, held)
    }

    /// Whether the disk has room for `bytes` beside its reserve, and beside what is `held` and kept for other tenants.
    fn ask_disk(&self, scope: &TenantScope, bytes: u64, held: u64) -> Result<(), Lack> {
        let kept = self.lock().kept_for_others(scope.tenant());
        let needed = self.limits.reserve_bytes.saturating_add(bytes);
        let lack = self.free().and_then(|free| match free {
            _ if free < needed => Some(Lack::Reserve),
            _ if free < needed.saturating_add(held).saturating_add(kept) => Some(Lack::Spool),
            _ => None,
        });
        // After a refusal it is asked again at the next try, so that the spool recovers as soon as space returns.
        self.unasked.store(if lack.is_some() { ASK_AGAIN_BYTES } else { 0 }, Ordering::SeqCst);
        lack.map_or(Ok(()), Err)
    }

    fn take(&self, tenant: &TenantName, bytes: u64) -> Result<(), Lack> {
        let mut used = self.lock();
        let (total, own) = (used.total.saturating_add(bytes), used.of(tenant).saturating_add(bytes));
        let quota = used.said.get(tenant).and_then(|limits| limits.quota).unwrap_or(self.limits.tenant_bytes);
        if own > quota {
            return Err(Lack::Quota);
        }
        if total.saturating_add(used.kept_for_others(tenant)) > self.limits.total_bytes {
            return Err(Lack::Spool);
        }
        used.set(tenant, total, own);
        Ok(())
    }

    /// Gives room back.
    pub fn shrink(&self, scope: &TenantScope, bytes: u64) {
        let mut used = self.lock();
        let (total, own) = (used.total.saturating_sub(bytes), used.of(scope.tenant()).saturating_sub(bytes));
        used.set(scope.tenant(), total, own);
    }

    /// Counts everything there is, and removes hidden files that an earlier process did not finish.
    pub(super) fn scan(&self) -> io::Result<()> {
        let (mut total, mut tenants) = (0u64, HashMap::new());
        for tenant in names(&*self.files, &self.root)? {
            let Ok(name) = tenant.parse::<TenantName>() else { continue };
            let bytes = walk(&*self.files, &self.root.join(&tenant), DEPTH - 1, Hidden::Removed)?;
            total = total.saturating_add(bytes);
            tenants.insert(name, bytes);
        }
        let mut used = self.lock();
        (used.total, used.tenants) = (total, tenants);
        used.add_up_kept();
        Ok(())
    }

    /// The bytes of one transfer's folder; 0 where there is none.
    pub(super) fn size_of(&self, folder: &Path) -> io::Result<u64> {
        walk(&*self.files, folder, 0, Hidden::Counted)
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use towpath_transport::files::MemoryFiles;

    use super::*;

    const LIMITS: SpoolLimits =
        SpoolLimits { total_bytes: 100, tenant_bytes: 60, reserve_bytes: 0, open_transfers: 1, files_per_transfer: 1 };

    fn tenant(name: &str) -> TenantScope {
        TenantScope::proven(name.parse().unwrap())
    }

    fn quota(limits: SpoolLimits) -> (Quota, MemoryFiles) {
        let files = MemoryFiles::new();
        files.create_dir_all("/spool".as_ref()).unwrap();
        (Quota::new(Arc::new(files.clone()), "/spool".into(), limits), files)
    }

    fn said(name: &str, quota: Option<u64>, reserve: Option<u64>) -> (TenantName, TenantLimits) {
        (name.parse().unwrap(), TenantLimits { quota, reserve, ..TenantLimits::default() })
    }

    #[test]
    fn what_is_kept_for_one_tenant_no_other_can_use_up() {
        let (quota, _) = quota(LIMITS);
        let (acme, other, third) = (tenant("acme"), tenant("other"), tenant("third"));
        assert_eq!(quota.follow(vec![said("acme", None, Some(50))]), Followed::default());
        quota.grow(&other, 40).unwrap();
        assert_eq!(quota.grow(&other, 11), Err(Lack::Spool), "50 are kept for acme");
        quota.grow(&acme, 30).unwrap();
        assert_eq!(quota.grow(&third, 11), Err(Lack::Spool), "20 still are");
        quota.grow(&third, 10).unwrap();
        quota.grow(&acme, 20).unwrap();
        assert_eq!((quota.used(), quota.grow(&acme, 1)), (100, Err(Lack::Spool)), "beyond it there is no more for acme either");
        quota.shrink(&acme, 50);
        assert_eq!(quota.grow(&other, 1), Err(Lack::Spool), "it is kept again");
        quota.follow(Vec::new());
        quota.grow(&other, 20).unwrap();
        assert_eq!(quota.grow(&other, 1), Err(Lack::Quota));
    }

    #[test]
    fn what_is_kept_is_kept_on_the_disk_too_and_the_reserve_before_it() {
        let (quota, files) = quota(SpoolLimits { reserve_bytes: 1_000, ..LIMITS });
        let (acme, other) = (tenant("acme"), tenant("other"));
        quota.follow(vec![said("acme", None, Some(50))]);
        files.set_space(Some(1_049));
        assert_eq!(quota.grow(&other, 1), Err(Lack::Spool));
        quota.grow(&acme, 1).unwrap();
        files.set_space(Some(999));
        quota.follow(vec![said("acme", None, Some(50))]);
        assert_eq!(quota.grow(&acme, 1), Err(Lack::Reserve));
        files.set_space(None);
        quota.grow(&other, 1).unwrap();
    }

    #[test]
    fn what_is_held_and_not_written_yet_counts_on_the_disk() {
        let (quota, files) = quota(SpoolLimits { reserve_bytes: 1_000, ..LIMITS });
        let (acme, other) = (tenant("acme"), tenant("other"));
        // Whatever is said anew lets the disk be asked at once.
        let ask_anew = || quota.follow(Vec::new());
        files.set_space(Some(1_049));
        assert_eq!((quota.hold(&acme, 50), quota.used()), (Err(Lack::Reserve), 0), "the question is of all that is to come");
        files.set_space(Some(1_060));
        quota.hold(&acme, 50).unwrap();
        assert_eq!((quota.hold(&other, 11), quota.used()), (Err(Lack::Spool), 50), "what acme holds is acme's");
        ask_anew();
        assert_eq!(quota.grow(&other, 11), Err(Lack::Spool));
        quota.grow(&other, 10).unwrap();
        ask_anew();
        quota.write_held(&acme, 50).unwrap();
        quota.written(50);
        ask_anew();
        quota.grow(&other, 11).unwrap();
        quota.unwritten(50);
        ask_anew();
        assert_eq!(quota.grow(&other, 11), Err(Lack::Spool), "it is to be written once more");
        quota.release(&acme, 50);
        quota.grow(&other, 11).unwrap();
        // What is held is written only while the disk has room for it.
        quota.hold(&acme, 50).unwrap();
        files.set_space(Some(1_049));
        ask_anew();
        assert_eq!(quota.write_held(&acme, 50), Err(Lack::Reserve));
        quota.write_held(&acme, 49).unwrap();
    }

    #[test]
    fn reserves_that_are_more_than_there_is_are_told_once() {
        let (quota, _) = quota(LIMITS);
        let both = || vec![said("acme", None, Some(60)), said("other", None, Some(41))];
        assert_eq!(quota.follow(both()).too_much, Some(101));
        assert_eq!(quota.follow(both()), Followed::default());
        assert_eq!(quota.grow(&tenant("third"), 1), Err(Lack::Spool));
        quota.grow(&tenant("acme"), 59).unwrap();
    }

    #[test]
    fn a_quota_below_what_is_there_refuses_more_and_removes_nothing() {
        let (quota, _) = quota(LIMITS);
        let acme = tenant("acme");
        quota.grow(&acme, 30).unwrap();
        quota.follow(vec![said("acme", Some(20), None)]);
        assert_eq!((quota.of(&acme), quota.used_by(&acme)), (20, 30));
        assert_eq!((quota.grow(&acme, 0), quota.grow(&acme, 1)), (Err(Lack::Quota), Err(Lack::Quota)));
        quota.grow(&tenant("other"), 60).unwrap();
        quota.shrink(&acme, 15);
        quota.grow(&acme, 5).unwrap();
        quota.follow(vec![said("acme", Some(80), None)]);
        quota.grow(&acme, 20).unwrap();
    }

    #[test]
    fn the_figures_are_of_so_many_tenants_and_count_refusals_by_their_reason() {
        let (quota, files) = quota(SpoolLimits { total_bytes: 10_000, tenant_bytes: 60, reserve_bytes: 1, ..LIMITS });
        quota.follow(vec![said("idle", Some(7), None)]);
        for number in 0..MAX_TENANT_FIGURES {
            quota.grow(&tenant(&format!("t{number}")), 1 + u64::from(number == 3)).unwrap();
        }
        quota.grow(&tenant("t1"), 60).unwrap_err();
        quota.follow(vec![said("idle", Some(7), Some(9_000))]);
        quota.grow(&tenant("t1"), 0).unwrap_err();
        files.set_space(Some(0));
        // Whatever is said anew lets the disk be asked at once.
        quota.follow(vec![said("idle", Some(7), None)]);
        quota.grow(&tenant("t1"), 0).unwrap_err();
        let figures = quota.figures();
        assert_eq!((figures.bytes, figures.tenants.len()), (1 + MAX_TENANT_FIGURES as u64, MAX_TENANT_FIGURES));
        assert_eq!(figures.tenants.get(&"t3".parse().unwrap()), Some(&(2, 60)));
        assert_eq!(figures.tenants.get(&"idle".parse().unwrap()), None, "those with the most bytes come first");
        assert_eq!(figures.refusals, [("quota", 1), ("spool", 1), ("reserve", 1)]);
    }
}
