//! What holds for every request: a bound on how many and how long, the relay's time in the answer, and a count. A long poll has
//! places of its own, because it waits most of its time and must not keep a request waiting that works.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, header::DATE},
    middleware::Next,
    response::{IntoResponse, Response},
};
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::sync::{Semaphore, SemaphorePermit};
use towpath_transfer::{Code, Failure, announcement::SERIAL_HEADER, api::MAX_WAIT_SECONDS};

use super::{App, callers::RequestPlace, guest::TurnedAway, problem::Refusal};

/// How long a caller is asked to wait where the relay has no place for its request.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

/// The path of the call that waits.
pub(super) const LONG_POLL: &str = "/v1/downlinks";
/// The path of the one call whose body comes before anybody has proven who they are. It takes its place among the requests once the
/// body is there, so that strangers who take their time with it hold nobody up.
pub(super) const ENROLMENTS: &str = "/v1/enrolments";

pub(super) async fn guard(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let clock = app.service.clock();
    let started = clock.monotonic();
    let path = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let (places, time) = match &*path {
        LONG_POLL => (Some(&app.polls), app.limits.request_time.saturating_add(Duration::from_secs(MAX_WAIT_SECONDS))),
        ENROLMENTS => (None, app.limits.request_time),
        _ => (Some(&app.permits), app.limits.request_time),
    };
    let of_caller = RequestPlace::among(if path == LONG_POLL { &app.polls_of } else { &app.requests_of });
    request.extensions_mut().insert(of_caller.clone());
    let turned_away = request.extensions().get::<TurnedAway>().map_or(Ok(()), |away| Err(away.why()));
    let mut response = match turned_away.and_then(|()| places.map(place).transpose()) {
        Ok(_place) => {
            let _polling = (path == LONG_POLL).then(|| app.metrics.connection("poll"));
            tokio::select! {
                response = next.run(request) => response,
                () = clock.sleep(time) => {
                    Refusal::from(Failure::retry(Code::Cancelled, "the request took too long").after(BUSY_PAUSE)).into_response()
                }
            }
        }
        Err(refused) => Refusal::from(refused).into_response(),
    };
    drop(of_caller);
    // Callers set their tokens' times by this.
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&clock.now())
        && let Ok(date) = HeaderValue::from_str(&date)
    {
        response.headers_mut().insert(DATE, date);
    }
    // An end that is behind asks for the announcement at once.
    let announced = app.service.announced();
    if announced > 0 {
        response.headers_mut().insert(SERIAL_HEADER, HeaderValue::from(announced));
    }
    let code = response.extensions().get::<Code>().copied();
    app.metrics.request(&path, response.status().as_u16(), code, clock.monotonic().saturating_sub(started));
    response
}

/// A place among `places`, until it is dropped.
///
/// # Errors
/// `rate-limited` where there is none.
pub(super) fn place(places: &Arc<Semaphore>) -> Result<SemaphorePermit<'_>, Failure> {
    let busy = |_| Failure::retry(Code::RateLimited, "the relay works on too many requests at once").after(BUSY_PAUSE);
    places.try_acquire().map_err(busy)
}
