//! Who calls, by the bearer token.

use super::{App, callers::RequestPlace, guest::Guest, problem::Refusal};
use crate::scope::Caller;
use axum::{extract::FromRequestParts, http::header::AUTHORIZATION, http::request::Parts};
use towpath_transfer::failure::Result as Tried;

/// A caller that was authenticated; a handler that takes one cannot be reached without.
pub(super) struct Authenticated(pub(super) Caller);

impl FromRequestParts<App> for Authenticated {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refusal> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let guest = Guest::of(&parts.extensions);
        let tried = app.service.authenticate(token, guest.map(Guest::address)).await;
        let caller = proven(app, "token", guest, tried)?;
        let user = caller.user();
        if let Some(guest) = guest {
            guest.belongs_to(&app.connections_of, &user)?;
        }
        if let Some(place) = parts.extensions.get::<RequestPlace>() {
            place.keep(app.requests_of.take(&user)?);
        }
        Ok(Self(caller))
    }
}

/// Tells the connection how a proof of `kind` has ended: it is nobody's any more, or it is charged.
pub(super) fn proven<T>(app: &App, kind: &'static str, guest: Option<&Guest>, tried: Tried<T>) -> Result<T, Refusal> {
    match tried {
        Ok(done) => {
            if let Some(guest) = guest {
                guest.accepted();
            }
            Ok(done)
        }
        Err(failure) => {
            app.metrics.authentication_failed(kind, failure.code());
            Err(Refusal::from(match guest {
                Some(guest) => guest.refused(failure),
                None => failure,
            }))
        }
    }
}
