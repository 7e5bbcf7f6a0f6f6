//! Rules over the Cargo manifests: which way dependencies point, and that each has its reason.

use toml::{Table, Value};

use super::{Finding, tree::File, tree::Tree};

const MIDDLE: &[&str] = &["towpath-transfer", PLATFORM];
const PROGRAM: &[&str] =
    &["towpath-transfer", "towpath-journal", "towpath-transport", "towpath-keys", "towpath-host", "towpath-alert", PLATFORM];
const SAMPLES: &[&str] = &[
    "towpath-transfer",
    "towpath-journal",
    "towpath-transport",
    "towpath-keys",
    "towpath-host",
    "towpath-agent",
    "towpath-relay",
    "towpath-receiver",
];
/// Both programs that serve SFTP are told its limits by one section of their configuration.
const HOST: &[&str] = &["towpath-transfer", "towpath-transport", PLATFORM];
/// Its desk keeps a file, reads a secret, and calls programs and webhooks.
const ALERT: &[&str] = &["towpath-transfer", "towpath-host", "towpath-keys", "towpath-transport"];
/// It starts the servers that the tests share.
const XTASK: &[&str] = &[SERVERS, "towpath-transfer"];
const TESTS: &[&str] = &[
    "towpath-transfer",
    "towpath-journal",
    "towpath-transport",
    "towpath-keys",
    "towpath-host",
    "towpath-agent",
    "towpath-relay",
    "towpath-receiver",
    "towpath-samples",
    "towpath-servers",
    "towpath-testkit",
    "towpath-simulation",
];
/// Starts other people's servers for tests; no product code may know it.
const SERVERS: &str = "towpath-servers";

/// The one room with `unsafe`, which is why its lints are its own.
const PLATFORM: &str = "towpath-platform";

/// Each room, and the rooms it may depend on. Dependencies point one way, towards `transfer`.
const ROOMS: &[(&str, &[&str])] = &[
    ("towpath-transfer", &[]),
    (PLATFORM, &[]),
    ("towpath-journal", MIDDLE),
    ("towpath-transport", MIDDLE),
    ("towpath-keys", MIDDLE),
    ("towpath-host", HOST),
    ("towpath-alert", ALERT),
    ("towpath-agent", PROGRAM),
    ("towpath-relay", PROGRAM),
    ("towpath-receiver", PROGRAM),
    ("towpath-samples", SAMPLES),
    (SERVERS, &[]),
    ("towpath-testkit", TESTS),
    ("towpath-simulation", TESTS),
    ("towpath-e2e", TESTS),
    ("towpath-fuzz", TESTS),
    ("towpath-xtask", XTASK),
];

/// Crates that only some rooms may depend on.
const FENCED: &[(&str, &[&str])] = &[
    ("russh", &["towpath-transport", "towpath-keys"]),
    ("russh-sftp", &["towpath-transport", "towpath-keys"]),
    ("ssh-key", &["towpath-transport", "towpath-keys"]),
    ("rsa", &["towpath-keys"]),
    ("windows-sys", &[PLATFORM]),
    (
        "sqlx",
        &[
            "towpath-journal",
            "towpath-relay",
            "towpath-agent",
            "towpath-receiver",
            "towpath-samples",
            "towpath-testkit",
            "towpath-simulation",
            "towpath-e2e",
        ],
    ),
    ("odbc-api", &["towpath-agent"]),
    ("encoding_rs", &["towpath-agent"]),
    ("oem_cp", &["towpath-agent"]),
    // Transport only as a dev-dependency, for the server its tests call; the rule over sources holds the rest.
    ("axum", &["towpath-relay", "towpath-transport"]),
    ("utoipa", &["towpath-relay", "towpath-transfer"]),
];

/// Rule `edges`: dependencies between rooms point one way.
pub(crate) fn edges(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for room in members(tree) {
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room.name) else {
            let advice = format!("{} is a room nobody knows: give it a place in ROOMS of xtask/src/tidy/manifests.rs", room.name);
            findings.push(Finding::new(&room.file.path, 1, "edges", advice));
            continue;
        };
        for dependency in room.dependencies.iter().filter(|d| d.name.starts_with("towpath-")) {
            let for_tests = dependency.name == SERVERS && dependency.dev;
            if !for_tests && !allowed.contains(&dependency.name.as_str()) {
                let advice = format!("{} may not depend on {}: dependencies point one way", room.name, dependency.name);
                findings.push(Finding::new(&room.file.path, dependency.line, "edges", advice));
            }
        }
    }
    findings
}

