//! What updates need: the list of the agent's packages, for its maker to sign, and in each package what it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use towpath_transfer::{
    digest::Sha256Digest,
    release::{Package, PackageKind, RELEASE_NAME, RELEASE_PRODUCT, Release, ReleaseVersion},
};

use super::{Job, Product, entries, write};

/// The oldest version that this one follows, and to which one can go back from it: since then, what either writes the other reads.
pub(super) const FOLLOWS: &str = "0.1.0";

/// The architecture of the package for Windows, which is built across, whatever this one's is.
pub(super) const WINDOWS_ARCH: &str = "x86_64";

/// The variable that names the release keys at build time, as `ssh-keygen` writes public keys.
pub(super) const KEYS: &str = "TOWPATH_RELEASE_KEYS";

/// In a program for which a test may name a release key. Such a one is never released.
const OF_TESTS: &[u8] = b"TOWPATH_RELEASE_KEYS_OF_TEST";

/// Writes into the staged files of the agent what the package is that is made of them.
pub(super) fn record(job: &Job, product: &Product, kind: PackageKind) -> Result<(), String> {
    if product.name() != RELEASE_PRODUCT {
        return Ok(());
    }
    let place = job.stages.join(product.name()).join("usr/share").join(product.name()).join("package.json");
    write(&place, &said_of(job, kind, std::env::consts::ARCH))
}

/// What a package of the agent says that it is.
pub(super) fn said_of(job: &Job, kind: PackageKind, arch: &str) -> String {
    format!("{}\n", serde_json::json!({"kind": kind, "version": job.version, "arch": arch}))
}

/// Writes `release.json`, the list of the agent's packages in the folder.
pub(super) fn document(out: &Path, version: &str, follows: &str) -> Result<(), String> {
    let parsed = |text: &str| text.parse::<ReleaseVersion>().map_err(|e| format!("{text}: {e}"));
    let mut packages = entries(out)?.iter().filter_map(|path| package(path).transpose()).collect::<Result<Vec<_>, String>>()?;
    packages.sort_by(|a, b| a.file.cmp(&b.file));
    if packages.is_empty() {
        return Ok(());
    }
    let bytes = Release::of(parsed(version)?, parsed(follows)?, packages).to_bytes().map_err(|e| e.report())?;
    write(&out.join(RELEASE_NAME), &String::from_utf8_lossy(&bytes))
}

/// A file as the list names it, where it is a package of the agent.
fn package(path: &Path) -> Result<Option<Package>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (kind, arch) = match path.extension().and_then(|extension| extension.to_str()) {
        Some("deb") => (PackageKind::Deb, std::env::consts::ARCH),
        Some("rpm") => (PackageKind::Rpm, std::env::consts::ARCH),
        Some("msi") => (PackageKind::Msi, WINDOWS_ARCH),
        _ => return Ok(None),
    };
    // Updates know one package for each kind: of those in several languages the first, which takes the place of any.
    if !name.starts_with(RELEASE_PRODUCT) || (kind == PackageKind::Msi && !name.ends_with("-x64.msi")) {
        return Ok(None);
    }
    let bytes = fs::read(path).map_err(|e| format!("reading {}: {e}", path.display()))?;
    let file = name.parse().map_err(|e| format!("{name}: {e}"))?;
    let (size, sha256) = (bytes.len() as u64, Sha256Digest::of(&bytes));
    Ok(Some(Package { kind, arch: arch.to_owned(), file, size, sha256 }))
}

/// Refuses programs that believe whom a test names.
pub(super) fn refuse_programs_of_tests(programs: &[PathBuf]) -> Result<(), String> {
    for program in programs {
        let bytes = fs::read(program).map_err(|e| format!("reading {}: {e}", program.display()))?;
        if bytes.windows(OF_TESTS.len()).any(|window| window == OF_TESTS) {
            return Err(format!("{} was built with failpoints: it would take updates of anybody", program.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_the_packages_of_the_agent_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| fs::write(folder.path().join(name), name).unwrap();
        for name in ["towpath-agent_1.2.0-1_amd64.deb", "towpath-agent-1.2.0-1.x86_64.rpm", "towpath-relay_1.2.0-1_amd64.deb"] {
            put(name);
        }
        document(folder.path(), "1.2.0", "1.0.0").unwrap();
        let release = Release::parse(&fs::read(folder.path().join(RELEASE_NAME)).unwrap()).unwrap();
        assert_eq!((release.version.to_string().as_str(), release.packages.len()), ("1.2.0", 2));
        let deb = release.package(PackageKind::Deb, std::env::consts::ARCH).unwrap();
        assert_eq!((deb.size, deb.sha256), (31, Sha256Digest::of(b"towpath-agent_1.2.0-1_amd64.deb")));
        put("towpath-agent-1.2.0-x64.msi");
        put("towpath-agent-1.2.0-x64-de.msi");
        document(folder.path(), "1.2.0", "1.0.0").unwrap();
        assert!(document(folder.path(), "1.2", "1.0.0").unwrap_err().starts_with("1.2: a version is"));
        let release = Release::parse(&fs::read(folder.path().join(RELEASE_NAME)).unwrap()).unwrap();
        assert!(release.package(PackageKind::Msi, "x86_64").is_some());
        assert!(FOLLOWS.parse::<ReleaseVersion>().unwrap() <= env!("CARGO_PKG_VERSION").parse().unwrap());
    }

    #[test]
    fn programs_with_failpoints_are_not_released() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, b"\x7fELF TOWPATH_RELEASE_KEYS\0").unwrap();
        refuse_programs_of_tests(std::slice::from_ref(&program)).unwrap();
        fs::write(&program, [b"\x7fELF ", OF_TESTS, b"\0"].concat()).unwrap();
        assert!(refuse_programs_of_tests(std::slice::from_ref(&program)).unwrap_err().contains("failpoints"));
    }
}
