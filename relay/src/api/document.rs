//! The OpenAPI document, made from the types themselves.

use towpath_transfer::{Code, Failure, api::Problem, failure::Result};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use super::{downlinks, handlers, refusals::Refusals};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Towpath relay",
        description = "Enrolment, completion of uplinks, return files, and the receipts of both. Errors are RFC 9457 problems with an operator error code.",
        license(name = "MIT OR Apache-2.0")
    ),
    paths(
        handlers::healthz,
        handlers::openapi,
        handlers::enrol,
        handlers::peers,
        handlers::rotate_key,
        handlers::releases,
        handlers::announcement,
        handlers::expect,
        handlers::complete,
        handlers::uplink,
        handlers::receipt,
        downlinks::downlinks,
        downlinks::acknowledge,
        downlinks::export,
        downlinks::export_status
    ),
    components(schemas(Problem)),
    modifiers(&Token, &Refusals)
)]
struct Document;

/// The bearer token: a JWT by the caller's own key.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
            "RS256 or EdDSA by the key that was enrolled; `iss` is `<tenant>.<name>`, `aud` the relay's URL, `exp` at most 60 s \
             after `iat`, `jti` used once. Times follow the relay's `Date` header.",
        ));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// The document, as it is served and committed.
///
/// # Errors
/// [`Code::Internal`] where JSON cannot be written.
pub fn openapi_json() -> Result<String> {
    let json = Document::openapi().to_pretty_json();
    let json = json.map_err(|e| Failure::park(Code::Internal, "write the OpenAPI document").caused_by(e))?;
    Ok(json + "\n")
}
