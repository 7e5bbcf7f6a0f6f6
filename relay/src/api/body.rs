//! Bodies and paths, parsed once, with a problem for every wrong one.

use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header::CONTENT_LENGTH, header::CONTENT_TYPE, request::Parts},
};
use serde::de::DeserializeOwned;
use towpath_transfer::TransferId;

use super::{
    App,
    guest::{Guest, Turn},
    problem::Refusal,
};
use crate::scope::not_found;

/// The largest body of whoever has proven nothing yet, in bytes.
const MAX_STRANGERS_BYTES: usize = 64 * 1024;

/// A JSON body of a known form, of a caller that was authenticated before it is read.
pub(super) struct JsonBody<T>(pub(super) T);

/// A JSON body of a known form that comes before anybody has proven who they are: smaller, one at a time on each connection until its
/// call is answered, and nothing that a connection is kept for.
pub(super) struct StrangersBody<T> {
    pub(super) value: T,
    _turn: Option<Turn>,
}

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        Ok(Self(parsed(request, app.limits.body_bytes).await?))
    }
}

impl<T: DeserializeOwned> FromRequest<App> for StrangersBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        let turn = Guest::of(request.extensions()).map(Guest::turn).transpose()?;
        let reading = turn.as_ref().map(Turn::reads);
        let value = parsed(request, app.limits.body_bytes.min(MAX_STRANGERS_BYTES)).await?;
        drop(reading);
        Ok(Self { value, _turn: turn })
    }
}

/// The body, which has at most `limit` bytes.
async fn parsed<T: DeserializeOwned>(request: Request, limit: usize) -> Result<T, Refusal> {
    let (headers, too_large) =
        (request.headers(), || Refusal::request(format!("a body has at most {limit} bytes"), StatusCode::PAYLOAD_TOO_LARGE));
    if !is_json(headers) {
        return Err(Refusal::request("the body must be application/json", StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let bytes = to_bytes(request.into_body(), limit).await.map_err(|e| {
        if is_length_limit(&e) { too_large() } else { Refusal::request("the body did not arrive", StatusCode::BAD_REQUEST) }
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Refusal::request(format!("the body is not of the expected form: {e}"), StatusCode::BAD_REQUEST))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The framework hides its limit error behind one of its own; only the chain of causes tells.
fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause = Some(error as &dyn std::error::Error);
    while let Some(error) = cause {
        if error.to_string().contains("length limit exceeded") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The transfer in a path. What is not an id names nothing that exists.
pub(super) struct TransferPath(pub(super) TransferId);

impl FromRequestParts<App> for TransferPath {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let text = Path::<String>::from_request_parts(parts, app).await.map_err(|_| not_found())?;
        Ok(Self(text.0.parse().map_err(|_| not_found())?))
    }
}

/// The query of a known form.
pub(super) struct QueryOf<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for QueryOf<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let query = Query::<T>::from_request_parts(parts, app).await;
        let wrong = |e: QueryRejection| {
            Refusal::request(format!("the query is not of the expected form: {}", e.body_text()), StatusCode::BAD_REQUEST)
        };
        Ok(Self(query.map_err(wrong)?.0))
    }
}
