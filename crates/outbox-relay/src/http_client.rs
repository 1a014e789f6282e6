//! Asks a server over HTTP: a NATS server's monitoring port, or the endpoints of a relay.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const BYTES_MAX: usize = 1024 * 1024;

/// Asks a server without TLS for `path` and returns the body; errors call the server `who`.
pub async fn http_get(who: &str, uri: &Uri, path: &str) -> Result<String, String> {
    match http_ask(who, uri, path).await? {
        (StatusCode::OK, body) => Ok(body),
        (status, _) => Err(format!("{who} answers {status}")),
    }
}

/// Asks a server without TLS for `path` and returns status and body; errors call the server `who`.
pub(crate) async fn http_ask(who: &str, uri: &Uri, path: &str) -> Result<(StatusCode, String), String> {
    let asked = timeout(ANSWER_WITHIN, ask(who, uri, path)).await;
    asked.unwrap_or_else(|_| Err(format!("{who} does not answer within {ANSWER_WITHIN:?}")))
}

async fn ask(who: &str, uri: &Uri, path: &str) -> Result<(StatusCode, String), String> {
    let cannot = |error: &dyn std::error::Error| format!("{who} cannot be asked: {error}");
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(80);
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, port)).await.map_err(|error| cannot(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| cannot(&error))?;
    // Ends with the answer; the request reports why.
    tokio::spawn(connection);

    let request = Request::get(path).header(HOST, format!("{host}:{port}")).body(String::new());
    let request = request.map_err(|error| cannot(&error))?;
    let response = sender.send_request(request).await.map_err(|error| cannot(&error))?;
    let status = response.status();
    let body = to_bytes(Body::new(response.into_body()), BYTES_MAX).await.map_err(|error| cannot(&error))?;
    Ok((status, String::from_utf8(body.into()).map_err(|error| cannot(&error))?))
}
