//! What is taken, and what an agent sees of it.

use towpath_keys::{Identity, KeyKind, Namespace};
use towpath_transfer::{
    RemotePath, TenantName,
    clock::{ManualClock, SeededEntropy},
    digest::Sha256Digest,
    release::PackageKind,
};
use towpath_transport::{
    files::read_whole,
    server::{FsError, OpenOptions, Replace, SetAttributes, VirtualFs},
};

use super::*;
use crate::{registry::Registry, scope::TenantScope, service::tests::World};

/// The folder of an operator who has built a release.
pub(crate) struct Maker {
    pub(crate) folder: tempfile::TempDir,
    key: Identity,
}

impl Maker {
    pub(crate) fn new() -> Self {
        let key = Identity::generate(KeyKind::Ed25519, &SeededEntropy::new(26)).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), key }
    }

    pub(crate) fn keys(&self) -> ReleaseKeys {
        ReleaseKeys::of(vec![self.key.public_line().try_into().unwrap()])
    }

    /// Lays out a release of one package with these bytes.
    pub(crate) fn lay_out(&self, version: &str, bytes: &[u8]) {
        let file = format!("towpath-agent_{version}-1_amd64.deb");
        std::fs::write(self.folder.path().join(&file), bytes).unwrap();
        let (size, sha256) = (bytes.len() as u64, Sha256Digest::of(bytes));
        let package = Package { kind: PackageKind::Deb, arch: "x86_64".into(), file: file.parse().unwrap(), size, sha256 };
        let release = Release::of(version.parse().unwrap(), "0.0.1".parse().unwrap(), vec![package]);
        let document = release.to_bytes().unwrap();
        let signature = self.key.sign(Namespace::Release, &document).unwrap();
        std::fs::write(self.folder.path().join(RELEASE_NAME), document).unwrap();
        std::fs::write(self.folder.path().join(RELEASE_SIGNATURE_NAME), signature).unwrap();
    }
}

struct Bench {
    maker: Maker,
    state: tempfile::TempDir,
    shelf: Shelf,
}

impl Bench {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(Arc::new(Disk), state.path());
        Self { maker: Maker::new(), state, shelf }
    }

    fn take(&self) -> Result<Release> {
        self.shelf.take(self.maker.folder.path(), &self.maker.keys(), 0)
    }

    /// Names below the folder of releases, hidden ones as well.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state.path().join("releases")).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn a_release_is_taken_whole_with_everything_checked() {
    let bench = Bench::new();
    bench.maker.lay_out("1.2.0", b"a package");
    assert_eq!(Shelf::version_in(bench.maker.folder.path(), &bench.maker.keys()).unwrap().to_string(), "1.2.0");
    // What an interrupted try has left is in nobody's way.
    for left in ["releases/.new-1.2.0", "releases/1.2.0/old"] {
        std::fs::create_dir_all(bench.state.path().join(left)).unwrap();
    }
    let release = bench.take().unwrap();
    assert_eq!(bench.names(), ["1.2.0"]);
    assert_eq!(bench.shelf.read(release.version).unwrap(), release);
    let folder = bench.shelf.folder(release.version);
    assert_eq!(read_whole(&Disk, &folder.join("towpath-agent_1.2.0-1_amd64.deb"), 99).unwrap(), b"a package");
    assert!(!folder.join("old").exists());
    for was_here in [true, false] {
        assert_eq!(bench.shelf.remove(release.version).unwrap(), was_here);
    }
    assert!(bench.names().is_empty());
    assert_eq!(bench.shelf.read(release.version).unwrap_err().code(), Code::FileFailed);
}

#[test]
fn what_is_not_what_was_signed_is_not_taken() {
    let bench = Bench::new();
    assert_eq!(bench.take().unwrap_err().code(), Code::FileFailed, "there is nothing");
    let package = bench.maker.folder.path().join("towpath-agent_1.2.0-1_amd64.deb");
    for wrong in [&b"A package"[..], b"a packag", b"a package and more"] {
        bench.maker.lay_out("1.2.0", b"a package");
        std::fs::write(&package, wrong).unwrap();
        assert_eq!(bench.take().unwrap_err().code(), Code::DigestMismatch);
        assert!(bench.names().is_empty());
    }
    std::fs::remove_file(&package).unwrap();
    assert_eq!(bench.take().unwrap_err().code(), Code::FileFailed);
    bench.maker.lay_out("1.2.0", b"a package");
    std::fs::write(bench.maker.folder.path().join(RELEASE_SIGNATURE_NAME), "nobody").unwrap();
    assert_eq!(bench.take().unwrap_err().code(), Code::ReleaseInvalid);
    bench.maker.lay_out("1.2.0", b"a package");
    let full = bench.shelf.take(bench.maker.folder.path(), &bench.maker.keys(), u64::MAX).unwrap_err();
    assert!(full.code() == Code::DiskFull && full.report().contains("spool.reserve"), "{}", full.report());
    assert!(bench.names().is_empty());
}

