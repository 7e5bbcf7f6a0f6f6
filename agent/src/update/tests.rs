//! What is fetched of what a relay offers, by a relay in memory.

use std::path::Path;

use towpath_keys::{Identity, KeyKind, Namespace};
use towpath_transfer::{
    api::Releases,
    clock::SeededEntropy,
    digest::Sha256Digest,
    release::{Package, PackageKind, RELEASE_NAME, RELEASE_SIGNATURE_NAME, Release},
};
use towpath_transport::{
    files::{FileStore as _, read_whole, write_whole},
    relay_api::RelayApi as _,
};

use super::*;
use crate::uplink::tests::world::World;

/// An agent of version 0.1.0 from a package, and a relay whose folders a test fills.
pub(crate) struct Bench {
    pub(crate) world: World,
    pub(crate) updates: Updates,
    key: Identity,
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
        let key = Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(77)).unwrap();
        let system = System { record: folder.path().join("package.json"), kept: folder.path().join("kept") };
        let keys = ReleaseKeys::of(vec![key.public_line().try_into().unwrap()]);
        let updates = Updates::with(Arc::new(world.parts.clone()), system, keys);
        let bench = Self { world, updates, key, folder };
        bench.install("0.1.0");
        bench
    }

    pub(crate) fn install(&self, version: &str) {
        let record = format!("{{\"kind\":\"deb\",\"version\":\"{version}\",\"arch\":\"x86_64\"}}");
        std::fs::write(self.folder.path().join("package.json"), record).unwrap();
    }

    pub(crate) fn report(&self, report: &Report) {
        let kept = self.folder.path().join("kept");
        std::fs::create_dir_all(&kept).unwrap();
        std::fs::write(Report::path(&kept), serde_json::to_vec(report).unwrap()).unwrap();
    }

    fn far(&self, version: &str, name: &str) -> PathBuf {
        Path::new("/relay/update").join(version).join(name)
    }

    /// Approves a release that follows every version.
    pub(crate) async fn offer(&self, version: &str, package: &[u8]) {
        self.offer_following(version, "0.0.1", package).await;
    }

    async fn offer_following(&self, version: &str, follows: &str, package: &[u8]) {
        let file = format!("towpath-agent_{version}-1_amd64.deb");
        let listed = Package {
            kind: PackageKind::Deb,
            arch: "x86_64".into(),
            file: file.parse().unwrap(),
            size: package.len() as u64,
            sha256: Sha256Digest::of(package),
        };
        let release = Release::of(version.parse().unwrap(), follows.parse().unwrap(), vec![listed]);
        let document = release.to_bytes().unwrap();
        let signature = self.key.sign(Namespace::Release, &document).unwrap();
        let files = &*self.world.far.files;
        files.create_dir_all(&self.far(version, "")).unwrap();
        for (name, bytes) in [(RELEASE_NAME, &document[..]), (RELEASE_SIGNATURE_NAME, signature.as_bytes()), (&file, package)] {
            write_whole(files, &self.far(version, name), bytes).unwrap();
        }
        let mut releases = self.world.far.downlinks.releases().await.unwrap();
        releases.versions.push(version.parse().unwrap());
        self.world.far.downlinks.set_releases(releases);
    }

    /// The relay's operator takes an approval back.
    pub(crate) async fn withdraw(&self, version: &str) {
        let mut releases = self.world.far.downlinks.releases().await.unwrap();
        releases.versions.retain(|approved| approved.to_string() != version);
        self.world.far.downlinks.set_releases(releases);
    }

    /// Whether root would find a version.
    pub(crate) fn is_fetched(&self, version: &str) -> bool {
        self.world.parts.files.stat(&self.world.parts.layout.update_whole(version.parse().unwrap())).is_ok()
    }

    async fn download(&self) -> Result<Option<Ready>> {
        self.updates.download(&|_, _, _| ()).await
    }

    /// A file of the agent.
    fn fetched(&self, version: &str, name: &str) -> Option<Vec<u8>> {
        let path = self.world.parts.layout.update(version.parse().unwrap()).join(name);
        read_whole(&*self.world.parts.files, &path, 1 << 20).ok()
    }

    pub(crate) fn requested(&self) -> Option<String> {
        let bytes = read_whole(&*self.world.parts.files, &self.world.parts.layout.update_request(), 999).ok()?;
        Some(serde_json::from_slice::<Request>(&bytes).unwrap().version.to_string())
    }

    pub(crate) fn is_requested(&self) -> bool {
        self.requested().is_some()
    }

    pub(crate) fn forget_request(&self) {
        self.world.parts.files.remove(&self.world.parts.layout.update_request()).unwrap();
    }
}

