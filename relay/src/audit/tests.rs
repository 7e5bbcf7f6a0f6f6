//! What is noted of the relay's calls, and what a flood of them leaves.

use std::{collections::BTreeSet, net::Ipv6Addr};

use towpath_keys::{Identity, KeyKind};
use towpath_transfer::{
    RemotePath,
    api::{AppReceipt, EnrolmentRequest, Export},
    clock::SeededEntropy,
    digest::Sha256Digest,
    receipt::SignedReceipt,
    state::Announced,
};
use towpath_transport::server::{OpenOptions, Replace, SetAttributes, VirtualFs as _};

use super::{chain::Row, throttle::Throttle, *};
use crate::{
    service::tests::{Enrolled, Sent, WRITE, World},
    spool::AgentView,
};

const NOW: Duration = Duration::from_secs(1_000);

fn refused(address: [u8; 4], key: u64) -> Entry {
    let identity = Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(key)).unwrap();
    let who = Who::nobody(Some(identity.fingerprint()), Some(IpAddr::from(address)));
    Entry::new(Timestamp::UNIX_EPOCH, who, Action::Login).refused_to("a.b", Code::AuthenticationRefused)
}

#[test]
fn what_is_alike_is_one_row_a_minute_with_a_count() {
    let mut throttle = Throttle::default();
    assert!(throttle.take(refused([192, 0, 2, 1], 1), NOW).is_some());
    for _ in 0..500 {
        assert!(throttle.take(refused([192, 0, 2, 1], 1), NOW).is_none());
    }
    assert!(throttle.take(refused([192, 0, 2, 2], 1), NOW).is_some(), "another address is not alike");
    assert!(throttle.take(refused([192, 0, 2, 1], 2), NOW).is_some(), "nor another key");
    assert!(throttle.due(NOW + WINDOW - Duration::from_micros(1), false).is_empty());
    let due = throttle.due(NOW + WINDOW, false);
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].detail, "user \"a.b\"; 500 times since 1970-01-01T00:00:00Z");
    assert!(throttle.take(refused([192, 0, 2, 1], 1), NOW + WINDOW).is_none(), "its row is of this minute");
    assert!(throttle.take(refused([192, 0, 2, 2], 1), NOW + WINDOW).is_some());
    assert_eq!(throttle.due(NOW + WINDOW, true).len(), 1);
}

#[test]
fn a_flood_of_strangers_stays_a_few_rows() {
    let mut throttle = Throttle::default();
    let mut told = 0;
    for number in 0..20_000u32 {
        let mut entry = refused([0, 0, 0, 0], 0);
        let [a, b, c, d] = number.to_be_bytes();
        entry.who.address = Some(IpAddr::from([a, b, c, d]));
        told += usize::from(throttle.take(entry, NOW).is_some());
    }
    assert_eq!(told, MOST_OF_STRANGERS + 1);
    let rest = throttle.due(NOW + WINDOW, false);
    assert_eq!(rest.len(), 1);
    assert!(rest[0].who == Who::default() && rest[0].detail.contains("19899 times"), "{:?}", rest[0]);

    // One subscriber has many addresses, and as many keys as it likes.
    let mut throttle = Throttle::default();
    let told = (0..50u16).filter(|number| {
        let mut entry = refused([0, 0, 0, 0], u64::from(*number));
        entry.who.address = Some(IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 1, *number, 0, 0, 1)));
        throttle.take(entry, NOW).is_some()
    });
    assert_eq!(told.count(), MOST_ALIKE + 1);
}

#[test]
fn what_an_end_has_done_is_not_lost_among_refusals_of_others() {
    let mut throttle = Throttle::default();
    let done = |number: usize| Entry {
        who: Who { role: "agent", name: "erp".to_owned(), ..Who::default() },
        transfer: number.to_string(),
        ..Entry::new(Timestamp::UNIX_EPOCH, Who::default(), Action::Complete)
    };
    for number in 0..MOST_WINDOWS * 2 {
        assert!(throttle.take(done(number), NOW).is_some());
    }
    assert!(throttle.take(refused([192, 0, 2, 1], 1), NOW).is_some());
    assert!(throttle.take(done(MOST_WINDOWS * 2), NOW).is_some());
}

#[test]
fn every_action_has_a_word_of_its_own() {
    let words: BTreeSet<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
    assert_eq!(words.len(), Action::ALL.len());
    for action in Action::ALL {
        assert_eq!(action.as_str().parse::<Action>(), Ok(*action));
    }
    assert!("nothing".parse::<Action>().unwrap_err().contains("tenant-create"));
}

