use std::{collections::BTreeSet, convert::Infallible};

use axum::{
    body::{Body, to_bytes},
    http::{Request, Response, StatusCode, header},
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tower::ServiceExt as _;
use towpath_transfer::{
    Code, TransferId,
    announcement::{SERIAL_HEADER, SignedAnnouncement},
    api::{
        DownlinkState, Downlinks, EnrolmentAnswer, EnrolmentRequest, ExportStatus, MAX_EXPECTATIONS, Problem, Role, UplinkState,
        UplinkStatus,
    },
    digest::Sha256Digest,
    state::Outcome,
};

use super::*;
use crate::{
    audit::Action,
    keyring::{Announced, Shown},
    service::tests::{Enrolled, Sent, URL, World},
};

struct Web {
    world: World,
    service: WebService,
}

impl Web {
    async fn new() -> Self {
        Self::with(WebLimits::default()).await
    }

    async fn with(limits: WebLimits) -> Self {
        let world = World::new().await;
        let service = WebService::new(world.service().clone(), limits, world.relay.metrics().clone());
        Self { world, service }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.service.router.clone().oneshot(request).await.unwrap()
    }

    /// A request of `end` that has its place, and whose body never comes.
    async fn begun(&self, end: &Enrolled) -> JoinHandle<Result<Response<Body>, Infallible>> {
        let token = format!("Bearer {}", end.token(&self.world));
        let request = Request::post("/v1/keys").header(header::AUTHORIZATION, token);
        let never = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
        let request = request.header(header::CONTENT_TYPE, "application/json").body(never).unwrap();
        let begun = tokio::spawn(self.service.router.clone().oneshot(request));
        while self.service.app.requests_of.taken_by(&end.caller.user()) == 0 {
            tokio::task::yield_now().await;
        }
        begun
    }

    async fn call(&self, end: &Enrolled, method: &str, path: &str, body: Option<Value>) -> Response<Body> {
        self.call_with(&end.token(&self.world), method, path, body).await
    }

    async fn call_with(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Response<Body> {
        let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.send(request.unwrap()).await
    }
}

async fn json<T: serde::de::DeserializeOwned>(response: Response<Body>) -> T {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&bytes)))
}

/// The code of a problem, after a look at its form.
async fn problem(response: Response<Body>) -> (u16, Code) {
    let status = response.status().as_u16();
    assert_eq!(response.headers().get(header::CONTENT_TYPE).unwrap(), "application/problem+json");
    assert!(response.headers().contains_key(header::DATE));
    let found: Problem = json(response).await;
    assert_eq!(found.status, status);
    assert_eq!(found.problem_type, format!("/docs/errors/{}.md", found.code));
    (status, found.code)
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn an_end_enrols_and_its_uplink_is_claimed_over_http() {
    let web = Web::new().await;
    let (code, identity) = (web.world.code("acme", Role::Agent).await, web.world.identity());
    let body = serde_json::to_string(&World::request(&code, &identity)).unwrap();
    let enrol = || {
        let request = Request::post("/v1/enrolments").header(header::CONTENT_TYPE, "application/json; charset=utf-8");
        web.send(request.body(Body::from(body.clone())).unwrap())
    };
    let response = enrol().await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers().get(header::DATE).unwrap(), "Sun, 01 Mar 2026 00:00:00 GMT");
    let answer: EnrolmentAnswer = json(response).await;
    assert_eq!(answer.sftp_user, "acme.agent");
    assert_eq!(json::<EnrolmentAnswer>(enrol().await).await, answer);

    let caller = web.world.registry.authenticate_key(&answer.sftp_user, identity.public_line()).await.unwrap();
    let agent = Enrolled { identity, caller };
    let sent = Sent::new(&web.world, &agent, 1);
    let path = format!("/v1/uplinks/{}", sent.id);
    assert_eq!(problem(web.call(&agent, "GET", &path, None).await).await, (404, Code::NotFound));
    sent.push(&web.world, &agent).await;
    let complete = serde_json::to_value(sent.complete).unwrap();
    let response = web.call(&agent, "POST", &format!("{path}/complete"), Some(complete)).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(json::<UplinkStatus>(response).await.state, UplinkState::Claimed);
    let status: UplinkStatus = json(web.call(&agent, "GET", &path, None).await).await;
    assert_eq!(status.state, UplinkState::Claimed);
    let peers = web.call(&agent, "GET", "/v1/peers", None).await;
    assert_eq!(peers.status(), StatusCode::OK);
}

