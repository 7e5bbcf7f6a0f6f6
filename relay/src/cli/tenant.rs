//! `tenant` and `keys`

use towpath_transfer::{Code, Failure, api::Landing, failure::Result, public_key::PublicKeyLine};
use url::Url;

use super::{
    args::TenantCommand,
    audit::{by_operator, noted},
    output, tenant_limits,
};
use crate::{
    audit::Action,
    host::Host,
    registry::{Budget, Registry},
};

/// The port of SFTP.
const SSH_PORT: u16 = 22;

pub(super) async fn run(host: &Host, command: TenantCommand) -> Result<()> {
    host.prepare()?;
    let registry = host.registry().await?;
    match command {
        TenantCommand::Create { name, landing, limits } => {
            let landing = landing.app_server.map(|url| parse(&url, landing.app_host_key)).transpose()?;
            let (change, budget) = (limits.change(), budget(host));
            let entry = by_operator(host, Action::TenantCreate).of(&name).detail(change.in_words());
            let create = async |registry: Registry| {
                registry.create_limited_tenant(&name, landing.as_ref(), Some((&change, &budget))).await
            };
            noted(&registry, entry, create).await?;
            output::say(&format!("tenant {name} is there; next: towpath-relay enrolment create --tenant {name} --role receiver"));
            Ok(())
        }
        TenantCommand::AppServer { name, app_server, app_host_key } => {
            let scope = registry.operator_scope(&name).await?;
            let landing = parse(&app_server, app_host_key)?;
            let entry = by_operator(host, Action::AppServer).of(&name).detail(app_server.to_string());
            let set = async |registry: Registry| registry.set_landing(&scope, &landing).await;
            noted(&registry, entry, set).await?;
            output::say("the app server must admit the key that `towpath-relay keys` prints as \"forward\"");
            Ok(())
        }
        TenantCommand::Ring { name, ring } => {
            let scope = registry.operator_scope(&name).await?;
            let entry = by_operator(host, Action::TenantRing).of(&name).detail(format!("ring {ring}"));
            noted(&registry, entry, async |registry| registry.set_ring(&scope, ring).await).await?;
            output::say(&match ring {
                0 => format!("{name} is in no ring: its agents see no releases"),
                _ => format!("{name} is in ring {ring}: its agents see what is approved for it (towpath-relay release list)"),
            });
            Ok(())
        }
        TenantCommand::List { json } => tenant_limits::list(host, &registry, json).await,
        TenantCommand::Show { name, json } => tenant_limits::show(host, &registry, &name, json).await,
        TenantCommand::Limits { name, limits, json } => {
            let change = limits.change();
            if !change.is_empty() {
                let scope = registry.operator_scope(&name).await?;
                let entry = by_operator(host, Action::TenantLimits).of(&name).detail(change.in_words());
                let budget = budget(host);
                noted(&registry, entry, async |registry| registry.change_limits(&scope, &change, &budget).await).await?;
            }
            tenant_limits::show(host, &registry, &name, json).await
        }
    }
}

/// What there is to be shared out.
fn budget(host: &Host) -> Budget {
    let limits = host.config.spool_limits();
    Budget { total: limits.total_bytes, quota: limits.tenant_bytes }
}

/// An app server as a URL says it.
fn parse(url: &Url, host_keys: Vec<PublicKeyLine>) -> Result<Landing> {
    let refused = || Failure::park(Code::RequestInvalid, format!("{url} is not of the form sftp://user@host[:port]/folder"));
    let host = url.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned());
    let plain = url.scheme() == "sftp" && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if !plain || url.username().is_empty() {
        return Err(refused());
    }
    let folder = if url.path().is_empty() { "/" } else { url.path() };
    let (port, user) = (url.port().unwrap_or(SSH_PORT), url.username().to_owned());
    Ok(Landing { host: host.ok_or_else(refused)?, port, user, folder: folder.to_owned(), host_keys })
}

pub(super) fn keys(host: &Host) -> Result<()> {
    host.prepare()?;
    let mut rows = vec![
        vec!["forward".to_owned(), host.forward_key()?.public_line().to_string()],
        vec!["receipt".to_owned(), host.receipt_key()?.public_line().to_string()],
    ];
    rows.extend(host.host_keys()?.public_lines().iter().map(|line| vec!["host".to_owned(), line.to_string()]));
    let lines: Vec<String> = rows.into_iter().map(|row| row.join("\t")).collect();
    output::line(&lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_server_is_a_plain_sftp_url() {
        let landing = parse(&"sftp://relay@app.example:2222/landing".parse().unwrap(), Vec::new()).unwrap();
        let found = (landing.host.as_str(), landing.port, landing.user.as_str(), landing.folder.as_str());
        assert_eq!(found, ("app.example", 2222, "relay", "/landing"));
        let short = parse(&"sftp://relay@[::1]".parse().unwrap(), Vec::new()).unwrap();
        assert_eq!((short.host.as_str(), short.port, short.folder.as_str()), ("::1", 22, "/"));
        for bad in ["ssh://a@b/c", "sftp://b/c", "sftp://a:secret@b/c", "sftp://a@b/c?d"] {
            assert_eq!(parse(&bad.parse().unwrap(), Vec::new()).unwrap_err().code(), Code::RequestInvalid, "{bad}");
        }
    }
}