#[test]
fn a_row_has_the_hash_that_the_handbook_says() {
    let row = Row {
        id: 1,
        at: 1_772_323_200_000_000,
        role: "operator".into(),
        name: "uid 0".into(),
        key: String::new(),
        address: String::new(),
        tenant: "acme".into(),
        action: "tenant-create".into(),
        detail: String::new(),
        transfer: String::new(),
        result: "ok".into(),
        hash: String::new(),
    };
    let text = include_str!("../../../docs/operations.md");
    let hash = row.digest(&chain::Link::first().hash);
    assert!(text.contains(&hash.to_string()), "{hash}");
}

pub(super) fn found<'a>(rows: &'a [Row], action: Action, result: &str) -> Vec<&'a Row> {
    rows.iter().filter(|row| row.action == action.as_str() && row.result == result).collect()
}

pub(super) fn at_home(end: &Enrolled) -> Caller {
    end.caller.clone().from_address(Some(IpAddr::from([192, 0, 2, 7])))
}

#[tokio::test]
async fn someone_elses_transfer_is_answered_like_none_and_noted() {
    let world = World::new().await;
    let (agent, receiver) = (world.enrol("acme", Role::Agent).await, world.enrol("acme", Role::Receiver).await);
    let (thief, thief_app) = (world.enrol("other", Role::Agent).await, world.enrol("other", Role::Receiver).await);
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    let service = world.service();
    service.complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    let none = world.id();
    let said = |failure: towpath_transfer::Failure| failure.report();
    for caller in [at_home(&thief), at_home(&thief_app), at_home(&receiver)] {
        let (foreign, missing) = (service.uplink(&caller, sent.id).await, service.uplink(&caller, none).await);
        assert_eq!(said(foreign.unwrap_err()), said(missing.unwrap_err()));
    }
    let status = async |id| service.export_status(&thief_app.caller, agent.caller.name(), id).await.unwrap_err();
    assert_eq!(said(status(sent.id).await), said(status(none).await));
    let view = |id| format!("/uplink/{id}/manifest.json").parse().unwrap();
    let session = AgentView::new(world.relay.spool().clone(), thief.caller.as_agent().unwrap());
    let session = session.witnessed_by(Witness::of(service.trail(), &thief.caller));
    let looked = async |id| format!("{:?}", session.stat(&view(id)).await.map(|_| ()).unwrap_err());
    assert_eq!(looked(sent.id).await, looked(none).await);

    let rows = world.audit().await;
    let foreign = found(&rows, Action::Foreign, "not-found");
    assert!(foreign.iter().all(|row| row.transfer == sent.id.to_string() && row.tenant == "other"), "{foreign:#?}");
    let who: BTreeSet<_> = foreign.iter().map(|row| (row.role.as_str(), row.address.as_str())).collect();
    let expected = [("agent", ""), ("agent", "192.0.2.7"), ("receiver", ""), ("receiver", "192.0.2.7")];
    assert_eq!(who, BTreeSet::from(expected), "a receiver of the same tenant has asked for its own tenant's");
    assert_eq!(foreign[0].key, thief.caller.key().fingerprint().to_string());
}

/// What can be tried with a path over SFTP, and the method that it is; those with two paths name the other one, too.
const OPERATIONS: [(&str, &str); 17] = [
    ("stat", "stat"),
    ("lstat", "lstat"),
    ("list", "list"),
    ("read", "open"),
    ("write", "open"),
    ("set", "set_attributes"),
    ("remove", "remove"),
    ("remove-dir", "remove_dir"),
    ("rename-from", "rename"),
    ("rename-to", "rename"),
    ("make-dir", "make_dir"),
    ("read-link", "read_link"),
    ("link-from", "symlink"),
    ("link-to", "symlink"),
    ("hard-link-from", "hard_link"),
    ("hard-link-to", "hard_link"),
    ("space", "space"),
];
/// The methods that say nothing of what is there: every path has an absolute form.
const SILENT: [&str; 2] = ["capabilities", "canonical"];