#[tokio::test]
async fn enrolment_errors_have_their_codes() {
    let web = Web::new().await;
    let (code, identity) = (web.world.code("acme", Role::Agent).await, web.world.identity());
    let enrol = async |request: &EnrolmentRequest| {
        let body = Body::from(serde_json::to_string(request).unwrap());
        let request = Request::post("/v1/enrolments").header(header::CONTENT_TYPE, "application/json").body(body).unwrap();
        web.send(request).await
    };
    let good = World::request(&code, &identity);
    let guess = EnrolmentRequest { secret: "guess".into(), ..good.clone() };
    assert_eq!(problem(enrol(&guess).await).await, (403, Code::EnrolmentUnknown));
    assert_eq!(enrol(&good).await.status(), StatusCode::OK);
    let other = World::request(&code, &web.world.identity());
    assert_eq!(problem(enrol(&other).await).await, (409, Code::EnrolmentUsed));
    web.world.clock.advance(crate::service::tests::DAY);
    assert_eq!(problem(enrol(&good).await).await, (410, Code::EnrolmentExpired));
}

#[tokio::test]
async fn tokens_are_needed_and_good_once() {
    let web = Web::new().await;
    let agent = web.world.enrol("acme", Role::Agent).await;
    let unauthorised = web.send(get("/v1/peers")).await;
    assert_eq!(unauthorised.headers().get(header::WWW_AUTHENTICATE).unwrap(), "Bearer");
    assert_eq!(problem(unauthorised).await, (401, Code::AuthenticationRefused));
    let token = agent.token(&web.world);
    assert_eq!(web.call_with(&token, "GET", "/v1/peers", None).await.status(), StatusCode::OK);
    assert_eq!(problem(web.call_with(&token, "GET", "/v1/peers", None).await).await, (401, Code::AuthenticationRefused));
    let late = agent.token(&web.world);
    web.world.clock.advance(Duration::from_secs(70));
    assert_eq!(problem(web.call_with(&late, "GET", "/v1/peers", None).await).await, (401, Code::ClockSkew));
    assert_eq!(problem(web.call_with("a.b.c", "GET", "/v1/peers", None).await).await, (401, Code::AuthenticationRefused));
    web.world.registry.revoke(agent.caller.scope(), agent.caller.name()).await.unwrap();
    assert_eq!(problem(web.call(&agent, "GET", "/v1/peers", None).await).await, (403, Code::AgentRevoked));
    let text = web.world.relay.metrics().text(&[], &crate::spool::SpoolFigures::default()).unwrap();
    assert!(text.contains("authentication_failures_total{code=\"agent-revoked\",kind=\"token\"} 1"), "{text}");
}

#[tokio::test]
async fn every_wrong_request_gets_a_problem() {
    let web = Web::with(WebLimits { body_bytes: 1000, ..WebLimits::default() }).await;
    let agent = web.world.enrol("acme", Role::Agent).await;
    assert_eq!(problem(web.send(get("/nothing")).await).await, (404, Code::NotFound));
    let not_an_id = problem(web.call(&agent, "GET", "/v1/uplinks/..%2f..", None).await).await;
    assert_eq!(not_an_id, (404, Code::NotFound));
    assert_eq!(problem(web.send(get("/v1/enrolments")).await).await, (405, Code::RequestInvalid));
    let post =
        |kind: &str, body: Body| web.send(Request::post("/v1/enrolments").header(header::CONTENT_TYPE, kind).body(body).unwrap());
    assert_eq!(problem(post("text/plain", Body::from("{}")).await).await, (415, Code::RequestInvalid));
    assert_eq!(problem(post("application/json", Body::from("{")).await).await, (400, Code::RequestInvalid));
    assert_eq!(problem(post("application/json", Body::from("{\"x\":1}")).await).await, (400, Code::RequestInvalid));
    assert_eq!(problem(post("application/json", Body::from(vec![b' '; 1001])).await).await, (413, Code::RequestInvalid));
    let announced = Request::post("/v1/enrolments")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, "1001")
        .body(Body::empty())
        .unwrap();
    assert_eq!(problem(web.send(announced).await).await, (413, Code::RequestInvalid));
}

