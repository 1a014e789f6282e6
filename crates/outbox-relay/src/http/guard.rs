//! What stands before every change.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::access::text;
use super::error::ApiError;
use super::state::AppState;

/// Lets only requests through that may change something.
pub(super) async fn guard(
    State(state): State<AppState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if request.method().is_safe() {
        // Nothing changes by GET: no route here has one, and the router says so.
        return Ok(next.run(request).await);
    }
    let headers = request.headers();
    state.access().check_origin(headers)?;
    check_content_type(headers)?;
    state.access().check_token(peer.ip(), headers)?;
    Ok(next.run(request).await)
}

/// Accepts JSON only: a form of another website can send any other type without asking first.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let essence = text(headers, &header::CONTENT_TYPE).and_then(|value| value.split(';').next());
    if essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let message = "expected the header `Content-Type: application/json`";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message))
}
