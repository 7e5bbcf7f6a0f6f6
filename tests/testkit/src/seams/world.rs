//! The installation: one relay, and for each tenant an agent and a receiver, with the time between them.

use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use towpath_journal::{FailPoints, verify};
use towpath_transfer::{
    Failure, TenantName, TransferId, TransferState,
    api::Role,
    beside::beside,
    clock::{ManualClock, SeededEntropy},
    receipt::ReceiptStage,
    state::{Outcome, Place},
};

use super::{agent::Agent, door::Door, machine::Nature, receiver::Receiver, relay::Relay, rows};
use crate::{AGENT, RECEIVER};

/// The tables of the small ERP.
const TABLES: &[&str] = &["items", "stock"];
/// By how much time moves when every program waits.
const STEP: Duration = Duration::from_millis(50);
/// By how much it moves while a step runs, which may itself wait for time.
const CREEP: Duration = Duration::from_millis(2);
/// How often tasks that can go on are let go on before time moves.
const TURNS: usize = 16;
/// After so many looks a test gives up.
const MAX_LOOKS: u32 = 400_000;

/// One tenant's two ends.
#[derive(Debug)]
pub struct Ends {
    /// The tenant.
    pub tenant: TenantName,
    /// Its ERP host.
    pub agent: Agent,
    /// Its app server.
    pub receiver: Receiver,
}

impl Ends {
    /// Enrols and approves both ends of a tenant with a relay that is on. `folder` is the tenant's own; `erp` makes the ERP
    /// database, and `tables` is the part of the agent's configuration that names its tables.
    ///
    /// # Panics
    /// Where that fails.
    pub async fn enrolled(nature: &Nature, relay: &Relay, folder: &Path, tenant: &TenantName, erp: &str, tables: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let (landing, api) = (Door::new(), relay.anonymous());
        let scope = relay.create_tenant(tenant, landing.clone()).await;
        let code = relay.code(&scope, Role::Receiver, RECEIVER).await;
        let receiver = Receiver::enrolled(nature, &api, &code, folder, landing).await;
        let code = relay.code(&scope, Role::Agent, AGENT).await;
        let path = folder.join("erp.sqlite");
        beside(write_erp(&path, erp)).await;
        let mut agent = Agent::enrolled(nature, &api, &code, folder, path, tables).await.unwrap();
        agent.relay_time = Some(Arc::clone(&relay.machine.nature.clock));
        receiver.approve(&relay.door, &agent.identity.fingerprint()).await;
        Self { tenant: tenant.clone(), agent, receiver }
    }

    /// Enrols the ERP host once more, under another name and with a fresh state folder, and approves it; `folder` is for its pins. Returns
    /// the agent that was there before, which is off.
    ///
    /// # Errors
    /// Where the relay refuses; nothing has changed then.
    ///
    /// # Panics
    /// Where the relay is off.
    pub async fn enrol_anew(
        &mut self,
        nature: &Nature,
        relay: &Relay,
        folder: &Path,
        name: &str,
        tables: &str,
    ) -> Result<Agent, Failure> {
        let (scope, erp) = (relay.registry.operator_scope(&self.tenant).await?, self.agent.erp.clone());
        std::fs::create_dir_all(folder).unwrap();
        let code = relay.code(&scope, Role::Agent, name).await;
        let mut agent = Agent::enrolled(nature, &relay.anonymous(), &code, folder, erp, tables).await?;
        agent.relay_time = Some(Arc::clone(&relay.machine.nature.clock));
        self.receiver.try_approve(&relay.door, &agent.identity.fingerprint()).await?;
        self.agent.machine.kill().await;
        Ok(std::mem::replace(&mut self.agent, agent))
    }
}

/// The receipts of a transfer, as far as they are signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signed {
    /// The relay's.
    pub accepted: Option<Vec<u8>>,
    /// The receiver's.
    pub imported: Option<Vec<u8>>,
}

/// The installation.
#[derive(Debug)]
pub struct Seams {
    /// Databases and pins; removed at the end.
    pub dir: TempDir,
    /// The time of all machines.
    pub clock: ManualClock,
    /// The comms server.
    pub relay: Relay,
    /// The tenants.
    pub ends: Vec<Ends>,
    /// How often each call is made.
    pub times: usize,
}