/// Rule `crates`, over manifests: fenced crates stay in their rooms.
pub(crate) fn crates_by_room(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for room in members(tree) {
        for dependency in &room.dependencies {
            let fence = FENCED.iter().find(|(name, rooms)| *name == dependency.name && !rooms.contains(&room.name.as_str()));
            if let Some((name, rooms)) = fence {
                let advice = format!("{name} belongs to {} only: call through one of them", rooms.join(", "));
                findings.push(Finding::new(&room.file.path, dependency.line, "crates", advice));
            }
        }
    }
    findings
}

/// Rule `inherit`: versions and lints are decided once, in the workspace.
pub(crate) fn inheritance(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for room in members(tree) {
        let path = &room.file.path;
        for dependency in room.dependencies.iter().filter(|d| !d.inherited) {
            let advice =
                format!("write `{}.workspace = true` and its version with a reason in the root manifest", dependency.name);
            findings.push(Finding::new(path, dependency.line, "inherit", advice));
        }
        if !room.inherits_lints && room.name != PLATFORM {
            findings.push(Finding::new(path, 1, "inherit", "add `[lints]` with `workspace = true`"));
        }
    }
    findings
}

/// Rule `reasons`: every dependency of the workspace says why it is there, on its line or above its group.
pub(crate) fn reasons(tree: &Tree) -> Vec<Finding> {
    let Some(root) = tree.get("Cargo.toml") else { return Vec::new() };
    let mut findings = Vec::new();
    let mut inside = false;
    let mut group_has_reason = false;
    let mut depth = 0_i32;
    for (line, text) in root.lines() {
        let text = text.trim();
        if depth == 0 && text.starts_with('[') {
            inside = text == "[workspace.dependencies]";
            group_has_reason = false;
        } else if text.is_empty() {
            group_has_reason = false;
        } else if text.starts_with('#') {
            group_has_reason = true;
        } else if inside {
            let begins = depth == 0;
            depth += brackets(text);
            if begins && !group_has_reason && !text.contains('#') && !text.starts_with("towpath-") {
                let name = text.split(['=', '.', ' ']).next().unwrap_or_default();
                let advice = format!("say why {name} is here, in a comment on its line or above its group");
                findings.push(Finding::new(&root.path, line, "reasons", advice));
            }
        }
    }
    findings
}

/// How many brackets a line leaves open: an entry may span lines.
fn brackets(text: &str) -> i32 {
    text.chars().fold(0, |depth, c| match c {
        '[' | '{' => depth + 1,
        ']' | '}' => depth - 1,
        _ => depth,
    })
}

struct Member<'a> {
    file: &'a File,
    name: String,
    dependencies: Vec<Dependency>,
    inherits_lints: bool,
}

struct Dependency {
    /// The name of the crate, also where the manifest renames it.
    name: String,
    line: usize,
    inherited: bool,
    /// Whether only tests and benchmarks have it.
    dev: bool,
}

/// Every manifest with a package. One that cannot be parsed stops cargo, so it needs no rule here.
fn members(tree: &Tree) -> impl Iterator<Item = Member<'_>> {
    tree.files().filter(|file| file.name() == "Cargo.toml").filter_map(member)
}

fn member(file: &File) -> Option<Member<'_>> {
    let manifest: Table = file.text.parse().ok()?;
    let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
    let inherits_lints = manifest.get("lints").and_then(|l| l.get("workspace")).and_then(Value::as_bool) == Some(true);
    let mut dependencies = Vec::new();
    collect(&manifest, file, &mut dependencies);
    for target in manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values) {
        if let Some(table) = target.as_table() {
            collect(table, file, &mut dependencies);
        }
    }
    Some(Member { file, name, dependencies, inherits_lints })
}

fn collect(table: &Table, file: &File, out: &mut Vec<Dependency>) {
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (key, value) in table.get(kind).and_then(Value::as_table).into_iter().flatten() {
            let name = value.get("package").and_then(Value::as_str).unwrap_or(key).to_owned();
            let inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
            out.push(Dependency { name, line: line_of(file, key), inherited, dev: kind == "dev-dependencies" });
        }
    }
}

