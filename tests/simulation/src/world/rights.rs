//! Keys that change, ends that are revoked, and approvals that are taken back, while everything else goes on.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use towpath_journal::{Journal as _, TransferRecord};
use towpath_testkit::seams::{Agent, Host, Life, Machine};
use towpath_transfer::{AgentName, Code, Direction, Failure, TransferId, TransferKey, state::Place};
use towpath_transport::files::{FileKind, FileStore as _};

use super::{World, known};
use crate::{erp, workload::Act};

/// Until then a running relay has ended the sessions of whoever was revoked.
const SESSIONS_END: std::ops::Range<Duration> = Duration::from_millis(1)..Duration::from_secs(2);
/// When somebody tries again what could not be done because a machine was off.
const AGAIN: Duration = Duration::from_secs(5);
/// The most entries of a folder that are looked at.
const MOST: usize = 10_000;

/// What has become of a tenant's rights.
#[derive(Debug, Default)]
pub struct Rights {
    /// Its agent is revoked, and none has taken its place.
    pub agent_is_out: bool,
    /// Its receiver is revoked.
    pub receiver_is_out: bool,
    /// For some time its receiver has not believed its agent.
    pub was_disapproved: bool,
    /// It does not now.
    pub is_disapproved: bool,
}

/// An agent that was revoked.
#[derive(Debug)]
pub struct Revoked {
    /// The number of its tenant.
    pub tenant: usize,
    /// Its name.
    pub name: AgentName,
    /// Its user name.
    pub user: String,
    /// What the relay had of it when the last of its sessions had ended; not known before.
    pub had: Option<Had>,
    /// Itself, where another has taken its place.
    pub agent: Option<Agent>,
    replacements: u32,
}

/// What a relay has of an agent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Had {
    /// The uplinks it was told of.
    pub uplinks: BTreeSet<TransferId>,
    /// The files in its folders.
    pub files: BTreeSet<PathBuf>,
}

fn is_off(machine: &Machine) -> bool {
    machine.life().is_none_or(Life::is_over)
}

impl World {
    /// Whether nothing comes through for a tenant any more.
    pub(super) fn is_out(&self, tenant: usize) -> bool {
        self.rights.get(tenant).is_some_and(|rights| rights.agent_is_out || rights.receiver_is_out)
    }

    /// Whether a transfer is one of an agent that was revoked.
    #[must_use]
    pub fn is_revoked(&self, key: &TransferKey) -> bool {
        self.revoked
            .iter()
            .any(|one| one.name == key.agent && self.ends.get(one.tenant).is_some_and(|ends| ends.tenant == key.tenant))
    }

    fn rights_of(&self, key: &TransferKey) -> Option<&Rights> {
        self.ends.iter().zip(&self.rights).find(|(ends, _)| ends.tenant == key.tenant).map(|(_, rights)| rights)
    }

    /// Whether a revocation explains that nothing becomes of a transfer on a machine.
    pub(super) fn is_explained(&self, record: &TransferRecord) -> bool {
        if self.rights_of(&record.key).is_some_and(|rights| rights.receiver_is_out) {
            return true;
        }
        let refused = || record.last_failure.as_ref().is_some_and(|failure| failure.code == Code::AgentRevoked);
        self.is_revoked(&record.key)
            && match (record.place, record.direction) {
                (Place::Agent, _) | (_, Direction::Downlink) => true,
                (Place::Relay, Direction::Uplink) => record.parked && refused(),
                (Place::Receiver, Direction::Uplink) => false,
            }
    }

    pub(super) fn rotate(&self, tenant: usize, overlap: Duration) {
        let Some(ends) = self.ends.get(tenant) else { return };
        let (host, story) = (ends.agent.machine.host.clone(), self.story.clone());
        if is_off(&ends.agent.machine) {
            story.tell(format_args!("{host}: is off, and its key stays"));
            return;
        }
        story.tell(format_args!("{host}: is to change its key, and the old one is good for {overlap:?}"));
        ends.agent.rotate(overlap, move |told| match told {
            Ok(rotated) => story.tell(format_args!("{host}: its key was {} and is {}", rotated.old, rotated.new)),
            Err(failure) => story.tell(format_args!("{host}: its key is not changed: {}", failure.report())),
        });
    }

    pub(super) async fn revoke(&mut self, tenant: usize, again: Option<Duration>) {
        let Some(ends) = self.ends.get(tenant) else { return };
        let (name, user) = (ends.agent.enrolment.name.clone(), ends.agent.enrolment.sftp_user.clone());
        self.shut_out(tenant, &name).await;
        self.revoked.push(Revoked { tenant, name, user, had: None, agent: None, replacements: 0 });
        if let Some(rights) = self.rights.get_mut(tenant) {
            rights.agent_is_out = true;
        }
        let number = self.revoked.len() - 1;
        let soon = self.wires.faults.draws().of("sessions end", self.acts).time(SESSIONS_END);
        self.plan(soon, Act::EndSessions(number));
        if let Some(again) = again {
            self.plan(again, Act::Replace(tenant));
        }
    }

