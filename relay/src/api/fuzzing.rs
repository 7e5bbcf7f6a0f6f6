//! For the fuzz targets: the forms of query strings.

use axum::{extract::Query, http::Uri};

use super::{
    downlinks::{Of, Poll},
    handlers::Pinned,
};

/// Which of the three queries there are would accept this one: the long poll's, an export's, the announcement's.
#[must_use]
pub fn accepted(uri: &Uri) -> [bool; 3] {
    [Query::<Poll>::try_from_uri(uri).is_ok(), Query::<Of>::try_from_uri(uri).is_ok(), Query::<Pinned>::try_from_uri(uri).is_ok()]
}
