//! The refusals in the OpenAPI document: said once, for every call, by what the call takes. A call's own are said at its handler,
//! as status and description; their body is added here.

use utoipa::{
    Modify,
    openapi::{
        Content, Ref, RefOr, Response, ResponseBuilder,
        path::{Operation, ParameterIn},
    },
};

use super::problem::PROBLEM_JSON;

/// The refusals of every call of its kind.
pub(super) struct Refusals;

/// A refusal that more than one call has.
struct Shared {
    status: &'static str,
    /// Its name among the document's components.
    name: &'static str,
    description: &'static str,
    /// Whether a call has it.
    of: fn(&Operation) -> bool,
}

const SHARED: &[Shared] = &[
    Shared {
        status: "400",
        name: "Malformed",
        description: "The body or the query is not of the form that is described here, or cannot be meant.",
        of: |call| has_body(call) || has_query(call),
    },
    Shared {
        status: "401",
        name: "Unauthenticated",
        description: "No token, or not a valid one: by the wrong key, used before, or too old.",
        of: needs_token,
    },
    Shared { status: "403", name: "Revoked", description: "The caller was revoked, or its key was retired.", of: needs_token },
    Shared {
        status: "404",
        name: "NotFound",
        description: "There is no such thing, or it is not this caller's: the answer is the same.",
        of: needs_token,
    },
    Shared { status: "413", name: "TooLarge", description: "The body is larger than the relay takes.", of: has_body },
    Shared { status: "415", name: "NotJson", description: "The body is not `application/json`.", of: has_body },
    Shared {
        status: "429",
        name: "TooMuch",
        description: "Too many requests at once, or too many failed logins from this address. `Retry-After` says when to come back.",
        of: |_| true,
    },
    Shared {
        status: "5XX",
        name: "NotNow",
        description: "The relay cannot do it now; its log says why. Try again later, after `Retry-After` where that is given.",
        of: |_| true,
    },
];

fn has_body(call: &Operation) -> bool {
    call.request_body.is_some()
}

fn has_query(call: &Operation) -> bool {
    let mut parameters = call.parameters.iter().flatten();
    parameters.any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Query))
}

fn needs_token(call: &Operation) -> bool {
    call.security.as_ref().is_some_and(|security| !security.is_empty())
}

fn problem() -> Content {
    Content::new(Some(Ref::from_schema_name("Problem")))
}

fn refused(description: &str) -> Response {
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, problem()).build()
}

impl Modify for Refusals {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        for shared in SHARED {
            components.responses.insert(shared.name.to_owned(), refused(shared.description).into());
        }
        for path in document.paths.paths.values_mut() {
            for call in [&mut path.get, &mut path.put, &mut path.post].into_iter().flatten() {
                refuse(call);
            }
        }
    }
}

fn refuse(call: &mut Operation) {
    for (status, response) in &mut call.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with(['4', '5'])
        {
            *response = refused(&response.description);
        }
    }
    for shared in SHARED {
        if (shared.of)(call) {
            let said = call.responses.responses.entry(shared.status.to_owned());
            said.or_insert_with(|| RefOr::Ref(Ref::from_response_name(shared.name)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::http::StatusCode;
    use serde_json::Value;
    use towpath_transfer::Code;

    use crate::api::{openapi_json, problem::status_of};

    #[test]
    fn every_refusal_is_a_problem_and_every_code_of_a_caller_is_described() {
        let document: Value = serde_json::from_str(&openapi_json().unwrap()).unwrap();
        let mut said = BTreeSet::new();
        for (path, calls) in document["paths"].as_object().unwrap() {
            for (method, call) in calls.as_object().unwrap() {
                let answers = call["responses"].as_object().unwrap();
                for (status, answer) in answers.iter().filter(|(status, _)| !status.starts_with('2')) {
                    let named = answer["$ref"].as_str().map(|name| document.pointer(name.trim_start_matches('#')).unwrap());
                    let schema = &named.unwrap_or(answer)["content"]["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Problem", "{method} {path} {status}");
                    said.insert(status.clone());
                }
                let secured = call.get("security").is_some();
                assert_eq!(secured, path.starts_with("/v1/") && path != "/v1/enrolments", "{method} {path}");
                for status in ["401", "403", "404"] {
                    assert!(!secured || answers.contains_key(status), "{method} {path} {status}");
                }
                assert!(call.get("requestBody").is_none() || answers.contains_key("413"), "{method} {path}");
            }
        }
        for code in Code::ALL {
            let status = status_of(*code);
            let class = if status.is_server_error() { "5XX".to_owned() } else { status.as_str().to_owned() };
            assert!(said.contains(&class), "{code} is {status}, which no call describes");
        }
        let codes = document["components"]["schemas"]["Code"]["enum"].as_array().unwrap();
        let expected: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(codes, &expected);
        assert!(said.contains(StatusCode::UNSUPPORTED_MEDIA_TYPE.as_str()));
    }
}
