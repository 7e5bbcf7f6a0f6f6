//! `tenant list`, `tenant show` and what `tenant limits` prints: what tenants may have and have.

use std::collections::HashMap;

use serde_json::{Value, json};
use towpath_host::{Bytes, Pause};
use towpath_transfer::{Code, Failure, TenantName, api::Landing, failure::Result};
use towpath_transport::files::Disk;

use super::output;
use crate::{
    host::Host,
    registry::{Registry, TenantRow},
    spool::{blocking, used_on_disk},
};

/// A tenant, and what counts for it.
struct Shown {
    row: TenantRow,
    used: u64,
    quota: u64,
    reserve: u64,
    retention: Pause,
    journal_keeps: u64,
    ring: u8,
}

impl Shown {
    /// What is said of the tenant, with what the configuration says of all; counted on the disk as it is now.
    async fn of(host: &Host, row: TenantRow, rings: &HashMap<TenantName, u8>) -> Result<Self> {
        let (state, name) = (host.state.clone(), row.name.clone());
        let used = blocking(move || used_on_disk(&Disk, &state, &name)).await??;
        let (limits, config) = (row.limits, &host.config);
        Ok(Self {
            used,
            quota: limits.quota.unwrap_or(config.spool.tenant_limit.0),
            reserve: limits.reserve.unwrap_or(0),
            retention: limits.retention.map_or(config.spool.retention, Pause),
            journal_keeps: limits.journal_keeps.unwrap_or(config.uplink.journal_keeps),
            ring: rings.get(&row.name).copied().unwrap_or(0),
            row,
        })
    }

    /// The limits that are said of this tenant; the others are the configuration's.
    fn own(&self) -> Vec<&'static str> {
        let limits = &self.row.limits;
        let said = [
            ("quota", limits.quota.is_some()),
            ("reserve", limits.reserve.is_some()),
            ("retention", limits.retention.is_some()),
            ("journal_keeps", limits.journal_keeps.is_some()),
        ];
        said.into_iter().filter_map(|(name, is_said)| is_said.then_some(name)).collect()
    }

    fn as_json(&self) -> Value {
        json!({
            "name": self.row.name, "created": self.row.created, "app_server": self.row.landing, "used_bytes": self.used,
            "limits": {
                "quota_bytes": self.quota, "reserve_bytes": self.reserve,
                "retention_seconds": self.retention.0.as_secs(), "journal_keeps": self.journal_keeps,
            },
            "own": self.own(), "ring": self.ring,
        })
    }

    fn app_server(&self) -> String {
        let shown = |l: &Landing| format!("sftp://{}@{}:{}{}", l.user, l.host, l.port, l.folder);
        self.row.landing.as_ref().map_or_else(|| "-".to_owned(), shown)
    }

    fn cells(&self) -> Vec<String> {
        let own = self.own();
        let marked = |name: &str, value: String| if own.contains(&name) { format!("{value}*") } else { value };
        vec![
            self.row.name.to_string(),
            self.row.created.to_string(),
            Bytes(self.used).rounded(),
            marked("quota", Bytes(self.quota).rounded()),
            marked("reserve", Bytes(self.reserve).rounded()),
            marked("retention", self.retention.to_string()),
            marked("journal_keeps", self.journal_keeps.to_string()),
            self.app_server(),
        ]
    }
}

pub(super) async fn list(host: &Host, registry: &Registry, json: bool) -> Result<()> {
    let mut shown = Vec::new();
    let rings = registry.rings().await?.into_iter().collect();
    for row in registry.tenants().await? {
        shown.push(Shown::of(host, row, &rings).await?);
    }
    if json {
        return output::json(&shown.iter().map(Shown::as_json).collect::<Vec<_>>());
    }
    let head = ["tenant", "created", "used", "quota", "reserve", "retention", "journal keeps", "app server"];
    let rows = shown.iter().map(Shown::cells).collect();
    output::table(&head, rows, "there are no tenants: towpath-relay tenant create NAME")?;
    if shown.iter().any(|tenant| !tenant.own().is_empty()) {
        output::say(
            "what has a * is said of this tenant alone (towpath-relay tenant limits NAME), the rest by the configuration",
        );
    }
    Ok(())
}

pub(super) async fn show(host: &Host, registry: &Registry, name: &TenantName, json: bool) -> Result<()> {
    let found = registry.tenants().await?.into_iter().find(|row| row.name == *name);
    let missing = || Failure::park(Code::NotFound, format!("there is no tenant {name}: see `towpath-relay tenant list`"));
    let rings = registry.rings().await?.into_iter().collect();
    let shown = Shown::of(host, found.ok_or_else(missing)?, &rings).await?;
    if json {
        return output::json(&shown.as_json());
    }
    let own = shown.own();
    let line = |name: &str, key: &str, value: String| {
        let from = if own.contains(&key) { "this tenant" } else { "configuration" };
        vec![name.to_owned(), value, from.to_owned()]
    };
    let plain = |name: &str, value: String| vec![name.to_owned(), value, String::new()];
    let rows = vec![
        plain("tenant", shown.row.name.to_string()),
        plain("created", shown.row.created.to_string()),
        plain("app server", shown.app_server()),
        plain("ring", if shown.ring == 0 { "-".to_owned() } else { shown.ring.to_string() }),
        plain("used", Bytes(shown.used).rounded()),
        line("quota", "quota", Bytes(shown.quota).rounded()),
        line("reserve", "reserve", Bytes(shown.reserve).rounded()),
        line("retention", "retention", shown.retention.to_string()),
        line("journal keeps", "journal_keeps", shown.journal_keeps.to_string()),
    ];
    output::table(&["what", "value", "from"], rows, "")?;
    if shown.used > shown.quota {
        output::say("it has more than its quota: new uploads are refused until less is here; nothing is removed for that");
    }
    Ok(())
}
