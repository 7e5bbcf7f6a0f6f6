//! Whose work is in the programs: the licences of every crate that is linked into them, and a bill of materials (CycloneDX 1.5,
//! <https://cyclonedx.org/docs/1.5/json/>) for each.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Job, entries, read, said, write};
use crate::repository;

/// What is known of all crates that any of the programs has.
pub(super) struct Licences {
    /// Towpath's own, as Debian wants it told.
    pub(super) own: String,
    /// The texts of all others.
    pub(super) third_party: String,
    crates: BTreeMap<String, Crate>,
    time: String,
    version: String,
}

/// What `cargo metadata` tells, as far as it matters here
/// (<https://doc.rust-lang.org/cargo/commands/cargo-metadata.html#json-format>).
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// None of our own.
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

/// None for what is linked; else `dev` or `build`.
#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// A crate, by cargo's own id of it.
struct Crate {
    name: String,
    version: String,
    licence: String,
    folder: PathBuf,
    /// Of crates from a registry.
    sha256: Option<String>,
    ours: bool,
    /// What is linked into it.
    needs: BTreeSet<String>,
}

/// Files that a crate's licence may stand in.
const NAMES: [&str; 6] = ["license", "licence", "copying", "notice", "copyright", "unlicense"];

/// Asks cargo what is linked into the programs: those of this host, or of another platform.
pub(super) fn collect(job: &Job, platform: Option<&str>) -> Result<Licences, String> {
    let version = said(std::process::Command::new("rustc").arg("-vV"))?;
    let host = platform.or_else(|| version.lines().find_map(|line| line.strip_prefix("host: ")));
    let host = host.ok_or("rustc does not tell its host")?;
    let features = ["--features", "towpath-agent/odbc"];
    let mut command = repository::cargo(&job.root, &["metadata", "--format-version", "1", "--locked", "--filter-platform", host]);
    let told = said(command.args(features))?;
    let metadata: Metadata = serde_json::from_str(&told).map_err(|e| format!("cargo metadata: {e}"))?;
    let sums = checksums(&read(&job.root.join("Cargo.lock"))?)?;
    let crates = crates(metadata, &sums)?;
    let mut linked = BTreeSet::new();
    for product in &super::PRODUCTS {
        linked.extend(below(&crates, &product.name())?);
    }
    let crates: BTreeMap<_, _> = crates.into_iter().filter(|(id, _)| linked.contains(id)).collect();
    Ok(Licences {
        own: own(&job.root)?,
        third_party: texts(crates.values())?,
        crates,
        time: job.time.clone(),
        version: job.version.clone(),
    })
}

impl Licences {
    /// Writes licences and bills of materials of programs beside the packages that have them inside, for whoever looks before installing.
    pub(super) fn write_beside(&self, out: &Path, system: &str, programs: &[String]) -> Result<(), String> {
        write(&out.join(format!("THIRD-PARTY-LICENSES-{system}.txt")), &self.third_party)?;
        programs.iter().try_for_each(|name| write(&out.join(format!("{name}-{system}.cdx.json")), &self.sbom(name)?))
    }

    /// The bill of materials of a program.
    pub(super) fn sbom(&self, program: &str) -> Result<String, String> {
        let reference = |of: &Crate| format!("pkg:cargo/{}@{}", of.name, of.version);
        let ids = below(&self.crates, program)?;
        let linked: Vec<&Crate> = ids.iter().filter_map(|id| self.crates.get(id)).collect();
        let components: Vec<Value> = linked
            .iter()
            .filter(|of| of.name != program)
            .map(|of| {
                let hashes: Vec<Value> = of.sha256.iter().map(|sum| json!({ "alg": "SHA-256", "content": sum })).collect();
                json!({
                    "type": "library", "bom-ref": reference(of), "name": of.name, "version": of.version, "purl": reference(of),
                    "licenses": [{ "expression": of.licence }], "hashes": hashes,
                })
            })
            .collect();
        let dependencies: Vec<Value> = linked
            .iter()
            .map(|of| {
                let needs: Vec<String> = of.needs.iter().filter_map(|id| self.crates.get(id)).map(reference).collect();
                json!({ "ref": reference(of), "dependsOn": needs })
            })
            .collect();
        let root = linked.iter().find(|of| of.name == program).ok_or_else(|| format!("cargo knows no {program}"))?;
        let at: i64 = self.time.parse().map_err(|e| format!("the time of the commit: {e}"))?;
        let text = serde_json::to_string_pretty(&json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {
                "timestamp": rfc3339(at)?,
                "component": {
                    "type": "application", "bom-ref": reference(root), "name": program, "version": self.version,
                    "licenses": [{ "expression": root.licence }],
                },
            },
            "components": components,
            "dependencies": dependencies,
        }));
        text.map(|text| text + "\n").map_err(|e| format!("the bill of materials of {program}: {e}"))
    }
}

fn rfc3339(seconds: i64) -> Result<String, String> {
    said(std::process::Command::new("date").args(["--utc", "--date", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]))
}

/// The SHA-256 of each crate of a registry, by name and version.
fn checksums(lock: &str) -> Result<BTreeMap<(String, String), String>, String> {
    let lock: toml::Table = lock.parse().map_err(|e| format!("Cargo.lock: {e}"))?;
    let packages = lock.get("package").and_then(toml::Value::as_array).ok_or("Cargo.lock names no package")?;
    let text = |package: &toml::Value, key| package.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    Ok(packages
        .iter()
        .filter_map(|package| Some(((text(package, "name")?, text(package, "version")?), text(package, "checksum")?)))
        .collect())
}