fn versions(text: &[&str]) -> Vec<ReleaseVersion> {
    text.iter().map(|version| version.parse().unwrap()).collect()
}

#[tokio::test]
async fn the_newest_is_fetched_with_what_to_go_back_to() {
    let bench = Bench::new();
    assert_eq!(bench.updates.check().await.unwrap().next, None);
    assert_eq!(bench.download().await.unwrap(), None);
    for (version, package) in [("0.1.0", &b"old"[..]), ("0.2.0", b"between"), ("0.10.0", b"new")] {
        bench.offer(version, package).await;
    }
    let checked = bench.updates.check().await.unwrap();
    assert_eq!((checked.next, checked.fetched), (Some(versions(&["0.10.0"])[0]), false));
    assert_eq!(checked.approved, versions(&["0.1.0", "0.2.0", "0.10.0"]));
    let ready = bench.download().await.unwrap().unwrap();
    assert_eq!([ready.version, ready.previous].map(|version| version.to_string()), ["0.10.0", "0.1.0"]);
    assert_eq!(bench.fetched("0.10.0", "towpath-agent_0.10.0-1_amd64.deb").unwrap(), b"new");
    assert_eq!(bench.fetched("0.1.0", "towpath-agent_0.1.0-1_amd64.deb").unwrap(), b"old");
    assert!(bench.fetched("0.10.0", RELEASE_SIGNATURE_NAME).is_some() && bench.fetched("0.2.0", RELEASE_NAME).is_none());
    assert!(bench.updates.check().await.unwrap().fetched);

    // What is not needed any more goes.
    bench.install("0.10.0");
    bench.offer("0.11.0", b"newest").await;
    bench.download().await.unwrap().unwrap();
    assert!(bench.fetched("0.1.0", RELEASE_NAME).is_none() && bench.fetched("0.10.0", RELEASE_NAME).is_some());
}

#[tokio::test]
async fn it_never_goes_back_and_takes_nothing_twice_that_did_not_work() {
    let bench = Bench::new();
    for version in ["0.0.9", "0.1.0"] {
        bench.offer(version, version.as_bytes()).await;
    }
    assert_eq!(bench.download().await.unwrap(), None, "neither an older one nor the same");
    bench.offer("0.2.0", b"new").await;
    bench.report(&Report { refused: versions(&["0.2.0"]), ..Report::default() });
    assert_eq!(bench.download().await.unwrap(), None);
    let checked = bench.updates.check().await.unwrap();
    assert_eq!((checked.next, checked.refused), (None, versions(&["0.2.0"])));
    bench.offer("0.2.1", b"mended").await;
    assert_eq!(bench.download().await.unwrap().unwrap().version.to_string(), "0.2.1");
}

#[tokio::test]
async fn a_version_that_leaves_one_out_gives_way_to_the_one_before_it() {
    let bench = Bench::new();
    bench.offer("0.1.0", b"old").await;
    bench.offer_following("0.3.0", "0.2.0", b"too new").await;
    assert_eq!(bench.download().await.unwrap_err().code(), Code::UpdateRefused);
    bench.offer("0.2.0", b"next").await;
    assert_eq!(bench.download().await.unwrap().unwrap().version.to_string(), "0.2.0");
}

#[tokio::test]
async fn without_a_way_back_nothing_is_fetched() {
    let bench = Bench::new();
    bench.offer("0.2.0", b"new").await;
    let failure = bench.download().await.unwrap_err();
    assert!(failure.code() == Code::UpdateRefused && failure.report().contains("approve 0.1.0 as well"), "{}", failure.report());
    assert!(bench.fetched("0.2.0", "towpath-agent_0.2.0-1_amd64.deb").is_none());
    bench.report(&Report { kept: Some(versions(&["0.1.0"])[0]), ..Report::default() });
    assert!(bench.download().await.unwrap().is_some());
    std::fs::remove_file(bench.folder.path().join("package.json")).unwrap();
    assert_eq!(bench.download().await.unwrap_err().code(), Code::UpdateRefused);
    bench.install("0.1");
    assert_eq!(bench.updates.check().await.unwrap_err().code(), Code::FileFailed);
}