fn line_of(file: &File, key: &str) -> usize {
    let begins = |text: &str| text.trim_start().strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', ' ', '=']));
    file.lines().find(|(_, text)| begins(text)).map_or(1, |(line, _)| line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{rest}")
    }

    fn found(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Tree::of(&[(path, text)])).into_iter().map(|f| f.line).collect()
    }

    #[test]
    fn rooms_depend_one_way() {
        let good = manifest("towpath-relay", "[dependencies]\ntowpath-journal.workspace = true\ntokio.workspace = true\n");
        assert!(found(edges, "relay/Cargo.toml", &good).is_empty());
        for (name, on) in [
            ("towpath-relay", "towpath-agent"),
            ("towpath-agent", "towpath-receiver"),
            ("towpath-journal", "towpath-transport"),
            ("towpath-keys", "towpath-journal"),
            ("towpath-transfer", "towpath-keys"),
            ("towpath-relay", "towpath-testkit"),
            ("towpath-samples", "towpath-testkit"),
        ] {
            for kind in ["dependencies", "dev-dependencies", "build-dependencies", "target.'cfg(unix)'.dependencies"] {
                let bad = manifest(name, &format!("[{kind}]\n{on}.workspace = true\n"));
                assert_eq!(found(edges, "x/Cargo.toml", &bad), [6], "{name} on {on} in {kind}");
            }
        }
    }

    #[test]
    fn the_servers_are_for_tests_only() {
        for (kind, lines) in [("dev-dependencies", vec![]), ("dependencies", vec![6])] {
            let text = manifest("towpath-agent", &format!("[{kind}]\ntowpath-servers.workspace = true\n"));
            assert_eq!(found(edges, "x/Cargo.toml", &text), lines, "{kind}");
        }
    }

    #[test]
    fn a_renamed_dependency_is_still_the_same_edge() {
        let bad = manifest("towpath-keys", "[dependencies]\nlog = { package = \"towpath-journal\", workspace = true }\n");
        assert_eq!(found(edges, "keys/Cargo.toml", &bad), [6]);
    }

    #[test]
    fn a_new_room_needs_a_place() {
        assert_eq!(found(edges, "attic/Cargo.toml", &manifest("towpath-attic", "")), [1]);
    }

    #[test]
    fn every_room_named_as_a_dependency_is_a_room() {
        for (_, allowed) in ROOMS {
            assert!(allowed.iter().all(|name| ROOMS.iter().any(|(room, _)| room == name)));
        }
    }

    #[test]
    fn fenced_crates_stay_in_their_rooms() {
        let of = |name: &str, krate: &str| manifest(name, &format!("[dependencies]\n{krate}.workspace = true\n"));
        assert!(found(crates_by_room, "x/Cargo.toml", &of("towpath-keys", "rsa")).is_empty());
        assert_eq!(found(crates_by_room, "x/Cargo.toml", &of("towpath-transport", "rsa")), [6]);
        assert_eq!(found(crates_by_room, "x/Cargo.toml", &of("towpath-relay", "russh")), [6]);
        assert_eq!(found(crates_by_room, "x/Cargo.toml", &of("towpath-agent", "axum")), [6]);
        assert_eq!(found(crates_by_room, "x/Cargo.toml", &of("towpath-transfer", "sqlx")), [6]);
    }

    #[test]
    fn versions_and_lints_come_from_the_workspace() {
        let bad = "[package]\nname = \"towpath-keys\"\n[dependencies]\nring = \"0.17\"\nserde = { workspace = true }\n";
        assert_eq!(found(inheritance, "keys/Cargo.toml", bad), [4, 1]);
        assert!(found(inheritance, "keys/Cargo.toml", &manifest("towpath-keys", "")).is_empty());
    }

    #[test]
    fn every_dependency_has_a_reason() {
        let text = "[workspace.dependencies]\ntowpath-keys = { path = \"keys\" }\n\n# Runtime\ntokio = \"1\"\nbytes = \"1\"\n\nfoo = \"1\"\n\
                    bar = \"2\"   # why\nbaz = { version = \"1\", features = [\n  \"a\",\n] }\n\n[profile.dev]\nopt-level = 1\n";
        assert_eq!(found(reasons, "Cargo.toml", text), [8, 10]);
    }
}
