//! Updates on a machine with a real systemd and a real package manager: from the maker's signature over relay and agent to the
//! version that runs, or to the one before where it does not work. After each the agent carries data.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use towpath_testkit::{Outcome, TENANT, eventually};
use towpath_transfer::{
    digest::Sha256Digest,
    release::{Package, PackageKind, RELEASE_NAME, Release},
};

use crate::{
    maker::{KEYS, Maker},
    packages::{NEW, OLD, STATE, Site, folder_of},
};

/// One that ends at its start.
const BROKEN: &str = "0.1.2";
/// Root's folder.
const KEPT: &str = "/var/lib/towpath/update";

/// A release of a version whose program ends at its start.
fn broken_release(maker: &Maker) -> PathBuf {
    let (folder, tree) = (maker.folder(BROKEN), maker.folder("tree"));
    let new = fs::read_dir(folder_of(NEW)).unwrap().map(|entry| entry.unwrap().path());
    let new = new.into_iter().find(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("towpath-agent") && name.ends_with(".deb")
    });
    let dpkg = |words: &[&str]| assert!(Command::new("dpkg-deb").args(words).output().unwrap().status.success(), "{words:?}");
    dpkg(&["--raw-extract", new.unwrap().to_str().unwrap(), tree.to_str().unwrap()]);
    fs::write(tree.join("usr/bin/towpath-agent"), "#!/bin/sh\necho broken >&2\nexit 1\n").unwrap();
    for file in ["DEBIAN/control", "usr/share/towpath-agent/package.json"] {
        let text = fs::read_to_string(tree.join(file)).unwrap();
        fs::write(tree.join(file), text.replace(NEW, BROKEN)).unwrap();
    }
    let file = format!("towpath-agent_{BROKEN}-1_amd64.deb");
    let package = folder.join(&file);
    dpkg(&["--root-owner-group", "-Zgzip", "-z1", "--build", tree.to_str().unwrap(), package.to_str().unwrap()]);
    let bytes = fs::read(&package).unwrap();
    let package = Package {
        kind: PackageKind::Deb,
        arch: std::env::consts::ARCH.to_owned(),
        file: file.parse().unwrap(),
        size: bytes.len() as u64,
        sha256: Sha256Digest::of(&bytes),
    };
    let release = Release::of(BROKEN.parse().unwrap(), OLD.parse().unwrap(), vec![package]);
    fs::write(folder.join(RELEASE_NAME), release.to_bytes().unwrap()).unwrap();
    maker.sign(&folder);
    folder
}

impl Site {
    /// Carries a release to the relay's machine and hands it to the relay.
    fn hand_over(&self, maker: &Maker, folder: &Path) {
        let version = folder.file_name().unwrap().to_str().unwrap();
        let to = self.machine.path(&format!("/srv/release-{version}"));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
        let _ = self.run(&format!("chmod -R a+rX /srv/release-{version}"));
        let _ = self.run(&format!("{KEYS}='{}' towpath-relay release add /srv/release-{version}", maker.public_key()));
    }

    fn believing(&self, maker: &Maker, line: &str) -> Outcome {
        self.machine.run(&format!("{KEYS}='{}' {line}", maker.public_key()))
    }

    fn download(&self, maker: &Maker) -> Outcome {
        self.believing(maker, "towpath-agent update download --json")
    }

    fn check(&self, maker: &Maker) -> Value {
        self.believing(maker, "towpath-agent update check --json").succeeded().json()
    }

    fn approve(&self, version: &str) {
        let _ = self.run(&format!("towpath-relay release approve {version} --ring 1"));
    }

    /// Where a file of a release lies on the relay's disk.
    fn on_relay(&self, version: &str, name: &str) -> PathBuf {
        self.machine.path(&format!("{STATE}/relay/releases/{version}/{name}"))
    }

