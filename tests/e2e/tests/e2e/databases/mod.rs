//! Real ERP databases to real app databases, by the real programs.

mod erp;
mod memory;
mod snapshot;
mod torture;
mod watermark;

use towpath_servers::{Postgres, PostgresDatabase};
use towpath_testkit::{End, Server, TENANT, World};

use crate::executable;

/// Where a receiver imports to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Sqlite,
    Postgres,
}

/// A whole installation over an ERP database of the test's choice.
pub(super) struct Installation {
    pub(super) end: End,
    app: App,
    _relay: Server,
    _receiver: Server,
    _world: World,
}

enum App {
    Sqlite,
    /// The database, and the server that must outlive it.
    Postgres(Box<PostgresDatabase>, #[expect(dead_code, reason = "it is kept running")] Box<Postgres>),
}

impl Installation {
    /// Everything running and enrolled; `job` is the agent's configuration of its job.
    pub(super) fn new(job: &str, target: Target) -> Self {
        let world = World::new(executable());
        let (end, _) = world.end(TENANT, 1, 1);
        end.agent.configure(&format!("[receipt]\npoll = \"100ms\"\n{job}"));
        let app = match target {
            Target::Sqlite => App::Sqlite,
            Target::Postgres => {
                let server = Postgres::get();
                let database = server.database();
                end.import_into(&database);
                App::Postgres(Box::new(database), Box::new(server))
            }
        };
        let relay = world.serve_relay();
        world.create_tenant(TENANT);
        world.enrol(&end);
        let receiver = end.receiver.serve(&["serve"]);
        Self { end, app, _relay: relay, _receiver: receiver, _world: world }
    }

    /// Sends the job and waits until it is imported.
    pub(super) fn send(&self) {
        let sent = self.end.send().succeeded().json();
        assert_eq!(sent["transfers"][0]["state"], "imported", "{sent}");
    }

    /// The rows of an app table, by these columns, as the app database shows them: one list of texts for each.
    pub(super) fn rows(&self, table: &str, columns: &[&str], order: &str) -> Vec<Vec<Option<String>>> {
        let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        let lines: Vec<String> = match &self.app {
            App::Sqlite => {
                let shown = |name: &&str| {
                    let name = quoted(name);
                    format!(
                        "CASE typeof({name}) WHEN 'blob' THEN '\\x' || lower(hex({name})) WHEN 'real' THEN printf('%!.17g', {name}) ELSE CAST({name} AS TEXT) END"
                    )
                };
                let shown: Vec<String> = columns.iter().map(shown).collect();
                let sql = format!("SELECT json_array({}) FROM {} ORDER BY {}", shown.join(", "), quoted(table), quoted(order));
                towpath_testkit::query_texts(&self.end.app(), &sql)
            }
            App::Postgres(database, _) => {
                let shown: Vec<String> = columns.iter().map(|name| format!("{}::text", quoted(name))).collect();
                let sql = format!(
                    "SET timezone = 'UTC'; SELECT json_build_array({}) FROM {}.{} ORDER BY {}",
                    shown.join(", "),
                    quoted(&self.end.schema()),
                    quoted(table),
                    quoted(order)
                );
                database.run(&sql).lines().map(str::to_owned).collect()
            }
        };
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }
}

/// Makes a file that holds a password readable by its owner alone.
pub(super) fn private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