/// Tries it as a session of its own, and says what the session is told.
async fn tried(view: &AgentView, operation: &str, path: &str, mine: &str) -> String {
    let (text, path, mine): (_, RemotePath, RemotePath) = (path, path.parse().unwrap(), mine.parse().unwrap());
    let none = SetAttributes::default();
    let read = OpenOptions { read: true, ..OpenOptions::default() };
    let told = match operation {
        "stat" => view.stat(&path).await.map(|_| ()),
        "lstat" => view.lstat(&path).await.map(|_| ()),
        "list" => view.list(&path).await.map(|_| ()),
        "read" => view.open(&path, read, &none).await.map(|_| ()),
        "write" => view.open(&path, WRITE, &none).await.map(|_| ()),
        "set" => view.set_attributes(&path, &none, true).await,
        "remove" => view.remove(&path).await,
        "remove-dir" => view.remove_dir(&path).await,
        "rename-from" => view.rename(&path, &mine, Replace::Allow).await,
        "rename-to" => view.rename(&mine, &path, Replace::Allow).await,
        "make-dir" => view.make_dir(&path, &none).await,
        "read-link" => view.read_link(&path).await.map(|_| ()),
        "link-from" => view.symlink(&mine.to_string(), &path).await,
        "link-to" => view.symlink(text, &mine).await,
        "hard-link-from" => view.hard_link(&path, &mine).await,
        "hard-link-to" => view.hard_link(&mine, &path).await,
        "space" => view.space(&path).await.map(|_| ()),
        unknown => panic!("{unknown} is not tried"),
    };
    format!("{told:?}")
}

#[test]
fn every_method_of_a_view_is_tried() {
    let source = include_str!("../../../transport/src/server/vfs.rs");
    let view = source.split_once("pub trait VirtualFs<").unwrap().1.split_once("\n}\n").unwrap().0;
    let methods: BTreeSet<&str> = view
        .lines()
        .filter_map(|line| line.strip_prefix("    async fn ").or_else(|| line.strip_prefix("    fn ")))
        .map(|rest| rest.split('(').next().unwrap())
        .collect();
    let tried = OPERATIONS.iter().map(|(_, method)| *method).chain(SILENT).collect();
    assert_eq!(methods, tried);
}

#[tokio::test]
async fn every_operation_of_sftp_on_someone_elses_transfer_is_noted() {
    let world = World::new().await;
    let (agent, thief) = (world.enrol("acme", Role::Agent).await, world.enrol("other", Role::Agent).await);
    let sent = Sent::new(&world, &agent, 1);
    sent.push(&world, &agent).await;
    world.service().complete(&agent.caller, sent.id, &sent.complete).await.unwrap();
    let own = Sent::new(&world, &thief, 1);
    own.push(&world, &thief).await;
    let mine = format!("/uplink/{}/manifest.json", own.id);
    let nobodys = world.id();
    for path in [
        "/uplink/{id}",
        "/uplink/{id}/manifest.json",
        "/uplink/{id}/deeper/manifest.json",
        "/downlink/{id}",
        "/downlink/{id}/manifest.json",
        "/uplink/agent/{id}/manifest.json",
        "/acme/agent/uplink/{id}/manifest.json",
        "/spool/acme/agent/uplink/{id}",
        "/uplink/{own}/{id}/manifest.json",
        "/uplink/{own}/deeper/{id}",
        "/update/{id}",
        "/update/1.2.3/{id}",
    ] {
        for (operation, _) in OPERATIONS {
            let mut told = Vec::new();
            for id in [sent.id, nobodys] {
                // What is alike within a minute would be counted and not be a row.
                world.clock.advance(WINDOW);
                let before = world.audit().await.len();
                let view = world.view(&thief).witnessed_by(Witness::of(world.service().trail(), &thief.caller));
                let path = path.replace("{id}", &id.to_string()).replace("{own}", &own.id.to_string());
                told.push(tried(&view, operation, &path, &mine).await);
                let rows = world.audit().await.split_off(before);
                let noted: Vec<_> = rows.iter().map(|row| (row.action.as_str(), row.result.as_str(), &*row.transfer)).collect();
                let theirs = sent.id.to_string();
                let expected = if id == sent.id { vec![("foreign", "not-found", theirs.as_str())] } else { vec![] };
                assert_eq!(noted, expected, "{operation} {path}");
                if told.last().is_some_and(|told| told == "Ok(())") {
                    // An agent may have a folder of any name of its own.
                    assert_eq!((operation, path.matches('/').count()), ("make-dir", 2));
                    view.remove_dir(&path.parse().unwrap()).await.unwrap();
                }
            }
            assert_eq!(told[0], told[1], "{operation} {path}");
        }
    }
}

