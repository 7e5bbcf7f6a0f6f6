//! Who calls, by the bearer token.

use super::{App, callers::RequestPlace, guest::Guest, problem::Refusal};
use crate::scope::Caller;
use axum::{
    extract::FromRequestParts,
    http::{Extensions, header::AUTHORIZATION, request::Parts},
};
use towpath_transfer::failure::Result as Tried;

/// A caller that was authenticated; a handler that takes one cannot be reached without.
pub(super) struct Authenticated(pub(super) Caller);

impl FromRequestParts<App> for Authenticated {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let address = Guest::of(&parts.extensions).map(Guest::address);
        let tried = app.service.authenticate(token, address).await;
        Ok(Self(proven(app, "token", &parts.extensions, tried, Caller::user)?))
    }
}

/// Says how a proof of `kind` has ended: the connection and the request are counted among those of the `user` who has made it, or the
/// connection is charged.
///
/// # Errors
/// That of the proof; `rate-limited` where the user has as many connections or requests as it may have.
pub(super) fn proven<T>(
    app: &App,
    kind: &'static str,
    extensions: &Extensions,
    tried: Tried<T>,
    user: impl FnOnce(&T) -> String,
) -> Result<T, Refusal> {
    let guest = Guest::of(extensions);
    let done = tried.map_err(|failure| {
        app.metrics.authentication_failed(kind, failure.code());
        match guest {
            Some(guest) => guest.refused(failure),
            None => failure,
        }
    })?;
    let user = user(&done);
    if let Some(guest) = guest {
        guest.accepted(&app.connections_of, &user)?;
    }
    if let Some(place) = extensions.get::<RequestPlace>() {
        place.take(&user)?;
    }
    Ok(done)
}