impl Seams {
    /// An installation with enrolled and approved ends for each of `tenants`, all under the same names; everything is off but
    /// the relay, which keeps what has ended for `retention`.
    ///
    /// # Panics
    /// Where something cannot be set up.
    pub async fn new(tenants: &[&str], retention: Duration) -> Self {
        let dir = tempfile::Builder::new().prefix("towpath-seams-").tempdir().unwrap();
        let clock = ManualClock::new("2026-03-01T02:00:00Z".parse().unwrap());
        let nature = Nature::plain(Arc::new(clock.clone()), Arc::new(SeededEntropy::new(11)));
        let mut relay = Relay::new(&nature, retention).await;
        relay.start(Arc::new(super::StopAt::nowhere())).await;
        let mut ends = Vec::new();
        for tenant in tenants {
            let tables: String = TABLES.iter().map(|table| format!("[[job.table]]\nname = \"{table}\"\n")).collect();
            let (folder, tenant) = (dir.path().join(tenant), tenant.parse().unwrap());
            ends.push(Ends::enrolled(&nature, &relay, &folder, &tenant, &small_erp(&tenant), &tables).await);
        }
        relay.machine.crash().await;
        Self { dir, clock, relay, ends, times: 1 }
    }

    /// The ends of a tenant, counted from 0.
    ///
    /// # Panics
    /// Where there are not so many.
    #[must_use]
    pub fn tenant(&self, number: usize) -> &Ends {
        self.ends.get(number).expect("a tenant of this number")
    }

    /// Switches everything on that is off.
    pub async fn start(&mut self, fail_points: &Arc<dyn FailPoints>) {
        self.relay.start(Arc::clone(fail_points)).await;
        for ends in &mut self.ends {
            ends.receiver.start(&self.relay.door, self.times, Arc::clone(fail_points)).await;
            ends.agent.start(&self.relay.door, self.times, Arc::clone(fail_points)).await;
        }
    }

    /// The power goes at one machine: that of the relay, or one of the first tenant.
    ///
    /// # Panics
    /// Where the program had ended by itself before.
    pub async fn crash(&mut self, place: Place) {
        match (place, self.ends.first_mut()) {
            (Place::Agent, Some(ends)) => ends.agent.machine.crash().await,
            (Place::Receiver, Some(ends)) => ends.receiver.machine.crash().await,
            _ => self.relay.machine.crash().await,
        }
    }

    /// The program on that machine is killed, and the machine stays on.
    ///
    /// # Panics
    /// Where the program had ended by itself before.
    pub async fn kill(&mut self, place: Place) {
        match (place, self.ends.first_mut()) {
            (Place::Agent, Some(ends)) => ends.agent.machine.kill().await,
            (Place::Receiver, Some(ends)) => ends.receiver.machine.kill().await,
            _ => self.relay.machine.kill().await,
        };
    }

    /// Switches that machine on again.
    ///
    /// # Panics
    /// Where its program does not start.
    pub async fn restart(&mut self, place: Place, fail_points: Arc<dyn FailPoints>) {
        let (door, times) = (self.relay.door.clone(), self.times);
        match (place, self.ends.first_mut()) {
            (Place::Agent, Some(ends)) => ends.agent.start(&door, times, fail_points).await,
            (Place::Receiver, Some(ends)) => ends.receiver.start(&door, times, fail_points).await,
            _ => self.relay.start(fail_points).await,
        }
    }

