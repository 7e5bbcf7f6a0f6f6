//! `init`: from nothing to the first imported transfer, by questions and by answers given beforehand.

use towpath_samples::erp;
use towpath_servers::{PASSWORD, Postgres, READER};
use towpath_testkit::{AGENT, End, Program, RECEIVER, Server, TENANT, Terminal, World, assert_same_tables, query_text};

use crate::{executable, tables};

/// A relay and a receiver that run, and an agent's host on which nothing was done yet.
fn fresh() -> (World, End, Server, Server) {
    let world = World::new(executable());
    let (end, _) = world.end(TENANT, 300, 1);
    std::fs::remove_file(&end.agent.config).unwrap();
    let relay = world.serve_relay();
    world.create_tenant(TENANT);
    let code = world.enrolment_code(TENANT, "receiver", RECEIVER);
    let landing = format!("127.0.0.1:{}", end.port);
    end.receiver.run(&["enrol", &code, "--landing", &landing]).succeeded();
    let receiver = end.receiver.serve(&["serve"]);
    (world, end, relay, receiver)
}

fn fingerprint(program: &Program) -> String {
    program.run(&["status", "--json"]).succeeded().json()["fingerprint"].as_str().unwrap().to_owned()
}

#[test]
fn a_person_at_a_terminal_gets_to_the_first_import_and_every_wrong_answer_is_asked_again() {
    let (world, end, _relay, _receiver) = fresh();
    let code = world.enrolment_code(TENANT, "agent", AGENT);
    let mut person = Terminal::start(&end.agent, &["init", "--no-service"]);
    person.expect("Enrolment code").answer("towpath1-typo");
    person.expect("[enrolment-code-invalid]").expect("Enrolment code").answer(&code);
    person.expect("enrolled as erp of tenant acme").expect("exactly this key").answer("y").expect("is approved");
    person.expect("Where does the ERP").answer("9").expect("a number from 1 to 5").answer("3");
    person.expect("The database file").answer("/nowhere/erp.sqlite").expect("[erp-missing]");
    // Only the path is asked for again, unless the kind is the wrong one.
    person.expect("The database file, or `other`").answer("other").expect("Where does the ERP").answer("5");
    person.expect("CSV files").answer("/nowhere").expect("CSV files, or `other`").answer("other");
    person.expect("Where does the ERP").answer("3").expect("The database file").answer("/nowhere/erp.sqlite");
    person.expect("The database file, or `other`").answer(end.erp.to_str().unwrap());
    person.expect("Which tables").answer("no_such_table").expect("there is no table no_such_table").answer("*");
    person.expect("When is it sent").answer("25:00").expect("is no time of day").expect("When is it sent").answer("");
    person.expect("BYTES TO SEND").expect("written: ").expect("Send the first transfer now?");
    // The receiver's operator approves while the person waits.
    end.approve_agent();
    person.answer("y").expect("imported").expect("agent erp of tenant acme is set up");
    assert!(person.ends().success(), "{}", person.screen());
    assert_same_tables(&end.erp, &end.app(), &tables());
    assert!(!end.agent.state.join("work/dry-run").exists());

    // Again: everything is kept, nothing is asked but whether to send.
    let before = std::fs::read(&end.agent.config).unwrap();
    let mut again = Terminal::start(&end.agent, &["init", "--no-service", "--no-send"]);
    again.expect("is there, and stays as it is").expect("enrolled already").expect("is approved: ");
    again.expect("is set up");
    assert!(again.ends().success(), "{}", again.screen());
    assert_eq!(std::fs::read(&end.agent.config).unwrap(), before);
}

#[test]
fn a_password_that_is_typed_is_kept_by_its_owner_alone_and_never_shown() {
    let (world, end, _relay, _receiver) = fresh();
    let server = Postgres::get();
    let database = server.database();
    database.run("CREATE TABLE items (id int PRIMARY KEY, name text)");
    database.run("INSERT INTO items VALUES (1, 'a'), (2, 'b')");
    database.run(&format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {READER}"));
    let code = world.enrolment_code(TENANT, "agent", AGENT);
    let port = database.port.to_string();
    let arguments =
        ["init", "--code", &code, "--source", "postgresql", "--host", &database.host, "--port", &port, "--no-service"];
    let mut person = Terminal::start(&end.agent, &arguments);
    person.expect("exactly this key").answer("n");
    person.expect("Database").answer(&database.name).expect("Login").answer(READER).expect("Its password").answer(PASSWORD);
    person.expect("readable by its owner alone").expect("1 table").expect("Which tables").answer("");
    person.expect("When is it sent").answer("none").expect("items").expect("written: ").expect("is set up");
    assert!(person.ends().success(), "{}", person.screen());
    let kept = end.agent.config.parent().unwrap().join("erp-password");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), PASSWORD);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&end.agent.config).unwrap();
    assert!(!person.screen().contains(PASSWORD) && !text.contains(PASSWORD), "{text}\n{}", person.screen());
}

#[test]
fn an_answers_file_needs_nobody() {
    let (world, end, _relay, _receiver) = fresh();
    let folder = end.agent.config.parent().unwrap();
    let missing = end.agent.run(&["init", "--source", "sqlite"]).failed_with("config-invalid");
    assert!(missing.stderr.contains("--code, --path, --profile or --table"), "{}", missing.stderr);
    let answers = folder.join("answers.toml");
    let receiver = fingerprint(&end.receiver);
    let tables = erp::TABLES.iter().map(|table| format!("{table:?}")).collect::<Vec<_>>().join(", ");
    std::fs::write(
        &answers,
        format!(
            "receiver = \"{receiver}\"\nsource = \"sqlite\"\npath = '{}'\ntables = [{tables}]\nschedule = \"30 5 * * mon-fri\"\n\
             time_zone = \"Europe/Berlin\"\nservice = false\n",
            end.erp.display()
        ),
    )
    .unwrap();
    let code = world.enrolment_code(TENANT, "agent", AGENT);
    let done = end.agent.run(&["init", "--answers", answers.to_str().unwrap(), "--code", &code, "--json"]).succeeded().json();
    assert_eq!((done["receiver"].as_str(), done["sent"].as_bool()), (Some(RECEIVER), Some(false)), "{done}");
    let read = done["tables"].as_array().unwrap();
    assert_eq!(read.len(), erp::TABLES.len(), "{done}");
    for table in read {
        let counted = query_text(&end.erp, &format!("SELECT count(*) FROM \"{}\"", table["table"].as_str().unwrap()));
        assert_eq!(table["rows"].to_string(), counted, "{table}");
    }
    end.approve_agent();
    end.agent.run(&["send", "--wait"]).succeeded();
    assert_same_tables(&end.erp, &end.app(), &crate::tables());
    let schedule = end.agent.run(&["schedule", "--json"]).succeeded().stdout;
    assert!(schedule.contains("Europe/Berlin"), "{schedule}");
}