fn crates(metadata: Metadata, sums: &BTreeMap<(String, String), String>) -> Result<BTreeMap<String, Crate>, String> {
    let mut needs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Node { id, deps } in metadata.resolve.nodes {
        let linked = deps.into_iter().filter(|one| one.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        needs.insert(id, linked.map(|one| one.pkg).collect());
    }
    let mut crates = BTreeMap::new();
    for Package { id, name, version, license, source, manifest_path } in metadata.packages {
        let licence = license.ok_or_else(|| format!("crate {name} names no licence"))?.replace('/', " OR ");
        let of = Crate {
            sha256: sums.get(&(name.clone(), version.clone())).cloned(),
            licence,
            folder: manifest_path.parent().map(Path::to_owned).unwrap_or_default(),
            ours: source.is_none(),
            needs: needs.remove(&id).unwrap_or_default(),
            name,
            version,
        };
        crates.insert(id, of);
    }
    Ok(crates)
}

/// The ids of a program and of everything that is linked into it.
fn below(crates: &BTreeMap<String, Crate>, program: &str) -> Result<BTreeSet<String>, String> {
    let first = crates.iter().find(|(_, of)| of.ours && of.name == program).map(|(id, _)| id.clone());
    let mut open = vec![first.ok_or_else(|| format!("cargo knows no {program}"))?];
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        if let Some(of) = crates.get(&id)
            && found.insert(id)
        {
            open.extend(of.needs.iter().cloned());
        }
    }
    Ok(found)
}

/// The licences' own texts, each with the crates that come under it. Equal texts stand once.
fn texts<'a>(crates: impl Iterator<Item = &'a Crate>) -> Result<String, String> {
    let mut by_text: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut list = String::from("Towpath has in it the work of others, under these licences.\n\n");
    for of in crates.filter(|of| !of.ours) {
        let label = format!("{} {}", of.name, of.version);
        let _ = writeln!(list, "{label}: {}", of.licence);
        for file in entries(&of.folder)? {
            let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            if file.is_file() && NAMES.iter().any(|prefix| name.starts_with(prefix)) {
                let bytes = std::fs::read(&file).map_err(|e| format!("reading {}: {e}", file.display()))?;
                by_text.entry(String::from_utf8_lossy(&bytes).trim().to_owned()).or_default().insert(label.clone());
            }
        }
    }
    for (text, of) in by_text {
        let of: Vec<String> = of.into_iter().collect();
        let _ = write!(list, "\n{}\n{}\n\n{text}\n", "-".repeat(79), of.join(", "));
    }
    Ok(list)
}

fn own(root: &Path) -> Result<String, String> {
    let (mit, apache) = (read(&root.join("LICENSE-MIT"))?, read(&root.join("LICENSE-APACHE"))?);
    Ok(format!("Towpath is under the MIT licence or the Apache License 2.0, whichever you prefer.\n\n{mit}\n\n{apache}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata() -> Metadata {
        let package = |name: &str, source: Value| {
            json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": source,
                    "manifest_path": "/x/Cargo.toml" })
        };
        let registry = json!("registry");
        let metadata = json!({
            "packages": [
                package("towpath-agent", Value::Null),
                package("linked", registry.clone()),
                package("tested-with", registry.clone()),
                package("below", registry),
            ],
            "resolve": { "nodes": [
                { "id": "towpath-agent", "deps": [
                    { "pkg": "linked", "dep_kinds": [{ "kind": null }] },
                    { "pkg": "tested-with", "dep_kinds": [{ "kind": "dev" }] },
                ] },
                { "id": "linked", "deps": [{ "pkg": "below", "dep_kinds": [{ "kind": "build" }, { "kind": null }] }] },
            ] },
        });
        serde_json::from_value(metadata).unwrap()
    }

    #[test]
    fn what_is_linked_is_told_and_nothing_else() {
        let lock = "[[package]]\nname = \"linked\"\nversion = \"1.0.0\"\nchecksum = \"ab\"\n";
        let crates = crates(metadata(), &checksums(lock).unwrap()).unwrap();
        let licences = Licences {
            own: String::new(),
            third_party: String::new(),
            crates,
            time: "0".to_owned(),
            version: "1.2.3".to_owned(),
        };
        let bill: Value = serde_json::from_str(&licences.sbom("towpath-agent").unwrap()).unwrap();
        let names: Vec<&str> = bill["components"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["below", "linked"]);
        assert_eq!(bill["components"][1]["hashes"][0]["content"], "ab");
        assert_eq!(bill["components"][1]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["metadata"]["timestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(bill["metadata"]["component"]["version"], "1.2.3");
        assert!(licences.sbom("towpath-elsewhere").is_err());
    }

    #[test]
    fn equal_texts_stand_once() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| {
            let folder = folder.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("LICENSE-MIT"), "the same words").unwrap();
            std::fs::write(folder.join("lib.rs"), "no licence").unwrap();
            Crate {
                name: name.to_owned(),
                version: "1.0.0".to_owned(),
                licence: "MIT".to_owned(),
                folder,
                sha256: None,
                ours: false,
                needs: BTreeSet::new(),
            }
        };
        let told = texts([of("a"), of("b")].iter()).unwrap();
        assert_eq!(told.matches("the same words").count(), 1);
        assert!(told.contains("a 1.0.0, b 1.0.0") && !told.contains("no licence"), "{told}");
    }
}
