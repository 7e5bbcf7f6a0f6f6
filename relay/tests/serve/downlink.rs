//! Return files through a real relay: a landing of plain SFTP, a waiting agent, and its own client of SFTP and HTTPS.

use std::{path::Path, time::Duration};

use towpath_keys::{KeyKind, Namespace};
use towpath_transfer::{
    Code, Direction, Sequence, TransferId,
    api::{Acknowledgement, DownlinkState, Downlinks, Export, ExportStatus, Role},
    codec::Unpacker,
    digest::{FileHasher, Sha256Digest},
    manifest::{Content, FileEntry, Manifest},
    packed::PackedList,
    receipt::{Receipt, ReceiptStage, SignedReceipt},
    state::Announced,
};
use towpath_transport::{
    client::SftpStore,
    dial::Route,
    relay_api::RelayApi as _,
    store::{BytesSource, NoProgress, RemoteStore as _, StoreErrorKind, read_remote},
};

use super::flow::{End, Running, app_server, asked, at, clock, entropy, within};

const PLAIN: &str = "orders.csv";

fn orders() -> Vec<u8> {
    (0..200_000u32).flat_map(|n| format!("{n},{}\r\n", n * 7 % 13).into_bytes()).collect()
}

/// What a receiver lays out in the landing, `manifest.json` last, and what it tells the relay.
fn lay_out(landing: &Path, receiver: &End, agent: &End, sequence: u64) -> (Export, Vec<u8>) {
    let (id, plain) = (TransferId::new(&*clock(), &*entropy()), orders());
    let mut hasher = FileHasher::new();
    hasher.update(&plain);
    let digests = hasher.finish();
    let manifest = Manifest {
        version: 1,
        transfer: id,
        direction: Direction::Downlink,
        tenant: agent.answer.tenant.clone(),
        agent: agent.answer.name.clone(),
        job: "main".parse().unwrap(),
        kind: Some("recommended-orders".parse().unwrap()),
        created: clock().now(),
        sequence: Sequence(sequence),
        snapshot: None,
        files: vec![FileEntry {
            name: PLAIN.parse().unwrap(),
            media_type: "text/csv".into(),
            size: digests.size,
            md5: digests.md5,
            sha256: digests.sha256,
            unchanged: false,
            base: None,
            content: Content::File,
        }],
    };
    let bytes = manifest.to_bytes().unwrap();
    let below = format!("downlink/{}/{id}", agent.answer.name);
    let folder = landing.join("landing").join(&below);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(PLAIN), &plain).unwrap();
    let signature = receiver.identity.sign(Namespace::Manifest, &bytes).unwrap();
    std::fs::write(folder.join("manifest.json.sig"), signature).unwrap();
    std::fs::write(folder.join("manifest.json"), &bytes).unwrap();
    let path = at(&format!("/{below}/manifest.json"));
    let announced = Announced { path, size: bytes.len() as u64, manifest: Sha256Digest::of(&bytes) };
    (Export { transfer: id, agent: agent.answer.name.clone(), sequence: Sequence(sequence), announced }, plain)
}

fn delivered(agent: &End, export: &Export) -> Acknowledgement {
    let receipt = Receipt {
        version: 1,
        transfer: export.transfer,
        tenant: agent.answer.tenant.clone(),
        agent: agent.answer.name.clone(),
        direction: Direction::Downlink,
        stage: ReceiptStage::Delivered,
        manifest: Some(export.announced.manifest),
        rows: Vec::new(),
        reason: None,
        time: clock().now(),
        signer: agent.identity.fingerprint(),
    };
    let bytes = receipt.to_bytes().unwrap();
    let signature = agent.identity.sign(Namespace::Receipt, &bytes).unwrap();
    Acknowledgement { signed: SignedReceipt { receipt: String::from_utf8(bytes).unwrap(), signature } }
}

async fn until(receiver: &End, export: &Export, wanted: impl Fn(&ExportStatus) -> bool) -> ExportStatus {
    within(async {
        loop {
            let status = receiver.api.export_status(&export.agent, export.transfer).await.unwrap();
            if wanted(&status) {
                return status;
            }
            clock().sleep(Duration::from_millis(50)).await;
        }
    })
    .await
}

/// Waits as an agent does, until there is something.
async fn offered(agent: &End) -> Downlinks {
    within(async {
        loop {
            let list = agent.api.downlinks(Duration::from_secs(20), None).await.unwrap();
            if !list.downlinks.is_empty() {
                return list;
            }
        }
    })
    .await
}

