//! Asking a server that listens on a port of this machine.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Returns the body of a page.
pub(super) async fn get(port: u16, path: &str) -> Result<String> {
    exchange(port, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")).await
}

/// Sends JSON and returns the body of the answer.
pub(super) async fn post(port: u16, path: &str, json: &str) -> Result<String> {
    let head = format!("POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json");
    exchange(port, &format!("{head}\r\nContent-Length: {}\r\n\r\n{json}", json.len())).await
}

/// HTTP 1.0, so that the body ends with the connection.
async fn exchange(port: u16, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("expected a head and a body")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "expected status 200, got {head}\n{body}");
    Ok(body.to_owned())
}