    /// Lets time pass until something is so.
    ///
    /// # Panics
    /// Where it never is.
    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut(&Self) -> bool) {
        for _ in 0..MAX_LOOKS {
            if is_so(self).await {
                return;
            }
            self.pass().await;
        }
        panic!("gave up waiting until {what}: {}", self.told().await);
    }

    /// Lets everybody go on who can, and then moves the time: a step where every program waits, and next to nothing where one
    /// works.
    async fn pass(&self) {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let ends = self.ends.iter().map(|ends| ends.agent.machine.steps() + ends.receiver.machine.steps());
        if ends.sum::<usize>() + self.relay.machine.steps() == 0 {
            self.clock.advance(STEP);
            return;
        }
        // A turn of the threads that read files and databases, which this thread would otherwise spin in front of.
        let _ = tokio::task::spawn_blocking(std::thread::yield_now).await;
        self.clock.advance(CREEP);
    }

    /// Where everything stands, for a test that gives up.
    async fn told(&self) -> String {
        use towpath_journal::{Filter, Journal as _};
        let mut told = String::new();
        let journals = self.ends.iter().flat_map(|ends| [&ends.agent.machine.journal, &ends.receiver.machine.journal]);
        for journal in journals.chain([&self.relay.machine.journal]) {
            for record in journal.list(&Filter::default(), 10, None).await.unwrap_or_default() {
                told.push_str(&format!("\n{:?}: {record:?}", journal.place()));
            }
        }
        told
    }

    /// Waits until a transfer of a tenant has ended as imported on all three machines, after `what`, and its landed copy is gone.
    ///
    /// # Panics
    /// Where that does not happen.
    pub async fn until_over(&self, what: &str, ends: &Ends, id: TransferId) {
        let key = ends.agent.key(id);
        let what = format!("transfer {key} is over, after {what}");
        let is_over = async |world: &Self| {
            let imported = |state: &TransferState| *state == TransferState::Imported;
            let removed = TransferState::Removed { outcome: Outcome::Imported };
            imported(&ends.agent.record(id).await.state)
                && ends.receiver.record(&key).await.is_some_and(|record| imported(&record.state))
                && world.relay.record(&key).await.is_some_and(|record| imported(&record.state) || record.state == removed)
                && !ends.receiver.has_landed(&key)
        };
        self.until(&what, is_over).await;
    }

    /// The receipts of a transfer where they are signed.
    #[must_use]
    pub fn signed(&self, ends: &Ends, id: TransferId) -> Signed {
        let key = ends.agent.key(id);
        let accepted = self.relay.receipt(&key, ReceiptStage::Accepted);
        Signed { accepted, imported: ends.receiver.receipt(&key, ReceiptStage::Imported) }
    }

    /// Everything that must hold of a transfer that is over, after `what`: one import, one receipt of each kind that everybody has alike and
    /// that verifies, journals that replay, and no payload left where it is not needed.
    ///
    /// # Panics
    /// Where something does not hold.
    pub async fn check(&self, what: &str, ends: &Ends, id: TransferId, first: &Signed) {
        let key = ends.agent.key(id);
        let database = ends.receiver.database(&key.agent);
        let imports = rows(&database, "SELECT transfer FROM towpath_imports").await;
        assert_eq!(imports.iter().filter(|transfer| **transfer == id.to_string()).count(), 1, "{what}: {imports:?}");
        for table in TABLES {
            let all = format!("SELECT * FROM {table} ORDER BY 1");
            assert_eq!(rows(&ends.agent.erp, &all).await, rows(&database, &all).await, "{what}: {table}");
        }
        let last = self.signed(ends, id);
        assert!(last.accepted.is_some() && last.imported.is_some(), "{what}: a receipt is missing: {last:?}");
        assert!(first.accepted.is_none() || first.accepted == last.accepted, "{what}: the relay has signed anew");
        assert!(first.imported.is_none() || first.imported == last.imported, "{what}: the receiver has signed anew");
        assert_eq!(self.relay.receipt(&key, ReceiptStage::Imported), last.imported, "{what}");
        let kept = |stage| ends.agent.receipt(id, stage);
        assert_eq!((kept(ReceiptStage::Accepted), kept(ReceiptStage::Imported)), (last.accepted, last.imported), "{what}");
        assert_eq!(kept(ReceiptStage::Rejected), None, "{what}");
        ends.agent.verify_chain(id).await;
        verify(&*ends.agent.machine.journal, &key).await.unwrap();
        verify(&*self.relay.machine.journal, &key).await.unwrap();
        verify(&*ends.receiver.machine.journal, &key).await.unwrap();
        assert!(!ends.receiver.has_landed(&key), "{what}: something is left on the landing");
        assert_eq!(ends.agent.payload(id), [""; 0], "{what}: packed files are left at the agent");
        assert!(!ends.agent.has_notes(id), "{what}: notes are left at the agent");
    }
}

/// A small ERP whose rows name the tenant.
fn small_erp(tenant: &TenantName) -> String {
    format!(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price DECIMAL(12,2));
         CREATE TABLE stock (item INTEGER NOT NULL, place TEXT, pieces INTEGER);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
         INSERT INTO items SELECT i, '{tenant} item \"' || i || '\", ü', CASE WHEN i % 7 THEN i || '.25' END FROM n;
         INSERT INTO stock SELECT id, CASE WHEN id % 3 THEN 'hall ' || id ELSE '' END, id * 3 FROM items;"
    )
}

async fn write_erp(path: &Path, sql: &str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