fn path(text: &str) -> RemotePath {
    text.parse().unwrap()
}

async fn listed(view: &dyn VirtualFs, at: &str) -> Option<Vec<String>> {
    let mut listing = view.list(&path(at)).await.ok()?;
    let mut names: Vec<String> = listing.next_page(99).await.unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    Some(names)
}

async fn registry_with(tenants: [&str; 2]) -> (Registry, [TenantScope; 2]) {
    let clock = Arc::new(ManualClock::new("2026-03-01T00:00:00Z".parse().unwrap()));
    let registry = Registry::in_memory(clock, Arc::new(SeededEntropy::new(4))).await.unwrap();
    let [one, two] = tenants.map(|name| name.parse::<TenantName>().unwrap());
    let scopes = [registry.create_tenant(&one, None).await.unwrap(), registry.create_tenant(&two, None).await.unwrap()];
    (registry, scopes)
}

#[tokio::test]
async fn an_agent_reads_what_is_approved_for_its_ring_and_changes_nothing() {
    let bench = Bench::new();
    let (registry, [acme, other]) = registry_with(["acme", "other"]).await;
    for version in ["1.1.0", "1.2.0"] {
        bench.maker.lay_out(version, version.as_bytes());
        registry.add_release(bench.take().unwrap().version).await.unwrap();
    }
    registry.set_ring(&acme, 1).await.unwrap();
    registry.set_ring(&other, 2).await.unwrap();
    let world = World::new().await;
    let view = |scope: &TenantScope| {
        let offered = Offered::new(bench.shelf.clone(), registry.clone(), scope.clone());
        crate::spool::AgentView::new(Arc::clone(world.relay.spool()), scope.agent("erp".parse().unwrap())).offering(offered)
    };
    let (ours, theirs) = (view(&acme), view(&other));
    let package = "/update/1.2.0/towpath-agent_1.2.0-1_amd64.deb";
    assert_eq!(listed(&ours, "/").await.unwrap(), ["downlink", "uplink"]);
    assert_eq!(ours.stat(&path("/update")).await.unwrap_err(), FsError::NotFound, "nothing is approved");
    registry.approve_release("1.2.0".parse().unwrap(), 1).await.unwrap();

    assert_eq!(listed(&ours, "/").await.unwrap(), ["downlink", "update", "uplink"]);
    assert_eq!(listed(&ours, "/update").await.unwrap(), ["1.2.0"]);
    let files = listed(&ours, "/update/1.2.0").await.unwrap();
    assert_eq!(files, ["release.json", "release.json.sig", "towpath-agent_1.2.0-1_amd64.deb"]);
    assert!(listed(&ours, package).await.is_none());
    let read = OpenOptions { read: true, ..OpenOptions::default() };
    let mut file = ours.open(&path(package), read, &SetAttributes::default()).await.unwrap();
    assert_eq!(file.read_at(2, 99).await.unwrap(), &b"2.0"[..], "from any place on");

    // What is not approved for it is not there, however it is called.
    for missing in ["/update/1.1.0", "/update/1.1.0/release.json", "/update/1.2.0/.x", "/update/1.2.0/a/b", "/update/latest"] {
        assert_eq!(ours.stat(&path(missing)).await.unwrap_err(), FsError::NotFound, "{missing}");
        assert!(listed(&ours, missing).await.is_none());
    }
    assert_eq!(theirs.stat(&path(package)).await.unwrap_err(), FsError::NotFound);
    assert_eq!(theirs.open(&path(package), read, &SetAttributes::default()).await.err(), Some(FsError::NotFound));

    let write = OpenOptions { write: true, create: true, ..OpenOptions::default() };
    for (at, told) in [(package, FsError::Denied), ("/update/1.1.0/x", FsError::NotFound)] {
        let at = path(at);
        assert_eq!(ours.open(&at, write, &SetAttributes::default()).await.err(), Some(told.clone()));
        assert_eq!(ours.remove(&at).await.unwrap_err(), told);
        assert_eq!(ours.remove_dir(&at).await.unwrap_err(), told);
        assert_eq!(ours.make_dir(&at, &SetAttributes::default()).await.unwrap_err(), told);
        assert_eq!(ours.rename(&at, &path("/uplink/x"), Replace::Allow).await.unwrap_err(), told);
        assert_eq!(ours.rename(&path("/uplink/x"), &at, Replace::Allow).await.unwrap_err(), told);
    }
    registry.withdraw_release("1.2.0".parse().unwrap(), 1).await.unwrap();
    assert_eq!(ours.stat(&path(package)).await.unwrap_err(), FsError::NotFound, "for an open session as well");
}
