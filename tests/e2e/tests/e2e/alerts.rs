//! Alerts of the agent: a source that fails is told of once, to a program and to a webhook, whatever follows, and once more when a run
//! succeeds again.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use towpath_testkit::{End, JOB, Posted, TENANT, TellingProgram, WebhookListener, World, eventually};

use crate::executable;

/// The bytes of the webhook's secret, and the same in base64.
const SECRET: &str = "an alert that is signed by 32 by";
const SECRET_BASE64: &str = "YW4gYWxlcnQgdGhhdCBpcyBzaWduZWQgYnkgMzIgYnk=";

/// What `webhook-signature` must be as Standard Webhooks has it, computed by openssl.
fn signature(posted: &Posted) -> String {
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    let sign = "openssl dgst -sha256 -mac HMAC -macopt \"hexkey:$1\" -binary | openssl base64 -A";
    let mut openssl = Command::new("sh");
    openssl.args(["-c", sign, "sign", &hex]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut openssl = openssl.spawn().unwrap();
    let signed = [posted.header("webhook-id"), ".", posted.header("webhook-timestamp"), "."].concat();
    let mut input = openssl.stdin.take().unwrap();
    input.write_all(signed.as_bytes()).unwrap();
    input.write_all(&posted.body).unwrap();
    drop(input);
    let output = openssl.wait_with_output().unwrap();
    assert!(output.status.success());
    format!("v1,{}", String::from_utf8(output.stdout).unwrap())
}

/// Whoever is told.
struct Told {
    program: TellingProgram,
    webhook: WebhookListener,
}

/// Waits until `status` shows an open alert of which this is true and which everybody was told of.
fn open_alert(end: &End, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("status shows {what}"), || {
        let status = end.agent.run(&["status", "--json"]).succeeded().json();
        let alerts = status["alerts"].as_array().unwrap();
        assert!(alerts.len() <= 1, "{status:#}");
        alerts.first().filter(|alert| alert["told"] == true && is_it(alert)).cloned()
    })
}

/// Sends the job, which fails for good; the transfer.
fn fails(end: &End) -> String {
    let sent = end.agent.run(&["send", "--job", JOB, "--json"]).failed_with("erp-query").json();
    sent["transfers"][0]["transfer"].as_str().unwrap().to_owned()
}