#[tokio::test]
async fn an_enrolment_has_a_smaller_body() {
    let web = Web::new().await;
    let post = |bytes: usize| {
        let request = Request::post("/v1/enrolments").header(header::CONTENT_TYPE, "application/json");
        web.send(request.body(Body::from(vec![b' '; bytes])).unwrap())
    };
    assert_eq!(problem(post(64 * 1024).await).await, (400, Code::RequestInvalid));
    assert_eq!(problem(post(64 * 1024 + 1).await).await, (413, Code::RequestInvalid));
}

#[tokio::test]
async fn a_slow_request_ends_and_a_busy_relay_says_so() {
    let limits = WebLimits { requests: 1, request_time: Duration::from_secs(5), ..WebLimits::default() };
    let web = Web::with(limits).await;
    let agent = web.world.enrol("acme", Role::Agent).await;
    let token = format!("Bearer {}", agent.token(&web.world));
    let request = Request::post("/v1/keys").header(header::AUTHORIZATION, token).header(header::CONTENT_TYPE, "application/json");
    let never = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let slow = tokio::spawn(web.service.router.clone().oneshot(request.body(never).unwrap()));
    while web.world.clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    let busy = web.send(get("/healthz")).await;
    assert_eq!(busy.headers().get(header::RETRY_AFTER).unwrap(), "5");
    assert_eq!(problem(busy).await, (429, Code::RateLimited));
    web.world.clock.advance(Duration::from_secs(5));
    assert_eq!(problem(slow.await.unwrap().unwrap()).await, (503, Code::Cancelled));
    assert_eq!(web.send(get("/healthz")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn one_key_takes_its_share_of_the_requests_and_no_more() {
    let web = Web::with(WebLimits { requests_per_end: 1, ..WebLimits::default() }).await;
    let (greedy, other) = (web.world.enrol("acme", Role::Agent).await, web.world.enrol("acme", Role::Receiver).await);
    let slow = web.begun(&greedy).await;
    let refused = web.call(&greedy, "GET", "/v1/peers", None).await;
    assert_eq!(refused.headers().get(header::RETRY_AFTER).unwrap(), "5");
    assert_eq!(problem(refused).await, (429, Code::RateLimited));
    assert_eq!(web.call(&other, "GET", "/v1/peers", None).await.status(), StatusCode::OK);
    assert_eq!(web.call(&greedy, "GET", "/v1/downlinks", None).await.status(), StatusCode::OK, "long polls are counted apart");
    web.world.clock.advance(Duration::from_secs(30));
    assert_eq!(problem(slow.await.unwrap().unwrap()).await, (503, Code::Cancelled));
    assert_eq!(web.call(&greedy, "GET", "/v1/peers", None).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn all_keys_of_one_tenant_take_its_share_of_the_requests_and_no_more() {
    let web = Web::with(WebLimits { requests: 3, requests_per_tenant: 2, ..WebLimits::default() }).await;
    let (agent, receiver) = (web.world.enrol("acme", Role::Agent).await, web.world.enrol("acme", Role::Receiver).await);
    let other = web.world.enrol("other", Role::Agent).await;
    let mut slow = Vec::new();
    for end in [&agent, &receiver] {
        slow.push(web.begun(end).await);
    }
    let refused = web.call(&agent, "GET", "/v1/peers", None).await;
    assert_eq!(refused.headers().get(header::RETRY_AFTER).unwrap(), "5");
    assert_eq!(problem(refused).await, (429, Code::RateLimited));
    assert_eq!(web.call(&other, "GET", "/v1/peers", None).await.status(), StatusCode::OK);
    assert_eq!(web.call(&agent, "GET", "/v1/downlinks", None).await.status(), StatusCode::OK, "long polls are counted apart");
    web.world.clock.advance(Duration::from_secs(30));
    for slow in slow {
        assert_eq!(problem(slow.await.unwrap().unwrap()).await, (503, Code::Cancelled));
    }
    assert_eq!(web.call(&receiver, "GET", "/v1/peers", None).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_enrolment_takes_a_place_of_its_key_among_the_requests() {
    let web = Web::with(WebLimits { requests_per_end: 1, ..WebLimits::default() }).await;
    let (code, identity) = (web.world.code("acme", Role::Agent).await, web.world.identity());
    let body = serde_json::to_string(&World::request(&code, &identity)).unwrap();
    let enrol = || {
        let request = Request::post("/v1/enrolments").header(header::CONTENT_TYPE, "application/json");
        web.send(request.body(Body::from(body.clone())).unwrap())
    };
    let answer: EnrolmentAnswer = json(enrol().await).await;
    assert_eq!(web.service.app.requests_of.taken_by(&answer.sftp_user), 0, "it is given back");
    let place = web.service.app.requests_of.take(&answer.sftp_user).unwrap();
    assert_eq!(problem(enrol().await).await, (429, Code::RateLimited));
    drop(place);
    assert_eq!(json::<EnrolmentAnswer>(enrol().await).await, answer);
}

#[tokio::test]
async fn a_long_poll_waits_apart_from_the_requests_and_is_bounded() {
    let web = Web::with(WebLimits { requests: 1, polls: 1, ..WebLimits::default() }).await;
    let agent = web.world.enrol("acme", Role::Agent).await;
    let poll = |query: &str| {
        let request = get(&format!("/v1/downlinks{query}"));
        let (mut parts, body) = request.into_parts();
        let token = format!("Bearer {}", agent.token(&web.world));
        parts.headers.insert(header::AUTHORIZATION, token.parse().unwrap());
        web.service.router.clone().oneshot(Request::from_parts(parts, body))
    };
    for wrong in ["?wait=soon", "?unless=x", "?more=1", "?wait=-1"] {
        assert_eq!(problem(poll(wrong).await.unwrap()).await, (400, Code::RequestInvalid), "{wrong}");
    }
    let empty: Downlinks = json(poll("").await.unwrap()).await;
    assert_eq!(empty, Downlinks::of(Vec::new()));

    let waiting = tokio::spawn(poll(&format!("?wait=50&unless={}", empty.version)));
    let scope = agent.caller.as_agent().unwrap();
    while web.world.service().arrivals().polls(&scope) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(web.send(get("/healthz")).await.status(), StatusCode::OK, "no request waits for a poll");
    assert_eq!(problem(poll("?wait=1").await.unwrap()).await, (429, Code::RateLimited));
    let figures = web.world.relay.metrics().text(&[], &crate::spool::SpoolFigures::default()).unwrap();
    assert!(figures.contains("towpath_relay_connections{kind=\"poll\"} 1"), "{figures}");
    web.world.clock.advance(Duration::from_secs(50));
    let list: Downlinks = json(waiting.await.unwrap().unwrap()).await;
    assert_eq!(list, empty);
}

#[tokio::test]
async fn all_agents_of_one_tenant_take_its_share_of_the_polls_and_no_more() {
    let web = Web::with(WebLimits { polls: 3, polls_per_tenant: 2, ..WebLimits::default() }).await;
    let (one, two) = (web.world.enrol("acme", Role::Agent).await, web.world.enrol("acme", Role::Agent).await);
    let other = web.world.enrol("other", Role::Agent).await;
    let nothing = Downlinks::of(Vec::new()).version;
    let mut waiting = Vec::new();
    for agent in [&one, &two] {
        let request = Request::get(format!("/v1/downlinks?wait=50&unless={nothing}"));
        let token = format!("Bearer {}", agent.token(&web.world));
        let request = request.header(header::AUTHORIZATION, token).body(Body::empty()).unwrap();
        waiting.push(tokio::spawn(web.service.router.clone().oneshot(request)));
        while web.service.app.polls_of.taken_by(&agent.caller.user()) == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(problem(web.call(&one, "GET", "/v1/downlinks", None).await).await, (429, Code::RateLimited));
    assert_eq!(web.call(&other, "GET", "/v1/downlinks", None).await.status(), StatusCode::OK);
    assert_eq!(web.call(&one, "GET", "/v1/peers", None).await.status(), StatusCode::OK, "requests are counted apart");
    web.world.clock.advance(Duration::from_secs(50));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(web.call(&one, "GET", "/v1/downlinks", None).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_calls_of_the_way_back_are_there_for_those_they_are_for() {
    let web = Web::new().await;
    let (agent, receiver) = (web.world.enrol("acme", Role::Agent).await, web.world.enrol("acme", Role::Receiver).await);
    let (id, digest) = (web.world.id(), Sha256Digest::of(b"m"));
    let path = format!("/downlink/{}/{id}/manifest.json", agent.caller.name());
    let export = serde_json::json!({
        "transfer": id, "agent": agent.caller.name(), "sequence": 1,
        "announced": {"path": path, "size": 1, "manifest": digest},
    });
    let status = web.call(&receiver, "POST", "/v1/app/exports", Some(export.clone())).await;
    assert_eq!(status.status(), StatusCode::ACCEPTED);
    let of_it = format!("/v1/app/exports/{id}?agent={}", agent.caller.name());
    let status: ExportStatus = json(web.call(&receiver, "GET", &of_it, None).await).await;
    assert_eq!((status.transfer, status.state), (id, DownlinkState::Announced));
    assert_eq!(problem(web.call(&agent, "GET", &of_it, None).await).await, (404, Code::NotFound));
    assert_eq!(problem(web.call(&agent, "POST", "/v1/app/exports", Some(export)).await).await, (404, Code::NotFound));
    let no_agent = format!("/v1/app/exports/{id}");
    assert_eq!(problem(web.call(&receiver, "GET", &no_agent, None).await).await, (400, Code::RequestInvalid));
    let acknowledgement = serde_json::json!({"signed": {"receipt": "{}", "signature": ""}});
    let acknowledge = format!("/v1/downlinks/{id}/acknowledge");
    let refused = web.call(&agent, "POST", &acknowledge, Some(acknowledgement)).await;
    assert_eq!(problem(refused).await, (422, Code::ReceiptInvalid));
    assert_eq!(problem(web.call(&receiver, "GET", "/v1/downlinks", None).await).await, (404, Code::NotFound));
    assert_eq!(problem(web.send(get("/v1/downlinks?wait=50")).await).await, (401, Code::AuthenticationRefused));
}

/// A call that names a transfer or an agent.
struct Naming {
    method: &'static str,
    /// As the document has it.
    route: &'static str,
    query: String,
    body: Option<Value>,
    /// What stands in the trail of every try, whatever comes of it.
    noted: Option<Action>,
}

impl Naming {
    fn path(&self, id: TransferId) -> String {
        self.route.replace("{transfer}", &id.to_string()) + &self.query
    }
}

/// Every call that names a transfer or an agent, with this one. What makes something new has this sequence number.
fn calls_with(id: TransferId, agent: &str, sequence: u64, sent: &Sent, signed: &Value) -> Vec<Naming> {
    let export = serde_json::json!({
        "transfer": id, "agent": agent, "sequence": sequence,
        "announced": {"path": format!("/downlink/{agent}/{id}/manifest.json"), "size": 1, "manifest": Sha256Digest::of(b"m")},
    });
    let complete = serde_json::to_value(sent.complete).unwrap();
    let receipt = serde_json::json!({"agent": agent, "transfer": id, "signed": signed});
    let acknowledgement = serde_json::json!({"signed": signed});
    let naming = |method, route, query: &str, body, noted| Naming { method, route, query: query.to_owned(), body, noted };
    let (status, of_agent) = ("/v1/app/exports/{transfer}", format!("?agent={agent}"));
    vec![
        naming("GET", "/v1/uplinks/{transfer}", "", None, None),
        naming("POST", "/v1/uplinks/{transfer}/complete", "", Some(complete), Some(Action::Complete)),
        naming("POST", "/v1/downlinks/{transfer}/acknowledge", "", Some(acknowledgement), Some(Action::Acknowledge)),
        naming("POST", "/v1/app/receipts", "", Some(receipt), Some(Action::Receipt)),
        naming("GET", status, &of_agent, None, None),
        naming("GET", status, "?agent=nobody", None, None),
        // The last one, because from then on there is one of its own of that name.
        naming("POST", "/v1/app/exports", "", Some(export), Some(Action::Export)),
    ]
}

/// The calls of the document that can name what is someone else's: each with its method and path.
fn calls_that_name(document: &Value) -> BTreeSet<(String, String)> {
    /// What may be someone else's.
    const NAMES: [&str; 3] = ["AgentName", "TenantName", "TransferId"];

    fn refers(document: &Value, within: &Value, seen: &mut BTreeSet<String>) {
        match within {
            Value::Array(all) => all.iter().for_each(|one| refers(document, one, seen)),
            Value::Object(all) => {
                for (key, one) in all {
                    match one.as_str().and_then(|to| to.strip_prefix("#/components/schemas/")) {
                        Some(name) if key == "$ref" && seen.insert(name.to_owned()) => {
                            refers(document, &document["components"]["schemas"][name], seen);
                        }
                        _ => refers(document, one, seen),
                    }
                }
            }
            _ => {}
        }
    }

    let mut found = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, call) in methods.as_object().unwrap() {
            let mut asked = BTreeSet::new();
            for part in ["parameters", "requestBody"] {
                refers(document, call.get(part).unwrap_or(&Value::Null), &mut asked);
            }
            if path.contains('{') || NAMES.iter().any(|name| asked.contains(*name)) {
                found.insert((method.to_uppercase(), path.clone()));
            }
        }
    }
    found
}

#[tokio::test]
async fn what_belongs_to_another_tenant_answers_like_what_does_not_exist_and_is_noted() {
    let web = Web::new().await;
    let (agent, receiver) = (web.world.enrol("acme", Role::Agent).await, web.world.enrol("acme", Role::Receiver).await);
    let theirs = (web.world.enrol("other", Role::Agent).await, web.world.enrol("other", Role::Receiver).await);
    let sent = Sent::new(&web.world, &theirs.0, 1);
    sent.push(&web.world, &theirs.0).await;
    web.world.service().complete(&theirs.0.caller, sent.id, &sent.complete).await.unwrap();
    let receipt = crate::service::tests::receipt_of(&web.world, &theirs.1, &theirs.0, &sent, &Outcome::Imported);
    let signed = serde_json::to_value(&receipt.signed).unwrap();
    let back = web.world.id();
    let export = calls_with(back, theirs.0.caller.name().as_str(), 7, &sent, &signed).pop().unwrap();
    let exported = web.call(&theirs.1, export.method, &export.path(back), export.body).await;
    assert_eq!(exported.status(), StatusCode::ACCEPTED);

    let stands = async || {
        let (up, name) = (web.world.service().uplink(&theirs.0.caller, sent.id).await, theirs.0.caller.name());
        let down = web.world.service().export_status(&theirs.1.caller, name, back).await;
        (serde_json::to_value(up.unwrap()).unwrap(), serde_json::to_value(down.unwrap()).unwrap())
    };
    // A call's answer, and what of it is in the trail.
    let tried = async |end: &Enrolled, call: &Naming, id: TransferId| {
        // What is alike within a minute would be counted and not be a row.
        web.world.clock.advance(crate::audit::WINDOW);
        let before = web.world.audit().await.len();
        let response = web.call(end, call.method, &call.path(id), call.body.clone()).await;
        let (head, headers) = (response.status(), response.headers().clone());
        let text = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let mut rows = web.world.audit().await.split_off(before);
        assert!(rows.iter().all(|row| row.transfer == id.to_string() && row.tenant == "acme"), "{rows:#?}");
        assert!(rows.iter().all(|row| row.key == end.caller.key().fingerprint().to_string()), "{rows:#?}");
        let foreign = rows.iter().position(|row| row.action == Action::Foreign.as_str()).map(|at| rows.remove(at).result);
        let noted = rows.into_iter().map(|row| (row.action, row.result)).collect::<Vec<_>>();
        ((head, headers, String::from_utf8(text.to_vec()).unwrap()), noted, foreign)
    };
    let before = stands().await;
    let mut named = BTreeSet::new();
    let mut sequence = 100;
    for end in [&agent, &receiver] {
        for of_theirs in [sent.id, back] {
            let nobodys = web.world.id();
            sequence += 2;
            let known = calls_with(of_theirs, "agent", sequence, &sent, &signed);
            let unknown = calls_with(nobodys, "agent", sequence + 1, &sent, &signed);
            for (known, unknown) in known.iter().zip(&unknown) {
                let what = format!("{} {} by a {:?}", known.method, known.path(of_theirs), end.caller.role());
                let (found, noted, foreign) = tried(end, known, of_theirs).await;
                let (missing, noted_of_missing, never) = tried(end, unknown, nobodys).await;
                assert_eq!((found.0, without_time(&found.1)), (missing.0, without_time(&missing.1)), "{what}");
                assert_eq!(found.2.replace(&of_theirs.to_string(), &nobodys.to_string()), missing.2, "{what}");
                // The trail alone knows the difference.
                assert_eq!((foreign.as_deref(), never), (Some("not-found"), None), "{what}");
                assert_eq!(noted, noted_of_missing, "{what}");
                let expected: Vec<&str> = known.noted.map(Action::as_str).into_iter().collect();
                assert_eq!(noted.iter().map(|(action, _)| action.as_str()).collect::<Vec<_>>(), expected, "{what}");
                named.insert((known.method.to_owned(), known.route.to_owned()));
            }
        }
    }
    assert_eq!(stands().await, before);
    // No call that names something is left out. An enrolment names the tenant of its own code, and is tried below.
    named.insert(("POST".to_owned(), "/v1/enrolments".to_owned()));
    assert_eq!(calls_that_name(&serde_json::from_str(&openapi_json().unwrap()).unwrap()), named);
}

/// What the relay's time is not among.
fn without_time(headers: &header::HeaderMap) -> header::HeaderMap {
    let mut rest = headers.clone();
    assert!(rest.remove(header::DATE).is_some());
    rest
}

#[tokio::test]
async fn a_code_of_one_tenant_enrols_into_no_other_one_and_the_try_is_noted() {
    let web = Web::new().await;
    web.world.enrol("other", Role::Agent).await;
    let (code, identity) = (web.world.code("acme", Role::Agent).await, web.world.identity());
    let tried = async |tenant: &str| {
        let request = EnrolmentRequest { tenant: tenant.parse().unwrap(), ..World::request(&code, &identity) };
        let body = Body::from(serde_json::to_string(&request).unwrap());
        let before = web.world.audit().await.len();
        let request = Request::post("/v1/enrolments").header(header::CONTENT_TYPE, "application/json").body(body).unwrap();
        let refused = problem(web.send(request).await).await;
        let rows = web.world.audit().await.split_off(before);
        (refused, rows.into_iter().map(|row| (row.action, row.result)).collect::<Vec<_>>())
    };
    let there = tried("other").await;
    assert_eq!(there.0, (403, Code::EnrolmentUnknown));
    assert_eq!(there.1, [("enrol".to_owned(), "enrolment-unknown".to_owned())]);
    web.world.clock.advance(crate::audit::WINDOW);
    assert_eq!(tried("nobody").await, there);
}

#[tokio::test]
async fn the_announcement_is_for_enrolled_ends_and_every_answer_hints_at_it() {
    let web = Web::new().await;
    let agent = web.world.enrol("acme", Role::Agent).await;
    let path = "/v1/announcement";
    assert_eq!(problem(web.call(&agent, "GET", path, None).await).await, (404, Code::NotFound));
    assert!(!web.send(get("/healthz")).await.headers().contains_key(SERIAL_HEADER));
    let keys = &web.world.service().identity().keys;
    let signed = SignedAnnouncement { announcement: "{}".into(), signature: "s".into() };
    let announced = Some(Announced { serial: 7, signed: signed.clone() });
    keys.set(Shown { announced, ..(*keys.shown()).clone() });
    assert_eq!(web.send(get("/healthz")).await.headers()[SERIAL_HEADER], "7");
    assert_eq!(problem(web.send(get(path)).await).await, (401, Code::AuthenticationRefused));
    let wrong = web.call(&agent, "GET", "/v1/announcement?pinned=x", None).await;
    assert_eq!(problem(wrong).await, (400, Code::RequestInvalid));
    let pinned = async || web.world.registry.followers(1).await.unwrap()[0].pinned;
    // Whoever claims to know more than there is does not count as one that knows the newest.
    for (said, counts) in [("", 0), ("?pinned=7", 7), ("?pinned=8", 7), ("?pinned=6", 6)] {
        let answer = web.call(&agent, "GET", &format!("{path}{said}"), None).await;
        assert_eq!(json::<SignedAnnouncement>(answer).await, signed);
        assert_eq!(pinned().await, counts, "{said}");
    }
}

#[tokio::test]
async fn what_is_expected_is_taken_from_an_agent_for_itself_alone() {
    let web = Web::with(WebLimits { body_bytes: 10_000, ..WebLimits::default() }).await;
    let (agent, receiver) = (web.world.enrol("acme", Role::Agent).await, web.world.enrol("acme", Role::Receiver).await);
    let other = web.world.enrol("other", Role::Agent).await;
    let path = "/v1/expectations";
    let job = |name: String| serde_json::json!({"job": name, "expected_by": "2026-03-02T01:00:00Z"});
    let jobs =
        |names: std::ops::Range<usize>| serde_json::json!({"jobs": names.map(|n| job(format!("job-{n}"))).collect::<Vec<_>>()});
    let put = async |end: &Enrolled, body: &Value| web.call(end, "PUT", path, Some(body.clone())).await;
    let expected = async || {
        let all = web.world.registry.expected().await.unwrap();
        all.iter().map(|one| format!("{}/{}/{}", one.tenant, one.agent, one.job)).collect::<Vec<_>>()
    };

    // As many as there may be, in the place of what was said before.
    assert_eq!(put(&agent, &jobs(0..MAX_EXPECTATIONS)).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(expected().await.len(), MAX_EXPECTATIONS);
    assert_eq!(put(&agent, &jobs(0..1)).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(put(&other, &jobs(1..2)).await.status(), StatusCode::NO_CONTENT);
    // Each agent speaks of itself: whose jobs they are is said by the token and by nothing else.
    let kept = ["acme/agent/job-0", "other/agent/job-1"];
    assert_eq!(expected().await, kept);

    // Whatever is refused changes nothing.
    let twice = serde_json::json!({"jobs": [job("a".into()), job("a".into())]});
    let foreign = serde_json::json!({"jobs": [], "tenant": "other", "agent": "agent"});
    let nameless = serde_json::json!({"jobs": [job("../x".into())]});
    let timeless = serde_json::json!({"jobs": [{"job": "a", "expected_by": "tomorrow"}]});
    for wrong in [jobs(0..MAX_EXPECTATIONS + 1), twice, foreign, nameless, timeless, Value::Null] {
        assert_eq!(problem(put(&agent, &wrong).await).await, (400, Code::RequestInvalid), "{wrong}");
    }
    assert_eq!(problem(put(&receiver, &jobs(2..3)).await).await, (404, Code::NotFound));
    let raw = async |kind: &str, body: &[u8]| {
        let request = Request::put(path).header(header::AUTHORIZATION, format!("Bearer {}", agent.token(&web.world)));
        let request = request.header(header::CONTENT_TYPE, kind).body(Body::from(body.to_vec())).unwrap();
        problem(web.send(request).await).await
    };
    assert_eq!(raw("application/json", b"{\"jobs\": [").await, (400, Code::RequestInvalid));
    assert_eq!(raw("text/plain", b"{\"jobs\": []}").await, (415, Code::RequestInvalid));
    assert_eq!(raw("application/json", &[b' '; 10_001]).await, (413, Code::RequestInvalid));
    let body = jobs(0..1).to_string();
    let anonymous = Request::put(path).header(header::CONTENT_TYPE, "application/json").body(Body::from(body)).unwrap();
    assert_eq!(problem(web.send(anonymous).await).await, (401, Code::AuthenticationRefused));
    assert_eq!(problem(web.call(&agent, "GET", path, None).await).await, (405, Code::RequestInvalid));
    assert_eq!(expected().await, kept);

    // A revoked agent is refused, and nothing is expected of it any more.
    web.world.registry.revoke(agent.caller.scope(), agent.caller.name()).await.unwrap();
    assert_eq!(problem(put(&agent, &jobs(0..1)).await).await, (403, Code::AgentRevoked));
    assert_eq!(expected().await, ["other/agent/job-1"]);
}

#[tokio::test]
async fn the_committed_document_is_the_one_that_is_served() {
    let committed = include_str!("../../openapi.json");
    assert_eq!(openapi_json().unwrap(), committed, "run: cargo run --bin towpath-relay -- openapi > relay/openapi.json");
    let web = Web::new().await;
    let served: Value = json(web.send(get("/openapi.json")).await).await;
    let paths = served.get("paths").and_then(Value::as_object).unwrap();
    let expected = [
        "/healthz",
        "/openapi.json",
        "/v1/announcement",
        "/v1/app/exports",
        "/v1/app/exports/{transfer}",
        "/v1/app/receipts",
        "/v1/downlinks",
        "/v1/downlinks/{transfer}/acknowledge",
        "/v1/enrolments",
        "/v1/expectations",
        "/v1/keys",
        "/v1/peers",
        "/v1/releases",
        "/v1/uplinks/{transfer}",
        "/v1/uplinks/{transfer}/complete",
    ];
    assert_eq!(paths.keys().map(String::as_str).collect::<Vec<_>>(), expected);
    // The web framework does not say what it routes; the source does.
    let routed: Vec<&str> = include_str!("mod.rs").lines().filter_map(|line| line.trim().strip_prefix(".route(")).collect();
    let routed: BTreeSet<&str> = routed.iter().map(|rest| rest.split(',').next().unwrap().trim_matches('"')).collect();
    let of_document = expected.map(|path| match path {
        guard::LONG_POLL => "guard::LONG_POLL",
        guard::ENROLMENTS => "guard::ENROLMENTS",
        path => path,
    });
    assert_eq!(routed, BTreeSet::from(of_document), "what is served is documented");
    assert_eq!(URL, web.world.service().identity().public_url);
}
