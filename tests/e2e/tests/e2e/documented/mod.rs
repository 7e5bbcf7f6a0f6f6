//! Every command that the pages show is run on a real installation, in the order of its page, and its output is compared with what
//! stands there. What cannot be run here is named with the reason, and with the test that runs it.

mod installation;
pub(crate) mod page;

use std::collections::BTreeSet;

use towpath_samples::erp::{self, TouchOptions};
use towpath_testkit::eventually;

use self::installation::Installation;

/// A command of a page that is run by another test.
struct Elsewhere {
    /// As the page shows it.
    command: &'static str,
    /// Why it is not run here.
    because: &'static str,
    /// The file of that test, and what stands there.
    test: (&'static str, &'static str),
}

const SYSTEMD: &str = "it needs systemd, and root";
const SERVICE: (&str, &str) =
    ("tests/e2e/tests/e2e/systemd/handbook.rs", "fn interop_the_commands_of_the_handbook_do_what_it_says");
const FIELDS: (&str, &str) = ("host/src/logs/journald.rs", "\"TOWPATH_CODE\"");

const PACKAGED: &str = "it needs packages, and a maker who signs them";
const UPDATES: &str = "tests/e2e/tests/e2e/updates.rs";

const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere {
        command: "cargo run --release --bin towpath-demo",
        because: "it builds everything first",
        test: (".ci/run", "/towpath-demo\" --exit"),
    },
    Elsewhere { command: "cargo xtask test", because: "it runs this test", test: (".ci/run", "cargo xtask test") },
    Elsewhere {
        command: "towpath-agent init",
        because: "it asks a person",
        test: (
            "tests/e2e/tests/e2e/setting_up.rs",
            "fn a_person_at_a_terminal_gets_to_the_first_import_and_every_wrong_answer_is_asked_again",
        ),
    },
    Elsewhere {
        command: "towpath-agent init --answers answers.toml --code - < code.txt",
        because: "it installs the service",
        test: ("tests/e2e/tests/e2e/setting_up.rs", "fn an_answers_file_needs_nobody"),
    },
    Elsewhere { command: "towpath-agent update check", because: PACKAGED, test: (UPDATES, "towpath-agent update check --json") },
    Elsewhere {
        command: "towpath-agent update download",
        because: PACKAGED,
        test: (UPDATES, "towpath-agent update download --json"),
    },
    Elsewhere {
        command: "TOWPATH_RELEASE_KEYS=\"$(cat release_key.pub)\" cargo xtask package --out release --follows 1.3.0",
        because: "it builds everything for a release",
        test: ("xtask/src/package/mod.rs", "follows"),
    },
    Elsewhere {
        command: "ssh-keygen -Y sign -f release_key -n towpath-release@1 release/release.json",
        because: PACKAGED,
        test: ("tests/e2e/tests/e2e/maker.rs", "\"sign\", \"-n\", \"towpath-release@1\""),
    },
    Elsewhere {
        command: "towpath-relay release add /srv/release",
        because: PACKAGED,
        test: (UPDATES, "towpath-relay release add /srv/release"),
    },
    Elsewhere {
        command: "towpath-relay release approve 1.4.0 --ring 1",
        because: PACKAGED,
        test: (UPDATES, "towpath-relay release approve {version} --ring 1"),
    },
    Elsewhere { command: "towpath-agent service install --now", because: SYSTEMD, test: SERVICE },
    Elsewhere { command: "usermod -aG erp towpath", because: SYSTEMD, test: SERVICE },
    Elsewhere { command: "towpath-agent service restart", because: SYSTEMD, test: SERVICE },
    Elsewhere { command: "towpath-agent service status", because: SYSTEMD, test: SERVICE },
    Elsewhere { command: "towpath-agent service status --json", because: SYSTEMD, test: SERVICE },
    Elsewhere { command: "towpath-agent service stop", because: SYSTEMD, test: SERVICE },
    Elsewhere { command: "towpath-agent service start", because: SYSTEMD, test: SERVICE },
    Elsewhere { command: "towpath-agent service uninstall", because: SYSTEMD, test: SERVICE },
    Elsewhere { command: "systemctl reload towpath-agent", because: SYSTEMD, test: SERVICE },
    Elsewhere { command: "journalctl -u towpath-agent -f", because: SYSTEMD, test: SERVICE },
    Elsewhere { command: "journalctl -u towpath-agent -p warning", because: SYSTEMD, test: FIELDS },
    Elsewhere { command: "journalctl TOWPATH_CODE=disk-full", because: SYSTEMD, test: FIELDS },
    Elsewhere { command: "journalctl -u towpath-agent -o json", because: SYSTEMD, test: FIELDS },
    Elsewhere {
        command: "towpath-agent extract --profile tryton --check",
        because: "it needs a Tryton",
        test: ("agent/tests/cmd/profile.trycmd", "extract --profile tryton --check"),
    },
    Elsewhere {
        command: "towpath-agent extract --profile business-central --parameter company=ACME --check --json",
        because: "it needs a Business Central",
        test: ("agent/tests/cmd/profile.trycmd", "extract --profile business-central --check"),
    },
];