async fn take(sftp: &SftpStore, id: TransferId, name: &str) -> Vec<u8> {
    within(read_remote(sftp, &at(&format!("/downlink/{id}/{name}")), 1 << 24)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_file_reaches_a_waiting_agent_and_its_receipt_the_receiver() {
    let (state, landing) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let relay = Running::start(state.path()).await;
    let registry = relay.registry().await;
    let scope = registry.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    let agent = relay.enrol(Role::Agent, KeyKind::Rsa2048).await;
    let receiver = relay.enrol(Role::Receiver, KeyKind::Ed25519).await;
    let app = app_server(landing.path(), agent.answer.forward_key.clone()).await;
    registry.set_landing(&scope, &app).await.unwrap();

    let (export, plain) = lay_out(landing.path(), &receiver, &agent, 1);
    let file = landing.path().join(format!("landing/downlink/agent/{}/{PLAIN}", export.transfer));
    std::fs::remove_file(&file).unwrap();
    receiver.api.export(&export).await.unwrap();
    let missing = until(&receiver, &export, |status| status.trouble.is_some()).await;
    assert_eq!((missing.state, missing.trouble.unwrap().code), (DownlinkState::Announced, Code::ExportMissing));

    let (list, ()) = tokio::join!(offered(&agent), async {
        std::fs::write(&file, &plain).unwrap();
        receiver.api.export(&export).await.unwrap();
    });
    assert_eq!(list.downlinks.len(), 1);
    let (id, identity) = (list.downlinks[0].transfer, list.downlinks[0].identity);
    assert_eq!((id, identity.manifest), (export.transfer, export.announced.manifest));

    let sftp = within(relay.sftp(&agent, Route::Ssh)).await.unwrap();
    let (manifest, packed) = (take(&sftp, id, "manifest.json").await, take(&sftp, id, "packed.json").await);
    assert_eq!((Sha256Digest::of(&manifest), Sha256Digest::of(&packed)), (identity.manifest, identity.packed));
    let signature = take(&sftp, id, "manifest.json.sig").await;
    towpath_keys::verify(&signature, Namespace::Manifest, &manifest, receiver.identity.public_key()).unwrap();
    let list = PackedList::parse(&packed).unwrap();
    let bytes = take(&sftp, id, list.files[0].name.as_str()).await;
    assert_eq!(Sha256Digest::of(&bytes), list.files[0].sha256);
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut Unpacker::new(bytes.as_slice(), 1 << 30), &mut unpacked).unwrap();
    assert!(unpacked == plain);
    let part = at(&format!("/downlink/{id}/more"));
    let denied = sftp.put_new(&part, BytesSource::new(b"x".to_vec()), &NoProgress).await.unwrap_err();
    assert_eq!(denied.kind(), StoreErrorKind::Denied);

    let posted = delivered(&agent, &export);
    agent.api.acknowledge(id, &posted).await.unwrap();
    let status = until(&receiver, &export, |status| status.state == DownlinkState::Delivered).await;
    assert_eq!(status.receipts.len(), 2);
    assert_eq!(status.receipts[1], posted.signed);
    assert!(agent.api.downlinks(Duration::ZERO, None).await.unwrap().downlinks.is_empty());
    let metrics = asked(relay.admin, "/metrics").await;
    assert!(metrics.contains("towpath_relay_stage_seconds_count{result=\"done\",stage=\"queue\"} 1"), "{metrics}");
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_agent_does_not_keep_a_stop_waiting() {
    let state = tempfile::tempdir().unwrap();
    let relay = Running::start(state.path()).await;
    relay.registry().await.create_tenant(&"acme".parse().unwrap(), None).await.unwrap();
    let agent = relay.enrol(Role::Agent, KeyKind::Ed25519).await;
    let admin = relay.admin;
    let waiting = tokio::spawn(async move { agent.api.downlinks(Duration::from_secs(55), None).await });
    within(async {
        while !asked(admin, "/metrics").await.contains("towpath_relay_connections{kind=\"poll\"} 1") {
            clock().sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    relay.stop().await;
    // It is told to come again, and not cut off after the time that a stop may take.
    assert_eq!(within(waiting).await.unwrap().unwrap_err().code(), Code::Cancelled);
}