#[test]
fn a_failing_source_is_told_of_once_and_so_is_its_recovery() {
    let (_world, end, _, _relay, _receiver) = World::running(executable(), 50);
    let folder = end.agent.config.parent().unwrap();
    let told = Told { program: TellingProgram::new(folder), webhook: WebhookListener::start() };
    let config = std::fs::read_to_string(&end.agent.config).unwrap().replace("schedule = \"02:00\"\n", "");
    let with = |webhook: &str| {
        let program = told.program.toml();
        let secret = format!("webhook_secret = \"clear:whsec_{SECRET_BASE64}\"\n");
        format!("[alert]\n{program}webhook = \"{webhook}\"\n{secret}late_after = \"1s\"\n{config}")
    };

    // Before anything is wrong: a way that works, and one on which nobody listens.
    end.agent.configure(&with("http://127.0.0.1:1/towpath"));
    let tried = end.agent.run(&["alert", "test"]).failed_with("alert-failed");
    assert!(
        tried.stdout.starts_with("program: told\nwebhook: failed: telling http://127.0.0.1:1: it is not reached"),
        "{tried:?}"
    );
    end.agent.configure(&with(&told.webhook.url("/towpath?to=us")));
    assert_eq!(end.agent.run(&["alert", "test"]).succeeded().stdout, "program: told\nwebhook: told");
    let tried = end.agent.run(&["alert", "test", "--json"]).succeeded().json();
    let way = |way: &str| json!({"way": way, "result": "told", "error": null});
    assert_eq!(tried, json!([way("program"), way("webhook")]));
    assert_eq!(told.program.heard().iter().map(|(said, _)| said.as_str()).collect::<Vec<_>>(), ["test  alert-failed"; 3]);
    assert_eq!(told.webhook.heard().len(), 2);

    // The ERP's file is taken away: one alert, with the first transfer that fails.
    let aside = end.erp.with_extension("aside");
    std::fs::rename(&end.erp, &aside).unwrap();
    let service = end.run();
    assert!(!end.agent.run(&["send", "--job", JOB, "--timeout", "1s"]).status.success());
    let alert = open_alert(&end, "the alert", |alert| alert["code"] == "erp-missing");
    let open = end.agent.run(&["status", "--json"]).succeeded().json()["jobs"][0]["open"].clone();
    assert_eq!((&alert["job"], &alert["transfer"]), (&json!(JOB), &open["transfer"]), "{alert:#}");
    let first = open["transfer"].as_str().unwrap();

    // Something else is put in its place: further runs fail, with transfers of their own, and the alert follows them silently.
    std::fs::write(&end.erp, "this is no database\n".repeat(100)).unwrap();
    for _ in 0..2 {
        let newest = fails(&end);
        open_alert(&end, "the newest transfer", |alert| alert["transfer"] == newest.as_str() && alert["code"] == "erp-query");
    }

    // A restart in between, and one more run that fails, which the new process has looked at.
    service.kill();
    let service = end.run();
    let newest = fails(&end);
    assert_ne!(newest, first);
    open_alert(&end, "the newest transfer", |alert| alert["transfer"] == newest.as_str());

    // All is well again: the run succeeds, the alert is over, and nothing is owed to anybody.
    std::fs::rename(&aside, &end.erp).unwrap();
    end.send().succeeded();
    eventually("the alert is over", || {
        let kept = std::fs::read(end.agent.state.join("alerts.json")).unwrap();
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        kept["alerts"].as_object().unwrap().is_empty().then_some(())
    });
    assert_eq!(end.agent.run(&["status", "--json"]).succeeded().json()["alerts"], json!([]));
    service.kill();
    judge(&told, first);
}

/// The alert that the handbook shows.
fn documented() -> Value {
    let handbook = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agent.md");
    let text = std::fs::read_to_string(handbook).unwrap();
    let (_, shown) = text.split_once("```json\n{\"version\": 1, \"alert\"").unwrap();
    serde_json::from_str(&format!("{{\"version\": 1, \"alert\"{}", shown.split("```").next().unwrap())).unwrap()
}

/// Exactly what must have been told, and how it was signed.
fn judge(told: &Told, first: &str) {
    // The webhook was not there for the first test.
    let program = told.program.heard();
    let said: Vec<&str> = program.iter().map(|(said, _)| said.as_str()).collect();
    assert_eq!(said[3..], [format!("raised {JOB} erp-missing"), format!("recovered {JOB} erp-query")]);
    let posted = told.webhook.heard();
    let (tests, alerts) = posted.split_at(2);
    let bodies: Vec<Value> = alerts.iter().map(Posted::json).collect();
    assert_eq!(program.iter().skip(3).map(|(_, alert)| alert.clone()).collect::<Vec<_>>(), bodies);
    let [raised, recovered] = &bodies[..] else { panic!("{bodies:#?}") };
    assert_eq!((&raised["alert"], &raised["transfer"], &raised["tenant"]), (&json!("raised"), &json!(first), &json!(TENANT)));
    assert_eq!((&recovered["alert"], &recovered["since"]), (&json!("recovered"), &raised["since"]));
    assert_eq!(raised["help"], "docs/errors/erp-missing.md");
    let fields = |alert: &Value| alert.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(raised), fields(&documented()));
    let id = |posted: &Posted, kind: &str| posted.header("webhook-id").strip_suffix(kind).unwrap().to_owned();
    assert_eq!(id(&alerts[0], "-raised"), id(&alerts[1], "-recovered"));
    assert_ne!(tests[0].header("webhook-id"), tests[1].header("webhook-id"));
    for one in &posted {
        assert_eq!(one.request, "POST /towpath?to=us HTTP/1.1");
        assert_eq!(one.header("content-type"), "application/json");
        assert_eq!(one.header("webhook-signature"), signature(one));
    }
}