    pub(super) async fn revoke_receiver(&mut self, tenant: usize) {
        let Some(ends) = self.ends.get(tenant) else { return };
        let name = ends.receiver.enrolment.name.clone();
        self.shut_out(tenant, &name).await;
        if let Some(rights) = self.rights.get_mut(tenant) {
            rights.receiver_is_out = true;
        }
    }

    async fn shut_out(&self, tenant: usize, name: &AgentName) {
        let Some(ends) = self.ends.get(tenant) else { return };
        self.story.tell(format_args!("relay: {name} of {} is revoked", ends.tenant));
        if self.wires.broken.as_ref().is_some_and(crate::broken::Broken::ignores_revocations) {
            return;
        }
        let scope = self.relay.registry.operator_scope(&ends.tenant).await.unwrap();
        self.relay.registry.revoke(&scope, name).await.unwrap();
    }

    pub(super) async fn end_sessions(&mut self, number: usize) {
        let Some(user) = self.revoked.get(number).map(|revoked| revoked.user.clone()) else { return };
        self.relay.sessions.end(&user);
        self.story.tell(format_args!("relay: the sessions of {user} have ended"));
        let had = self.had(number).await;
        if let Some(revoked) = self.revoked.get_mut(number) {
            revoked.had = Some(had);
        }
    }