    fn report(&self) -> Value {
        fs::read(self.machine.path(&format!("{KEPT}/report.json")))
            .map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Waits until an update to a version has ended, and says how.
    fn outcome(&self, version: &str) -> String {
        eventually("the update has ended", || {
            let last = self.report()["last"].clone();
            let over = last["to"] == version && !self.machine.path(&format!("{KEPT}/open.json")).exists();
            over.then(|| last["outcome"].as_str().unwrap().to_owned())
        })
    }

    fn installed(&self) -> String {
        self.run("dpkg-query --show --showformat '${Version}' towpath-agent")
    }

    /// The agent runs in a version, and nothing is left of an update.
    fn runs(&self, version: &str) {
        assert_eq!(self.installed(), format!("{version}-1"));
        eventually("nothing is left of the update", || {
            let left = self.run("ls /etc/systemd/system /etc/systemd/system/multi-user.target.wants");
            (!left.contains("update-run") && self.property("agent", "ActiveState") == "active").then_some(())
        });
        eventually("the agent is not held any more", || {
            let status = self.machine.run("towpath-agent status --json");
            (status.status.success() && status.json()["pause"].is_null()).then_some(())
        });
    }
}

#[test]
fn interop_an_update_is_applied_undone_and_gone_on_with_after_a_power_loss() {
    let (mut site, maker) = (Site::of_debian(), Maker::new());
    site.set_up();
    let config = fs::read_to_string(site.machine.path("/etc/towpath/agent.toml")).unwrap();
    fs::write(site.machine.path("/etc/towpath/agent.toml"), config + "\n[update]\nmode = \"install\"\n").unwrap();
    let drop_in = site.machine.path("/etc/systemd/system/towpath-agent-update.service.d");
    fs::create_dir_all(&drop_in).unwrap();
    fs::write(drop_in.join("keys.conf"), format!("[Service]\nEnvironment=\"{KEYS}={}\"\n", maker.public_key())).unwrap();
    let _ = site.run("systemctl daemon-reload && systemctl reload towpath-agent");
    assert_eq!(site.run("systemctl is-active towpath-agent-update.path"), "active");
    site.cycle(1);

    // What is not approved for the tenant's ring is not seen; without the installed version nothing is fetched.
    for version in [OLD, NEW] {
        site.hand_over(&maker, &maker.release(version, &folder_of(version)));
    }
    let _ = site.run(&format!("towpath-relay tenant ring {TENANT} 1"));
    let _ = site.run(&format!("towpath-relay release approve {NEW} --ring 2"));
    let seen = site.check(&maker);
    assert_eq!((&seen["installed"]["version"], &seen["approved"]), (&Value::from(OLD), &Value::from(Vec::<Value>::new())));
    site.approve(NEW);
    let _ = site.download(&maker).failed_with("update-refused");
    site.approve(OLD);

    what_is_wrong_comes_to_nothing(&site, &maker);
    the_power_goes_in_the_middle(&mut site, &maker);
    a_version_that_ends_at_its_start_is_undone(&site, &maker);
}

fn what_is_wrong_comes_to_nothing(site: &Site, maker: &Maker) {
    // A relay that gives other bytes, or lets somebody else sign, comes to nothing.
    let deb = format!("towpath-agent_{NEW}-1_amd64.deb");
    let (package, signature) = (site.on_relay(NEW, &deb), site.on_relay(NEW, "release.json.sig"));
    let (right, signed) = (fs::read(&package).unwrap(), fs::read(&signature).unwrap());
    let mut damaged = right.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&package, &damaged).unwrap();
    let _ = site.download(maker).failed_with("digest-mismatch");
    fs::write(&package, &right).unwrap();
    fs::write(&signature, fs::read(site.on_relay(OLD, "release.json.sig")).unwrap()).unwrap();
    let _ = site.download(maker).failed_with("release-invalid");
    fs::write(&signature, signed).unwrap();
    let _ = site.believing(&Maker::new(), "towpath-agent update download").failed_with("release-invalid");

    // What the service's account has planted is not followed by root.
    let _ = site.run(&format!("cp -r /srv/release-{NEW} /srv/planted && touch /srv/planted/.whole"));
    let update = format!("{STATE}/agent/update");
    let _ =
        site.run(&format!("rm -r {update} && mkdir {update} && ln -s /srv/planted {update}/{NEW} && chown -hR towpath {update}"));
    let applied = site.believing(maker, "towpath-agent update apply").succeeded().stdout;
    assert!(applied.starts_with("there is nothing newer") && site.installed() == format!("{OLD}-1"), "{applied}");
    let _ = site.run(&format!("rm -r {update}"));
    site.cycle(2);
}

