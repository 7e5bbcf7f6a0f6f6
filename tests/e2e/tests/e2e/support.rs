//! `support-bundle`: what helps is in it, and nothing that may not leave the host.

use std::{collections::BTreeMap, io::Read as _, os::unix::fs::PermissionsExt as _, path::Path};

use towpath_testkit::World;

use crate::executable;

/// The texts of an archive by their names.
fn unpacked(path: &Path) -> BTreeMap<String, String> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    let text = |name: &String| {
        let mut text = String::new();
        archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
        (name.clone(), text)
    };
    names.iter().map(text).collect()
}

fn secret_file(path: &Path, secret: &str) {
    std::fs::write(path, format!("{secret}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn no_secret_of_the_host_can_be_in_it() {
    let (world, end, _, relay, _receiver) = World::running(executable(), 50);
    end.send().succeeded();
    let folder = end.agent.config.parent().unwrap();
    let code = world.enrolment_code("acme", "agent", "second");
    let in_file = "canary-in-a-file \"quoted\" ä";
    let (in_clear, in_log) = ("canary-in-clear", "canary-in-a-connection-string");
    let (in_argument, of_delivery) = ("canary-of-an-alert", "canary-of-a-delivery");
    secret_file(&folder.join("erp-password"), in_file);
    let log = folder.join("agent.log");
    let key = std::fs::read_to_string(end.agent.state.join("key")).unwrap();
    let line = key.lines().nth(1).unwrap();
    std::fs::write(
        &log,
        format!(
            "login with {in_file} failed\nfound {in_clear}\nenrol {code}\nDSN=x;PWD={in_log};UID=u\n\
             a line of the key: {line}\nnothing special\n{}\n",
            serde_json::to_string(in_file).unwrap()
        ),
    )
    .unwrap();
    let before = std::fs::read_to_string(&end.agent.config).unwrap();
    end.agent.configure(&format!(
        "[network]\nproxy = \"none\"\n[log]\nfile = \"agent.log\"\n[alert]\nprogram = \"true\"\n\
         arguments = [\"--token={in_argument}\", \"{{summary}}\"]\nwebhook = \"https://alerts.example.com/canary-in-a-path\"\n\
         webhook_secret = \"env:CANARY\"\n{before}\n[[job]]\nname = \"second\"\n[job.source]\nkind = \"mariadb\"\nhost = \"127.0.0.1\"\n\
         port = 1\ndatabase = \"erp\"\nuser = \"u\"\npassword = \"file:erp-password\"\n[[job.table]]\nname = \"x\"\n[[job]]\n\
         name = \"third\"\n[job.source]\nkind = \"postgresql\"\nhost = \"127.0.0.1\"\nport = 1\ndatabase = \"erp\"\nuser = \"u\"\n\
         password = \"clear:{in_clear}\"\n[[job.table]]\nname = \"x\"\n\
         [[delivery]]\nkind = \"canary\"\nfolder = \"in\"\n[delivery.run]\nprogram = \"true\"\narguments = [\"{of_delivery}\"]\n"
    ));
    drop(relay);
    let path = world.dir.path().join("bundle.zip");
    let agent = end.agent.with("CANARY", "whsec_Y2FuYXJ5LWluLWEtdmFyaWFibGUtMjQtYnl0ZXM=");
    let made = agent.run(&["support-bundle", "--out", path.to_str().unwrap(), "--json"]).succeeded().json();
    let texts = unpacked(&path);
    let names: Vec<&str> = made["contains"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in ["README.txt", "about.json", "configuration.toml", "doctor.json", "status.json", "transfers.json", "log.txt"] {
        assert!(names.contains(&name) && !texts[name].is_empty(), "{name} is missing: {names:?}");
    }
    assert!(names.iter().any(|name| name.starts_with("transfers/")), "{names:?}");
    assert!(texts["log.txt"].contains("nothing special") && texts["doctor.json"].contains("relay"), "{texts:?}");
    let secrets = [
        "canary-in-a-file",
        "ä\"",
        in_clear,
        in_log,
        "canary-in-a-path",
        in_argument,
        of_delivery,
        "whsec_Y2Fu",
        line,
        code.as_str(),
        "PRIVATE KEY",
    ];
    for (name, text) in &texts {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret:?} is in {name}:\n{text}");
        }
    }
    assert!(texts["configuration.toml"].contains("\"{summary}\""), "{texts:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // One that is there is not replaced.
    agent.run(&["support-bundle", "--out", path.to_str().unwrap()]).failed_with("file-failed");
}

#[test]
fn it_works_where_nothing_else_does() {
    let world = World::new(executable());
    let (end, _) = world.end("broken", 1, 1);
    end.agent.configure("this is = no configuration [\npassword = \"canary\"\n");
    let path = world.dir.path().join("bundle.zip");
    end.agent.run(&["support-bundle", "--offline", "--out", path.to_str().unwrap()]).succeeded();
    let texts = unpacked(&path);
    assert!(texts["configuration.toml"].contains("config-invalid"), "{texts:?}");
    assert!(texts["status.json"].contains("not-enrolled"), "{texts:?}");
}
