//! Rules over words: which crate is named in which folder, who touches the edge of the process, and words that are not used.

use super::{
    Finding,
    tree::{File, Tree, words},
};

/// Crates, as code names them, and the only places whose product code may.
const CRATES: &[(&str, &[&str])] = &[
    ("russh", &["transport/", "keys/"]),
    ("russh_sftp", &["transport/", "keys/"]),
    ("ssh_key", &["transport/", "keys/"]),
    ("rsa", &["keys/"]),
    (
        "sqlx",
        &[
            "journal/",
            "relay/src/registry.rs",
            "relay/src/registry/",
            "agent/src/extract.rs",
            "agent/src/extract/",
            "agent/src/downlink/action/load/",
            "receiver/src/import.rs",
            "receiver/src/import/",
            "receiver/src/uplink/import.rs",
            "receiver/src/uplink/import/",
            "receiver/src/ledger.rs",
            "receiver/src/ledger/",
            "samples/",
            "tests/",
        ],
    ),
    ("odbc_api", &["agent/src/extract/source/odbc/"]),
    ("axum", &["relay/src/api.rs", "relay/src/api/", "relay/src/dashboard.rs", "relay/src/dashboard/"]),
    ("utoipa", &["relay/src/api.rs", "relay/src/api/", "relay/src/dashboard.rs", "relay/src/dashboard/", "transfer/"]),
];

/// The only places that print, exit or read the command line, beside tests, examples and build scripts.
const EDGES: &[&str] = &[
    "agent/src/main.rs",
    "host/src/output.rs",
    "host/src/program.rs",
    "journal/src/failpoints.rs",
    "agent/src/cli.rs",
    "agent/src/cli/",
    "relay/src/main.rs",
    "relay/src/cli.rs",
    "relay/src/cli/",
    "receiver/src/main.rs",
    "receiver/src/cli.rs",
    "receiver/src/cli/",
    "samples/",
    "tests/",
    "xtask/",
];

/// The rules must spell the words that they forbid.
const SPELLED_HERE: &[&str] = &["xtask/src/tidy/"];

/// Rule `crates`, over code: a fenced crate is named in its folder only.
pub(crate) fn crates_by_folder(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for (name, places) in CRATES.iter().filter(|(_, places)| !file.is_in(places)) {
            for (line, _) in file.product_code().filter(|(_, code)| names_crate(code, name)) {
                let advice = format!("only {} may name {name}: call through what they offer", places.join(", "));
                findings.push(Finding::new(&file.path, line, "crates", advice));
            }
        }
    }
    findings
}

/// Whether code uses a path that begins with this crate. `crate::rsa::x` and `key.rsa()` do not.
fn names_crate(code: &str, name: &str) -> bool {
    words(code, name).any(|at| {
        let (before, after) = code.split_at(at);
        let after = after.strip_prefix(name).unwrap_or_default().trim_start();
        let before = before.trim_end();
        let outer = before.strip_suffix("::").map_or(before, str::trim_end);
        let is_segment = outer.len() < before.len() && outer.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>');
        let whole = after.starts_with(';') || after.starts_with("as ");
        !is_segment && (after.starts_with("::") || (whole && (outer.ends_with("use") || outer.ends_with("crate"))))
    })
}

/// Rule `edge`: only `main` and `cli` print, exit or read the command line.
pub(crate) fn edge_of_the_process(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let inner = |file: &&File| !file.is_in(EDGES) && !file.path.contains("/examples/") && file.name() != "build.rs";
    for file in tree.rust().filter(inner) {
        for (line, code) in file.product_code() {
            let prints = ["println", "eprintln", "print", "eprint"].iter().any(|word| calls(code, word, "!"));
            let exits = calls(code, "process::exit", "(") || calls(code, "process::abort", "(");
            let reads = calls(code, "env::args", "(") || calls(code, "env::args_os", "(");
            if prints || exits || reads {
                let advice = "only main.rs and cli/ print, exit or read the command line: return a value, or log with tracing";
                findings.push(Finding::new(&file.path, line, "edge", advice));
            }
        }
    }
    findings
}

fn calls(code: &str, word: &str, mark: &str) -> bool {
    words(code, word).any(|at| code.split_at(at).1.strip_prefix(word).is_some_and(|rest| rest.starts_with(mark)))
}

/// The only places whose product code may hand work to a thread of the runtime by itself: one is how it is done, and what the others
/// do is not in the simulation.
const THREADS: &[&str] = &[
    "transport/src/files.rs",
    "alert/",
    "agent/src/alert/",
    "agent/src/cli/",
    "agent/src/extract/table.rs",
    "agent/src/extract/source/",
    "tests/",
];

