//! The audit trail of a real relay: what came over its ports is in it, with key and address.

use std::{path::Path, sync::Arc};

use towpath_journal::system::{SystemClock, SystemEntropy};
use towpath_keys::KeyKind;
use towpath_relay::{
    audit::{Action, chain::Row},
    registry::{AuditFilter, Registry},
};
use towpath_transfer::{
    Code,
    api::{Role, UplinkState},
};
use towpath_transport::{
    dial::Route,
    relay_api::{HttpRelayApi, RelayApi as _},
    store::{BytesSource, NoProgress, RemoteStore as _},
};

use crate::flow::{Running, Tokens, app_server, at, clock, imported, until, uplink, within};

async fn rows(state: &Path) -> Vec<Row> {
    let path = state.join("registry.sqlite");
    let registry = Registry::open(&path, Arc::new(SystemClock::new()), Arc::new(SystemEntropy::new())).await.unwrap();
    let verified = registry.verify_audit(None).await.unwrap().unwrap();
    let mut rows = registry.audit_rows(&AuditFilter::default(), 1_000).await.unwrap();
    rows.reverse();
    assert_eq!(verified.rows, rows.len() as u64);
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_at_a_real_relay_is_in_its_trail() {
    let (state, landing) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let relay = Running::start(state.path()).await;
    let registry = relay.registry().await;
    let scope = registry.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    let agent = relay.enrol(Role::Agent, KeyKind::Ed25519).await;
    let receiver = relay.enrol(Role::Receiver, KeyKind::Ed25519).await;
    let app = app_server(landing.path(), agent.answer.forward_key.clone()).await;
    std::fs::create_dir(landing.path().join("landing")).unwrap();
    registry.set_landing(&scope, &app).await.unwrap();

    let (id, files, complete) = uplink(&agent);
    let sftp = within(relay.sftp(&agent, Route::Ssh)).await.unwrap();
    sftp.make_dir_all(&at(&format!("/uplink/{id}"))).await.unwrap();
    for (name, bytes) in &files {
        let part = at(&format!("/uplink/{id}/{name}.part"));
        sftp.put_new(&part, BytesSource::new(bytes.clone()), &NoProgress).await.unwrap();
        sftp.publish(&part, &at(&format!("/uplink/{id}/{name}"))).await.unwrap();
    }
    within(relay.sftp(&receiver, Route::SshInTls)).await.unwrap_err();
    agent.api.complete(id, &complete).await.unwrap();
    until(&agent.api, id, UplinkState::Forwarded).await;
    receiver.api.post_receipt(&imported(&receiver, &agent, id, complete.manifest)).await.unwrap();
    let tokens = Tokens { identity: receiver.identity.clone(), user: agent.answer.sftp_user.clone() };
    let thief = HttpRelayApi::new(&relay.url, &relay.trust(), Some(Arc::new(tokens)), clock()).unwrap();
    assert_eq!(thief.peers().await.unwrap_err().code(), Code::AuthenticationRefused);
    assert_eq!(receiver.api.uplink(id).await.unwrap_err().code(), Code::NotFound);
    registry.revoke(&scope, &agent.answer.name).await.unwrap();
    within(async {
        while sftp.list(&at("/uplink"), 10).await.is_ok() {
            clock().sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    drop(registry);
    relay.stop().await;

    let rows = rows(state.path()).await;
    let (agent_key, receiver_key) = (agent.identity.fingerprint().to_string(), receiver.identity.fingerprint().to_string());
    let (id, here) = (id.to_string(), "127.0.0.1");
    for (action, role, key, address, transfer, result) in [
        (Action::Started, "relay", "", "", "", "ok"),
        (Action::Enrol, "agent", agent_key.as_str(), here, "", "ok"),
        (Action::Enrol, "receiver", &receiver_key, here, "", "ok"),
        (Action::Login, "agent", &agent_key, here, "", "ok"),
        (Action::Login, "", &receiver_key, here, "", "authentication-refused"),
        (Action::Complete, "agent", &agent_key, here, &id, "ok"),
        (Action::Accept, "relay", "", "", &id, "ok"),
        (Action::Forward, "relay", "", "", &id, "ok"),
        (Action::Receipt, "receiver", &receiver_key, here, &id, "ok"),
        (Action::SessionsEnded, "relay", "", "", "", "agent-revoked"),
        (Action::Stopped, "relay", "", "", "", "ok"),
    ] {
        let fits = |row: &&Row| {
            (row.action.as_str(), row.role.as_str(), row.key.as_str()) == (action.as_str(), role, key)
                && (row.address.as_str(), row.transfer.as_str(), row.result.as_str()) == (address, transfer, result)
        };
        assert_eq!(rows.iter().filter(fits).count(), 1, "{action} {role} {result}: {rows:#?}");
    }
    let token = rows.iter().find(|row| row.action == "token").unwrap();
    assert_eq!((token.address.as_str(), token.result.as_str()), (here, "authentication-refused"));
    assert!(token.detail.contains(&agent.answer.sftp_user) && token.role.is_empty() && token.tenant.is_empty(), "{token:?}");
    assert_eq!(rows.last().unwrap().action, "stopped");
    assert!(!rows.iter().any(|row| row.action == "foreign"), "it is the receiver's own tenant's");
}