#[tokio::test]
async fn what_was_not_signed_as_it_is_is_not_kept() {
    let bench = Bench::new();
    bench.offer("0.1.0", b"old").await;
    bench.offer("0.2.0", b"new").await;
    let far = &*bench.world.far.files;
    let write = |version: &str, name: &str, bytes: &[u8]| write_whole(far, &bench.far(version, name), bytes).unwrap();
    let (package, document) =
        ("towpath-agent_0.2.0-1_amd64.deb", read_whole(far, &bench.far("0.2.0", RELEASE_NAME), 9999).unwrap());
    for wrong in [&b"NEW"[..], b"ne", b"new and more"] {
        write("0.2.0", package, wrong);
        assert_eq!(bench.download().await.unwrap_err().code(), Code::DigestMismatch);
        assert!(bench.fetched("0.2.0", package).is_none() && !bench.updates.check().await.unwrap().fetched);
    }
    // Half of it, and then the rest.
    let layout = &bench.world.parts.layout;
    let part = layout.update(versions(&["0.2.0"])[0]).join(format!("{package}.part"));
    write_whole(&*bench.world.parts.files, &part, b"ne").unwrap();
    write("0.2.0", package, b"??w");
    bench.download().await.unwrap().unwrap();
    assert_eq!(bench.fetched("0.2.0", package).unwrap(), b"new", "it went on where it was");

    write("0.2.0", RELEASE_NAME, &[&document[..], b" "].concat());
    assert_eq!(bench.download().await.unwrap_err().code(), Code::ReleaseInvalid);
    let other = Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(78)).unwrap();
    write("0.2.0", RELEASE_NAME, &document);
    write("0.2.0", RELEASE_SIGNATURE_NAME, other.sign(Namespace::Release, &document).unwrap().as_bytes());
    assert_eq!(bench.download().await.unwrap_err().code(), Code::ReleaseInvalid);
    // An older release under the name of a newer one.
    for name in [RELEASE_NAME, RELEASE_SIGNATURE_NAME] {
        let old = read_whole(far, &bench.far("0.1.0", name), 9999).unwrap();
        write("0.2.0", name, &old);
    }
    let failure = bench.download().await.unwrap_err();
    assert!(failure.report().contains("0.1.0 in the place of 0.2.0"), "{}", failure.report());
}

#[tokio::test]
async fn there_must_be_room_and_names_have_a_limit() {
    let bench = Bench::new();
    bench.offer("0.1.0", b"old").await;
    bench.offer("0.2.0", b"new").await;
    let many = (0..=MAX_RELEASES).map(|patch| format!("1.0.{patch}").parse().unwrap()).collect();
    bench.world.far.downlinks.set_releases(Releases { versions: many });
    assert_eq!(bench.updates.check().await.unwrap_err().code(), Code::RelayProtocol);
}

#[test]
fn what_did_not_work_is_remembered_within_bounds() {
    let mut report = Report::default();
    let attempt = |to: ReleaseVersion, outcome| Attempt {
        from: "0.1.0".parse().unwrap(),
        to,
        at: jiff::Timestamp::UNIX_EPOCH,
        outcome,
        why: "y".repeat(5_000),
    };
    for patch in 0..=MAX_REFUSED {
        report.note(attempt(format!("1.0.{patch}").parse().unwrap(), Outcome::RolledBack));
    }
    assert_eq!((report.refused.len(), report.refused[0].to_string().as_str()), (MAX_REFUSED, "1.0.1"));
    let trouble = |report: &Report, installed: &str| report.trouble(installed.parse().unwrap()).map(|(code, _)| code);
    assert_eq!(trouble(&report, "0.1.0"), Some(Code::UpdateRolledBack));
    assert_eq!(trouble(&report, "0.2.0"), None, "somebody has installed another one");
    report.note(attempt("2.0.0".parse().unwrap(), Outcome::Failed));
    assert_eq!((trouble(&report, "0.1.0"), trouble(&report, "2.0.1")), (Some(Code::UpdateFailed), None));
    report.note(attempt("2.0.1".parse().unwrap(), Outcome::Installed));
    assert_eq!((trouble(&report, "2.0.1"), report.last.unwrap().why.len()), (None, 1_000));
}