/// Runs a page from its beginning to its end. `before` is told of each command before it is run, also of those that are not run here,
/// and does what the page says in words.
#[track_caller]
fn holds(page: &str, mut installed: Installation, before: impl Fn(&mut Installation, &str)) {
    let shown = page::commands(page);
    assert!(shown.len() > 5, "{page} shows {} commands", shown.len());
    let mut wrong = String::new();
    for one in shown {
        before(&mut installed, &one.command);
        let came_of_it = match ELSEWHERE.iter().find(|elsewhere| elsewhere.command == one.command) {
            Some(_) => Ok(()),
            None => installed.run(&one.command, &one.output),
        };
        if let Err(error) = came_of_it {
            wrong.push_str(&format!("\n{page}:{}: $ {}\n{error}\n", one.line, one.command));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_readme() {
    let installed = Installation::bare();
    let config = std::fs::read_to_string(&installed.world.relay.config).unwrap();
    holds("README.md", installed, |installed, command| match command {
        // The example was printed there, and has to be changed.
        "towpath-relay config check" => installed.world.relay.configure(&config),
        "towpath-agent config check" => installed.configure_agent(),
        "towpath-agent send --wait" => {
            installed.end.approve_agent();
            installed.end.approve_receiver();
        }
        "towpath-agent service install --now" => installed.serve_agent(),
        "towpath-receiver send orders.csv --kind recommended-orders --wait" => {
            std::fs::write(installed.folder.join("orders.csv"), "item,quantity\r\n1,2\r\n").unwrap();
        }
        "towpath-receiver receipts verify" => assert!(installed.delivered().join("orders.csv").exists()),
        _ => {}
    });
}

#[test]
fn the_handbook() {
    holds("docs/agent.md", Installation::at_work(), |installed, command| match command {
        "towpath-agent reload" => installed.serve_agent(),
        "towpath-agent doctor" => {
            std::fs::remove_dir(installed.delivered()).unwrap();
        }
        _ if command.starts_with("towpath-agent diff ") => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(erp::touch(&installed.end.erp, &TouchOptions::default())).unwrap();
            installed.end.send().succeeded();
        }
        _ => {}
    });
}

#[test]
fn operations() {
    holds("docs/operations.md", Installation::at_work(), |installed, command| {
        if command == "towpath-relay key switch host" {
            eventually("every end has pinned the next key", || {
                installed.end.send().succeeded();
                let keys = installed.world.relay.run(&["key", "list", "--json"]).succeeded().json();
                let ends = keys["ends"].as_array().unwrap();
                ends.iter().all(|end| end["behind"].as_array().unwrap().is_empty()).then_some(())
            });
        }
    });
}

#[test]
fn whatever_is_not_run_here_is_on_a_page_and_run_elsewhere() {
    let shown: Vec<String> = ["README.md", "docs/agent.md", "docs/operations.md"]
        .iter()
        .flat_map(|page| page::commands(page))
        .map(|one| one.command)
        .collect();
    for Elsewhere { command, because, test: (file, there) } in ELSEWHERE {
        assert!(shown.iter().any(|one| one == command), "no page shows {command} any more ({because})");
        let text = std::fs::read_to_string(page::path(file)).unwrap();
        assert!(text.contains(there), "{file} has no {there:?}, which tries {command} ({because})");
    }
}

#[test]
fn every_command_that_a_page_names_exists() {
    let (installed, pages) = (Installation::bare(), page::all());
    let (mut wrong, mut seen) = (String::new(), BTreeSet::new());
    for page in &pages {
        for (line, command) in page::named(page) {
            if let (true, Err(error)) = (seen.insert(command.clone()), installed.exists(&command)) {
                wrong.push_str(&format!("\n{page}:{line}: `{command}`: {error}\n"));
            }
        }
    }
    assert!(pages.len() > 50 && seen.len() > 100, "{} commands on {} pages", seen.len(), pages.len());
    assert!(wrong.is_empty(), "{wrong}");
}
