//! The command line as files: what is typed, and what is said; and what a file cannot say.

use std::{fs, process::Command};

#[test]
fn commands_say_what_their_files_say() {
    // Files of one folder run beside each other; those that would see what another makes have a folder of their own.
    for files in ["tests/cmd/*.trycmd", "tests/cmd/codes/*.trycmd"] {
        // A state folder of the test's own, so that nothing is left behind.
        let state = tempfile::tempdir().unwrap();
        let cases = trycmd::TestCases::new();
        cases.env("TOWPATH_STATE", state.path().to_str().unwrap()).case(files);
    }
}

#[test]
fn the_check_of_the_configuration_loads_the_certificate_as_the_service_does() {
    let folder = tempfile::tempdir().unwrap();
    // What the check of a configuration with these files says: its exit status, and both outputs.
    let checked = |certificate: &str, key: &str, json: bool| {
        let [config, certificate, key, state] = ["relay.toml", certificate, key, "state"].map(|name| folder.path().join(name));
        fs::write(&config, format!("[tls]\ncertificate = '{}'\nkey = '{}'\n", certificate.display(), key.display())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-relay"));
        command.arg("--config").arg(config).arg("--state").arg(state).args(["config", "check"]).args(json.then_some("--json"));
        let done = command.output().unwrap();
        (done.status.code(), String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap())
    };
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2199, 12, 31);
    write("relay.crt", &params.self_signed(&key).unwrap().pem());
    write("relay.key", &key.serialize_pem());
    write("other.key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    write("nothing", "nothing\n");
    fs::create_dir(folder.path().join("folder")).unwrap();

    let (status, said) = checked("relay.crt", "relay.key", false);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("relay.crt is good until 2199-12-31T00:00:00Z, ") && said.contains(" days from now"), "{said}");
    let (status, said) = checked("relay.crt", "relay.key", true);
    assert!(status == Some(0) && said.contains("\"good_until\": \"2199-12-31T00:00:00Z\""), "{said}");
    for (certificate, key, code, named) in [
        ("none.crt", "relay.key", "[key-missing]", "none.crt"),
        ("relay.crt", "none.key", "[key-missing]", "none.key"),
        ("nothing", "relay.key", "[key-invalid]", "nothing cannot be used for TLS"),
        ("relay.crt", "nothing", "[key-invalid]", "nothing cannot be used for TLS"),
        ("relay.crt", "other.key", "[key-invalid]", "relay.crt cannot be used for TLS"),
        ("folder", "relay.key", "[file-failed]", "folder"),
    ] {
        let (status, said) = checked(certificate, key, false);
        assert!(status == Some(1) && said.contains(code) && said.contains(named), "{certificate}, {key}: {said}");
    }
    assert!(!folder.path().join("state").exists(), "a check makes nothing");
}

#[test]
fn a_port_that_is_taken_is_told_with_how_to_find_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, free) = (&*other.local_addr().unwrap().to_string(), "127.0.0.1:0");
    for (listen, admin, setting) in [(taken, free, "[relay] listen"), (free, taken, "[relay] admin")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towpath-relay"));
        command.arg("--state").arg(folder.path()).args(["serve", "--listen", listen, "--admin", admin]);
        let done = command.output().unwrap();
        let said = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(1), "{said}");
        for word in [&*format!("listening on {taken} failed"), "ss -ltnp", setting, "[config-invalid]"] {
            assert!(said.contains(word), "{word}: {said}");
        }
    }
}
