//! Releases over real sockets: what is approved for one ring is seen by the agents of its tenants, and by nobody else.

use std::path::Path;

use towpath_keys::{Identity, KeyKind, Namespace, ReleaseKeys};
use towpath_relay::release::Shelf;
use towpath_transfer::{
    Code,
    api::Role,
    digest::Sha256Digest,
    release::{Package, PackageKind, RELEASE_NAME, RELEASE_SIGNATURE_NAME, Release, ReleaseVersion},
};
use towpath_transport::{
    dial::Route,
    files::Disk,
    relay_api::RelayApi as _,
    store::{RemoteStore as _, StoreErrorKind, read_remote},
};

use super::flow::{End, Running, at, entropy};

/// Lays out a release of one package, and hands it to the relay's shelf, as `towpath-relay release add` does.
fn hand_over(state: &Path, version: ReleaseVersion, package: &[u8]) {
    let (maker, folder) = (Identity::generate(KeyKind::Ed25519, &*entropy()).unwrap(), tempfile::tempdir().unwrap());
    let file = format!("towpath-agent_{version}-1_amd64.deb");
    let (size, sha256) = (package.len() as u64, Sha256Digest::of(package));
    let listed = Package { kind: PackageKind::Deb, arch: "x86_64".into(), file: file.parse().unwrap(), size, sha256 };
    let document = Release::of(version, "0.0.1".parse().unwrap(), vec![listed]).to_bytes().unwrap();
    let signature = maker.sign(Namespace::Release, &document).unwrap();
    for (name, bytes) in [(&*file, package), (RELEASE_NAME, &*document), (RELEASE_SIGNATURE_NAME, signature.as_bytes())] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let keys = ReleaseKeys::of(vec![maker.public_line().try_into().unwrap()]);
    Shelf::new(std::sync::Arc::new(Disk), state).take(folder.path(), &keys, 0).unwrap();
}

async fn seen(end: &End) -> Vec<String> {
    end.api.releases().await.unwrap().versions.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_seen_by_the_ring_that_it_is_approved_for_and_by_no_other() {
    let state = tempfile::tempdir().unwrap();
    let relay = Running::start(state.path()).await;
    let registry = relay.registry().await;
    let [first, second]: [ReleaseVersion; 2] = ["1.1.0", "1.2.0"].map(|version| version.parse().unwrap());
    for version in [first, second] {
        hand_over(state.path(), version, version.to_string().as_bytes());
        registry.add_release(version).await.unwrap();
    }
    for (tenant, ring) in [("acme", 1), ("other", 2), ("none", 0)] {
        let scope = registry.create_tenant(&tenant.parse().unwrap(), None).await.unwrap();
        registry.set_ring(&scope, ring).await.unwrap();
    }
    let acme = relay.enrol_in("acme", Role::Agent, KeyKind::Ed25519).await;
    let other = relay.enrol_in("other", Role::Agent, KeyKind::Ed25519).await;
    let none = relay.enrol_in("none", Role::Agent, KeyKind::Ed25519).await;
    let receiver = relay.enrol_in("acme", Role::Receiver, KeyKind::Ed25519).await;
    registry.approve_release(first, 1).await.unwrap();
    registry.approve_release(first, 2).await.unwrap();
    registry.approve_release(second, 1).await.unwrap();

    // What the relay says.
    assert_eq!(seen(&acme).await, ["1.1.0", "1.2.0"]);
    assert_eq!(seen(&other).await, ["1.1.0"]);
    assert!(seen(&none).await.is_empty());
    assert_eq!(receiver.api.releases().await.unwrap_err().code(), Code::NotFound, "releases are for agents");

    // What lies in the folder of each.
    let ours = relay.sftp(&acme, Route::Ssh).await.unwrap();
    let theirs = relay.sftp(&other, Route::Ssh).await.unwrap();
    let nobodys = relay.sftp(&none, Route::Ssh).await.unwrap();
    let package = |version: ReleaseVersion| at(&format!("/update/{version}/towpath-agent_{version}-1_amd64.deb"));
    for version in [first, second] {
        assert_eq!(read_remote(&ours, &package(version), 99).await.unwrap(), version.to_string().as_bytes());
    }
    assert_eq!(read_remote(&theirs, &package(first), 99).await.unwrap(), b"1.1.0");
    for name in ["release.json", "release.json.sig", "towpath-agent_1.2.0-1_amd64.deb"] {
        let hidden = at(&format!("/update/1.2.0/{name}"));
        assert_eq!(theirs.stat(&hidden).await.unwrap_err().kind(), StoreErrorKind::NotFound, "{name}");
        assert_eq!(read_remote(&theirs, &hidden, 99).await.unwrap_err().kind(), StoreErrorKind::NotFound, "{name}");
    }
    assert_eq!(nobodys.stat(&package(first)).await.unwrap_err().kind(), StoreErrorKind::NotFound);

    // An approval that is taken back counts for sessions that are open, and for that ring alone.
    registry.withdraw_release(first, 2).await.unwrap();
    assert_eq!(read_remote(&theirs, &package(first), 99).await.unwrap_err().kind(), StoreErrorKind::NotFound);
    assert!(seen(&other).await.is_empty());
    assert_eq!(read_remote(&ours, &package(first), 99).await.unwrap(), b"1.1.0");
    assert_eq!(seen(&acme).await, ["1.1.0", "1.2.0"]);
    relay.stop().await;
}
