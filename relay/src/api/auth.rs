//! Who calls, by the bearer token.

use super::{App, connection::Peer, problem::Refusal};
use crate::scope::Caller;
use axum::{extract::FromRequestParts, http::header::AUTHORIZATION, http::request::Parts};

/// A caller that was authenticated; a handler that takes one cannot be reached without.
pub(super) struct Authenticated(pub(super) Caller);

impl FromRequestParts<App> for Authenticated {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        match app.service.authenticate(token, Peer::of(&parts.extensions)).await {
            Ok(caller) => Ok(Self(caller)),
            Err(failure) => {
                app.metrics.authentication_failed("token", failure.code());
                Err(failure.into())
            }
        }
    }
}