fn the_power_goes_in_the_middle(site: &mut Site, maker: &Maker) {
    // The power goes in the middle of the installation.
    let wrapper = "#!/bin/sh\n[ -e /srv/went-down ] && exec /usr/bin/dpkg \"$@\"\ntouch /srv/went-down\nfor last; do :; done\n\
                   /usr/bin/dpkg --unpack \"$last\"\nexec sleep infinity\n";
    fs::write(site.machine.path("/usr/local/sbin/dpkg"), wrapper).unwrap();
    let _ = site.run("chmod 755 /usr/local/sbin/dpkg");
    let ready = site.download(maker).succeeded().json();
    assert_eq!((&ready["ready"]["version"], &ready["asked"]), (&Value::from(NEW), &Value::from(true)));
    eventually("the new version is unpacked and not configured", || {
        let state = site.machine.run("dpkg-query --show --showformat '${Status}' towpath-agent").stdout;
        (state.ends_with("unpacked") && site.machine.path("/srv/went-down").exists()).then_some(())
    });
    site.machine.cut_power();
    site.machine.boot();
    assert_eq!(site.outcome(NEW), "installed", "{}", site.run("journalctl --no-pager -u towpath-agent-update-run"));
    site.runs(NEW);
    site.cycle(3);
    assert_eq!(site.check(maker)["next"], Value::Null);
}

fn a_version_that_ends_at_its_start_is_undone(site: &Site, maker: &Maker) {
    // One that ends at its start is undone, told, and not tried again.
    site.hand_over(maker, &broken_release(maker));
    site.approve(BROKEN);
    let _ = site.download(maker).succeeded();
    assert_eq!(site.outcome(BROKEN), "rolled-back");
    site.runs(NEW);
    site.cycle(4);
    let seen = site.check(maker);
    assert_eq!((&seen["next"], &seen["refused"]), (&Value::Null, &Value::from(vec![BROKEN])));
    assert!(site.run("towpath-agent status").contains(&format!("update to {BROKEN} undone")));
    eventually("it is alerted of", || {
        let alerts = site.machine.run("towpath-agent status --json").json()["alerts"].to_string();
        alerts.contains("update-rolled-back").then_some(())
    });
    // Nor does it go back where the relay has nothing but the old one.
    for version in [NEW, BROKEN] {
        let _ = site.run(&format!("towpath-relay release withdraw {version} --ring 1"));
    }
    assert_eq!(site.download(maker).succeeded().json()["ready"], Value::Null);
    site.runs(NEW);
    site.cycle(5);
}

#[test]
fn interop_an_update_by_rpm_is_applied_in_the_hands_of_an_administrator() {
    let (site, maker) = (Site::new(".rpm"), Maker::new());
    // What the packages need is on this machine, but its package manager is another one.
    // Debian's own keeps its database in root's home, and every other one here.
    let wrapper = "#!/bin/sh\ncase $1 in --query) ;; *) set -- --nodeps \"$@\" ;; esac\n\
                   exec /usr/bin/rpm --dbpath /var/lib/rpm \"$@\"\n";
    let rpm = "/usr/local/sbin/rpm";
    fs::write(site.machine.path(rpm), wrapper).unwrap();
    let _ = site.run(&format!("chmod 755 {rpm}"));
    let _ = site.run(&format!("{rpm} --install /srv/{OLD}/*.rpm && systemctl enable towpath-agent"));
    site.set_up();
    for version in [OLD, NEW] {
        site.hand_over(&maker, &maker.release(version, &folder_of(version)));
        site.approve(version);
    }
    let _ = site.run(&format!("towpath-relay tenant ring {TENANT} 1"));
    let ready = site.believing(&maker, "towpath-agent update download --json").succeeded().json();
    assert_eq!(ready["asked"], false, "updates are off");
    let applied = site.believing(&maker, "towpath-agent update apply").succeeded().stdout;
    assert!(applied.starts_with(&format!("updated from {OLD} to {NEW}")), "{applied}");
    assert!(site.run(&format!("{rpm} --query towpath-agent")).starts_with(&format!("towpath-agent-{NEW}-1")));
    site.cycle(1);
}