    /// What the relay has of a revoked agent now.
    pub(crate) async fn had(&self, number: usize) -> Had {
        let Some(revoked) = self.revoked.get(number) else { return Had::default() };
        let Some(ends) = self.ends.get(revoked.tenant) else { return Had::default() };
        let of_it = |key: &TransferKey| key.tenant == ends.tenant && key.agent == revoked.name;
        let uplinks = known(&self.relay.machine, Direction::Uplink).await;
        let uplinks = uplinks.into_iter().map(|record| record.key).filter(of_it).map(|key| key.id).collect();
        let folder: PathBuf = ["/relay/spool", ends.tenant.as_str(), revoked.name.as_str(), "uplink"].iter().collect();
        let mut had = Had { uplinks, files: BTreeSet::new() };
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            for entry in self.relay.machine.disk.list(&folder, None, MOST).unwrap_or_default() {
                let path = folder.join(&entry.name);
                match entry.stat.kind {
                    FileKind::Dir => folders.push(path),
                    _ => _ = had.files.insert(path),
                }
            }
        }
        had
    }

    /// The ERP host gets a fresh agent under a new name.
    pub(super) async fn replace(&mut self, tenant: usize) {
        let Some(number) = self.revoked.iter().position(|one| one.tenant == tenant && one.agent.is_none()) else { return };
        let Some(revoked) = self.revoked.get_mut(number) else { return };
        if revoked.had.is_none() || is_off(&self.relay.machine) {
            self.plan(AGAIN, Act::Replace(tenant));
            return;
        }
        revoked.replacements += 1;
        let name = format!("erp-{}", revoked.replacements + 1);
        let folder = self.dir.path().join(format!("{tenant}-{name}"));
        let Some(ends) = self.ends.get_mut(tenant) else { return };
        // A person who is disturbed begins again.
        let came = self.wires.faults.may_come(false);
        let tables = erp::configured(self.deletes);
        let replaced = ends.enrol_anew(&self.nature, &self.relay, &folder, &name, &tables).await;
        self.wires.faults.may_come(came);
        match replaced {
            Ok(before) => {
                let host = before.machine.host.clone();
                if let Some(revoked) = self.revoked.get_mut(number) {
                    revoked.agent = Some(before);
                }
                if let Some(rights) = self.rights.get_mut(tenant) {
                    (rights.agent_is_out, rights.is_disapproved) = (false, false);
                }
                // What is read by it is read from the same ERP.
                let state = self.erps.get(tenant).map_or(0, crate::erp::Erp::now);
                self.wires.erp_changed(&host, state);
                self.story.tell(format_args!("{host}: is enrolled anew, as {name}"));
                self.switch_on(&host).await;
            }
            Err(failure) => {
                self.story.tell(format_args!("{name} is not enrolled: {}", failure.report()));
                self.plan(AGAIN, Act::Replace(tenant));
            }
        }
    }

    pub(super) fn disapprove(&mut self, tenant: usize) {
        let (Some(ends), Some(rights)) = (self.ends.get(tenant), self.rights.get_mut(tenant)) else { return };
        (rights.was_disapproved, rights.is_disapproved) = (true, true);
        ends.receiver.disapprove(&ends.agent.enrolment.name);
        self.story.tell(format_args!("{}: does not believe its agent any more", ends.receiver.machine.host));
    }

    pub(super) async fn approve(&mut self, tenant: usize) {
        let Some(ends) = self.ends.get(tenant) else { return };
        let host = ends.receiver.machine.host.clone();
        match self.try_approve(tenant).await {
            Ok(()) => {
                self.story.tell(format_args!("{host}: believes its agent again"));
                if let Some(rights) = self.rights.get_mut(tenant) {
                    rights.is_disapproved = false;
                }
            }
            Err(failure) => {
                self.story.tell(format_args!("{host}: its agent is not approved: {}", failure.report()));
                self.plan(AGAIN, Act::Approve(tenant));
            }
        }
    }

    async fn try_approve(&self, tenant: usize) -> Result<(), Failure> {
        let Some(ends) = self.ends.get(tenant) else { return Ok(()) };
        let scope = self.relay.registry.operator_scope(&ends.tenant).await?;
        let Some(end) = self.relay.registry.end(&scope, &ends.agent.enrolment.name).await? else { return Ok(()) };
        ends.receiver.try_approve(&self.relay.door, &end.fingerprint()).await
    }

    /// The ERP's people try again what waits for them.
    pub(super) async fn retry(&mut self, tenant: usize) {
        let Some(ends) = self.ends.get(tenant) else { return };
        let machine = &ends.agent.machine;
        for record in parked(machine).await {
            machine.journal.unpark(&record.key).await.unwrap();
            self.story.tell(format_args!("{}: {} is tried again", machine.host, self.story.name(record.key.id)));
        }
    }

    /// Once nothing goes wrong any more, people mend what waits for them and was explained by what they did or saw.
    pub(super) async fn release(&mut self) {
        if self.calm_at.is_zero() {
            return;
        }
        for tenant in 0..self.ends.len() {
            let (Some(ends), Some(rights)) = (self.ends.get(tenant), self.rights.get(tenant)) else { continue };
            let by_hand = |codes: &'static [Code]| {
                move |record: &TransferRecord| record.last_failure.as_ref().is_some_and(|failure| codes.contains(&failure.code))
            };
            let stuck = by_hand(&[Code::ErpRefused, Code::AuthenticationRefused]);
            let disbelieved = by_hand(&[Code::AgentUnapproved]);
            if !rights.agent_is_out {
                self.unpark(&ends.agent.machine, stuck).await;
            }
            if rights.was_disapproved && !rights.is_disapproved {
                self.unpark(&ends.receiver.machine, disbelieved).await;
            }
        }
    }

    async fn unpark(&self, machine: &Machine, which: impl Fn(&TransferRecord) -> bool) {
        for record in parked(machine).await.into_iter().filter(which) {
            machine.journal.unpark(&record.key).await.unwrap();
            self.story.tell(format_args!("{}: {} is released", machine.host, self.story.name(record.key.id)));
        }
    }

    /// The agents of a tenant, the one it has now first.
    pub(crate) fn agents(&self, tenant: usize) -> Vec<&Agent> {
        let now = self.ends.get(tenant).map(|ends| &ends.agent);
        let before = self.revoked.iter().filter(|one| one.tenant == tenant).filter_map(|one| one.agent.as_ref());
        now.into_iter().chain(before).collect()
    }

    /// Every machine, also those of agents that were replaced.
    #[must_use]
    pub fn all_machines(&self) -> Vec<&Machine> {
        let before = self.revoked.iter().filter_map(|one| one.agent.as_ref()).map(|agent| &agent.machine);
        self.machines().into_iter().chain(before).collect()
    }

    /// Whether a machine is that of a tenant for which nothing comes through any more.
    pub(crate) fn is_shut_out(&self, host: &Host) -> bool {
        self.number_of(host).is_some_and(|tenant| self.is_out(tenant))
    }

    /// Whether somebody on a machine waits for an end that was revoked: at its tenant, or on the relay for a receiver.
    pub(crate) fn is_concerned(&self, host: &Host) -> bool {
        let revoked = |tenant: usize| self.revoked.iter().any(|one| one.tenant == tenant);
        match self.number_of(host) {
            Some(tenant) => self.is_out(tenant) || revoked(tenant),
            None => self.rights.iter().any(|rights| rights.receiver_is_out),
        }
    }

    fn number_of(&self, host: &Host) -> Option<usize> {
        self.ends.iter().position(|ends| Some(&ends.tenant) == host.tenant.as_ref())
    }
}

async fn parked(machine: &Machine) -> Vec<TransferRecord> {
    let mut all = known(machine, Direction::Uplink).await;
    all.extend(known(machine, Direction::Downlink).await);
    all.retain(|record| record.parked);
    all
}