/// Rule `threads`: work that blocks goes through the functions that a simulation can make wait.
pub(crate) fn blocking_work(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.is_in(THREADS)) {
        for (line, _) in file.product_code().filter(|(_, code)| calls(code, "spawn_blocking", "(")) {
            let advice = "call towpath_transport::files::blocking, so that the simulation is the same every time";
            findings.push(Finding::new(&file.path, line, "threads", advice));
        }
    }
    findings
}

/// Rule `unfinished`: what is committed is done. No placeholders, no notes to self, no tests that are switched off.
pub(crate) fn unfinished(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for (line, code) in file.code() {
            if calls(code, "todo", "!") || calls(code, "unimplemented", "!") {
                findings.push(Finding::new(&file.path, line, "unfinished", "write the code, or leave the function out"));
            }
            if code.contains("#[ignore") || (code.contains("cfg_attr") && words(code, "ignore").next().is_some()) {
                let advice = "a test runs or is not there: name a slow one `long_…`, which `--long` adds";
                findings.push(Finding::new(&file.path, line, "unfinished", advice));
            }
        }
    }
    for (file, line, text) in prose(tree) {
        if ["TODO", "FIXME", "XXX"].iter().any(|word| words(&text, word).next().is_some()) {
            findings.push(Finding::new(&file.path, line, "unfinished", "do it, or open an issue and remove the note"));
        }
    }
    findings
}

/// Rule `allow`: a lint is lifted by `expect` with a reason, so that it comes back when it is needed no more.
pub(crate) fn no_allow(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        for (line, code) in file.code() {
            let lifted = words(code, "allow").any(|at| {
                let (before, after) = code.split_at(at);
                let attribute = before.ends_with("#[") || before.ends_with("#![") || before.contains("cfg_attr(");
                attribute && after.starts_with("allow(")
            });
            if lifted {
                findings.push(Finding::new(&file.path, line, "allow", "write `#[expect(lint, reason = \"…\")]`"));
            }
        }
    }
    findings
}

/// Rule `direction`: the two ways of the data are called uplink and downlink on every machine.
pub(crate) fn directions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, line, text) in everything(tree) {
        let text = text.to_ascii_lowercase();
        if text.contains("inbound") || text.contains("outbound") {
            let advice = "say uplink (ERP to app) or downlink (app to ERP)";
            findings.push(Finding::new(&file.path, line, "direction", advice));
        }
    }
    findings
}

/// Rule `paths`: nothing here depends on one machine, or on what lies beside the checkout.
pub(crate) fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, line, text) in everything(tree) {
        if ["/work/", "/root/", "/home/"].iter().any(|path| begins_a_path(&text, path)) {
            findings.push(Finding::new(
                &file.path,
                line,
                "paths",
                "this is a path of one machine: use a relative or temporary one",
            ));
        }
        if text.contains("../shared") && file.path != ".ci/run" {
            findings.push(Finding::new(
                &file.path,
                line,
                "paths",
                "only .ci/run may look beside the checkout, and only if it is there",
            ));
        }
    }
    findings
}

/// `/home/` at the start of a path, not in the middle of one.
fn begins_a_path(text: &str, path: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '}' | ')' | '>' | '*' | '~');
    text.match_indices(path).any(|(at, _)| !text.split_at(at).0.ends_with(inside))
}

/// Every line of every text file but those that spell the rules.
fn everything(tree: &Tree) -> impl Iterator<Item = (&File, usize, String)> {
    tree.files()
        .filter(|file| !file.is_in(SPELLED_HERE))
        .flat_map(|file| file.lines().map(move |(line, text)| (file, line, text.to_owned())))
}

/// Lines that people write to people: comments of Rust code, and all of the other files, without `code` spans.
fn prose(tree: &Tree) -> impl Iterator<Item = (&File, usize, String)> {
    let of = |file: &File| -> Vec<(usize, String)> {
        let own = |(line, text): (usize, &str)| (line, without_code_spans(text));
        if file.path.ends_with(".rs") { file.comments().map(own).collect() } else { file.lines().map(own).collect() }
    };
    tree.files()
        .filter(|file| file.name() != "Cargo.lock")
        .flat_map(move |file| of(file).into_iter().map(move |(line, text)| (file, line, text)))
}