#[tokio::test]
async fn who_has_no_code_writes_neither_into_a_tenants_rows_nor_to_a_terminal() {
    let world = World::new().await;
    let code = world.code("acme", Role::Receiver).await;
    let key = world.identity();
    let landing = |host: &str, folder: &str| towpath_transfer::api::Landing {
        host: host.to_owned(),
        port: 22,
        user: "x".to_owned(),
        folder: folder.to_owned(),
        host_keys: vec![key.public_line().clone()],
    };
    let good = World::request(&code, &key);
    let asked = |role: Role, secret: &str, landing| EnrolmentRequest {
        role,
        secret: secret.into(),
        landing: Some(landing),
        ..good.clone()
    };
    let (ugly, fine) = (landing("\u{1b}[2J\n999", "/\u{9b}2J\u{202e}"), landing("app.example", "/in"));
    for (request, expected) in [
        (asked(Role::Receiver, "guess", ugly.clone()), "request-invalid"),
        (asked(Role::Agent, "guess", fine.clone()), "request-invalid"),
        (asked(Role::Receiver, "guess", fine), "enrolment-unknown"),
        // Nobody has looked yet whether this one is good.
        (asked(Role::Receiver, &code.secret, ugly), "request-invalid"),
        // This one is.
        (EnrolmentRequest { proof: "x".into(), ..good.clone() }, "enrolment-proof-invalid"),
    ] {
        let refused = world.service().enrol(&request, None).await.unwrap_err();
        assert_eq!(refused.code().as_str(), expected);
    }
    let rows = world.audit().await;
    let rows: Vec<&Row> = rows.iter().filter(|row| row.action == "enrol").collect();
    assert!(rows.iter().any(|row| row.detail == r#"receiver, landing "\u{1b}[2J\n999:22/\u{9b}2J\u{202e}""#), "{rows:#?}");
    for row in rows {
        let tenant = if row.result == "enrolment-proof-invalid" { "acme" } else { "" };
        assert_eq!(row.tenant, tenant, "{row:?}");
        assert!(!row.detail.contains(char::is_control), "{row:?}");
    }
}

#[tokio::test]
async fn refused_calls_and_uploads_are_noted_with_who_and_why() {
    let world = World::new().await;
    let agent = world.enrol("acme", Role::Agent).await;
    let (service, caller) = (world.service(), at_home(&agent));
    let sent = Sent::new(&world, &agent, 1);
    assert!(service.complete(&caller, sent.id, &sent.complete).await.is_ok());
    let wrong: Export = Export {
        agent: agent.caller.name().clone(),
        transfer: sent.id,
        sequence: towpath_transfer::Sequence(1),
        announced: Announced { path: "manifest.json".parse().unwrap(), size: 1, manifest: Sha256Digest::of(b"") },
    };
    assert!(service.export(&caller, &wrong).await.is_err());
    assert!(service.authenticate(None, caller.address()).await.is_err());
    let stolen = agent.token(&world);
    service.authenticate(Some(&stolen), caller.address()).await.unwrap();
    assert!(service.authenticate(Some(&stolen), caller.address()).await.is_err());
    let other = World::request(&world.code("acme", Role::Agent).await, &world.identity());
    let guess = EnrolmentRequest { secret: "guess".into(), ..other };
    assert!(service.enrol(&guess, caller.address()).await.is_err());
    let receipt = AppReceipt {
        agent: agent.caller.name().clone(),
        transfer: sent.id,
        signed: SignedReceipt { receipt: String::new(), signature: String::new() },
    };
    assert!(service.app_receipt(&caller, &receipt).await.is_err());

    let view = AgentView::new(world.relay.spool().clone(), agent.caller.as_agent().unwrap());
    let view = view.witnessed_by(Witness::of(service.trail(), &caller));
    for _ in 0..4 {
        let _ = view.make_dir(&format!("/uplink/{}", world.id()).parse().unwrap(), &SetAttributes::default()).await;
    }
    let full = world.id();
    let folder = format!("/uplink/{full}");
    let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    let opened = view.open(&format!("{folder}/a").parse().unwrap(), options, &SetAttributes::default()).await;
    drop(opened);

    let rows = world.audit().await;
    for (action, result) in [
        (Action::Enrol, "ok"),
        (Action::Enrol, "enrolment-unknown"),
        (Action::Complete, "transfer-incomplete"),
        (Action::Export, "not-found"),
        (Action::Token, "authentication-refused"),
        (Action::Receipt, "not-found"),
        (Action::Upload, "limit-exceeded"),
    ] {
        let rows = found(&rows, action, result);
        assert!(!rows.is_empty(), "{action} {result}");
        assert!(result == "ok" || rows.iter().all(|row| row.address == "192.0.2.7"), "{rows:#?}");
    }
    let enrolled = found(&rows, Action::Enrol, "ok")[0];
    let fingerprint = agent.caller.key().fingerprint().to_string();
    assert_eq!((enrolled.role.as_str(), enrolled.name.as_str(), &enrolled.key), ("agent", "agent", &fingerprint));
    assert_eq!(found(&rows, Action::Enrol, "enrolment-unknown")[0].tenant, "", "who has no code may name any tenant");
    assert!(found(&rows, Action::Token, "authentication-refused").iter().any(|row| row.detail.contains("acme.agent")));
}