fn without_code_spans(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Tree::of(&[(path, text)])).into_iter().map(|f| f.line).collect()
    }

    #[test]
    fn a_crate_is_named_where_it_belongs_only() {
        for (path, text) in [
            ("relay/src/sftpd.rs", "use russh::server;\n"),
            ("agent/src/uplink/push.rs", "fn f() { ::russh_sftp::x() }\n"),
            ("transport/src/a.rs", "use {rsa::RsaPrivateKey};\n"),
            ("relay/src/spool.rs", "use sqlx as db;\n"),
            ("relay/src/registry_x.rs", "sqlx::query(\"\")\n"),
            ("agent/src/lib.rs", "extern crate ssh_key;\n"),
            ("relay/src/serve.rs", "axum::serve(a, b);\n"),
            ("journal/src/lib.rs", "#[derive(utoipa::ToSchema)]\n"),
        ] {
            assert_eq!(found(crates_by_folder, path, text), [1], "{path}: {text}");
        }
        for (path, text) in [
            ("keys/src/a.rs", "use rsa::RsaPrivateKey; use russh::keys;\n"),
            ("relay/src/registry/sql.rs", "use sqlx::Row;\n"),
            ("relay/src/registry.rs", "use sqlx::Row;\n"),
            ("relay/src/api/mod.rs", "use axum::Router;\n"),
            ("transfer/src/api.rs", "#[derive(utoipa::ToSchema)]\n"),
            (
                "relay/src/a.rs",
                "// russh::server does this\nlet a = \"sqlx::x\"; crate::rsa::b(); key.rsa(); Kind::<T>::rsa::c();\n",
            ),
            ("relay/src/b.rs", "fn b() {}\n\n#[cfg(test)]\nmod tests {\n    use sqlx::Row;\n}\n"),
            ("relay/tests/c.rs", "use sqlx::Row;\n"),
        ] {
            assert_eq!(found(crates_by_folder, path, text), [0_usize; 0], "{path}: {text}");
        }
    }

    #[test]
    fn blocking_work_goes_one_way() {
        let text = "tokio::task::spawn_blocking(work).await\n";
        for place in ["relay/src/spool/mod.rs", "agent/src/uplink/pack.rs", "transport/src/server/a.rs"] {
            assert_eq!(found(blocking_work, place, text), [1], "{place}");
        }
        for place in ["transport/src/files.rs", "agent/src/cli/init/dialog.rs", "tests/simulation/src/still.rs"] {
            assert_eq!(found(blocking_work, place, text), [0_usize; 0], "{place}");
        }
    }

    #[test]
    fn only_the_edge_prints_exits_and_reads_arguments() {
        for call in [
            "println!(\"x\")",
            "eprint!(\"x\")",
            "std::process::exit(1)",
            "process::exit(1)",
            "std::env::args()",
            "env::args_os()",
        ] {
            let text = format!("fn f() {{ {call}; }}\n");
            assert_eq!(found(edge_of_the_process, "agent/src/uplink/push.rs", &text), [1], "{call}");
            assert_eq!(found(edge_of_the_process, "transfer/src/id.rs", &text), [1], "{call}");
            for place in
                ["agent/src/main.rs", "relay/src/cli/tenant.rs", "samples/src/demo.rs", "xtask/src/x.rs", "keys/examples/a.rs"]
            {
                assert_eq!(found(edge_of_the_process, place, &text), [0_usize; 0], "{place}");
            }
        }
        let quiet = "fn f() { self.exit(1); writeln!(out, \"println!\"); env::args_of(); } // println!()\n";
        assert!(found(edge_of_the_process, "agent/src/a.rs", quiet).is_empty());
    }

    #[test]
    fn nothing_is_left_unfinished() {
        let text = "fn a() { todo!() }\nfn b() { unimplemented!(\"c\") }\n// TODO: c\n#[ignore = \"slow\"]\n#[cfg_attr(windows, ignore)]\n";
        assert_eq!(found(unfinished, "a/src/a.rs", text), [1, 2, 4, 5, 3]);
        assert_eq!(found(unfinished, "README.md", "a FIXME b\nthe word `TODO` is fine\nXXX\n"), [1, 3]);
        assert!(found(unfinished, "a/src/a.rs", "let todo = \"TODO\"; // a mastodon, XXXL, todo\n").is_empty());
    }

    #[test]
    fn lints_are_lifted_with_expect() {
        let text = "#[allow(dead_code)]\n#![allow(x)]\n#[cfg_attr(windows, allow(y))]\n#[expect(z, reason = \"allow(me)\")]\nself.allow(1);\n";
        assert_eq!(found(no_allow, "a/src/a.rs", text), [1, 2, 3]);
    }

    #[test]
    fn directions_have_one_name() {
        assert_eq!(found(directions, "a/src/a.rs", "let inbound_queue = 1;\n// uplink\nOutboundPath\n"), [1, 3]);
        assert_eq!(found(directions, "docs/a.md", "unbound, boundless\nInbound files\n"), [2]);
    }

    #[test]
    fn no_machine_has_a_place_here() {
        let text = "cd /root/x\n\"/home/me/a\"\nhttps://example.org/work/a\ndata/home/b\n(/work/c)\n../shared/tool\n";
        assert_eq!(found(machine_paths, "a/run.sh", text), [1, 2, 5, 6]);
        assert_eq!(found(machine_paths, ".ci/run", "[ -d ../shared ] && true\n"), [0_usize; 0]);
    }
}
