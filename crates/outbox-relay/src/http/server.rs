//! Connections with limits, so that no client can hold what the probes need.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode};
use axum::middleware::from_fn;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tracing::{debug, warn};

use super::api;

/// What one client may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long the head of a request may take, and how long a connection may stay idle.
    pub header_timeout: Duration,
    /// How long the answer may take.
    pub request_timeout: Duration,
    /// Most connections at a time; further ones wait.
    pub connections: usize,
    /// How long a connection may last at all, for clients that stop reading. An open page connects again.
    pub connection_age: Duration,
    /// Largest request body.
    pub body_bytes: usize,
    /// How long requests in progress may take after the stop.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            connections: 256,
            connection_age: Duration::from_secs(15 * 60),
            body_bytes: 64 * 1024,
            shutdown_timeout: Duration::from_millis(500),
        }
    }
}

/// How long to wait after a connection could not be accepted, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `stop` completes.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let router = router
        .layer(RequestBodyLimitLayer::new(limits.body_bytes))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, limits.request_timeout))
        .layer(from_fn(api::one_shape));
    let service = TowerToHyperService::new(router);
    let mut connections = http1::Builder::new();
    connections.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    let free = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();

    let accept = async {
        loop {
            let permit = free.clone().acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let service = service.clone();
                    let service = service_fn(move |mut request: Request<Incoming>| {
                        request.extensions_mut().insert(ConnectInfo(peer));
                        service.call(request)
                    });
                    let connection = connections.serve_connection(TokioIo::new(stream), service);
                    let connection = timeout(limits.connection_age, graceful.watch(connection));
                    tokio::spawn(async move {
                        match connection.await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => debug!(error = %error, "connection ended early"),
                            Err(_) => debug!("connection ended for its age"),
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(error = %error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! { () = stop => {}, () = accept => {} }
    drop(listener);
    // Whoever is not finished by then is cut off: the program has a deadline of its own.
    let _ = timeout(limits.shutdown_timeout, graceful.shutdown()).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::SocketAddr;

    use axum::body::Body;
    use axum::routing::get;
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn start(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(|| async { "hello" }).post(|body: String| async move { body }))
            .route("/stuck", get(std::future::pending::<String>))
            .route("/endless", get(|| async { Body::from_stream(stream::pending::<Result<String, Infallible>>()) }));
        tokio::spawn(serve(listener, router, limits, std::future::pending()));
        address
    }

    fn quick() -> Limits {
        let timeout = Duration::from_millis(200);
        Limits { header_timeout: timeout, request_timeout: timeout, ..Limits::default() }
    }

    /// Sends `request` and reads until the server closes.
    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(5), read).await.expect("the server closes").unwrap();
        answer
    }

    #[tokio::test]
    async fn a_half_sent_request_is_closed() {
        let address = start(quick()).await;
        let answer = exchange(address, "GET / HTTP/1.1\r\nHost: x\r\nX-Slow").await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed() {
        let address = start(quick()).await;
        let answer = exchange(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
    }

    #[tokio::test]
    async fn an_answer_that_takes_too_long_is_given_up() {
        let address = start(quick()).await;
        let answer = exchange(address, "GET /stuck HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_whose_answer_never_ends_is_closed_at_some_time() {
        let address = start(Limits { connection_age: Duration::from_millis(200), ..Limits::default() }).await;
        let answer = exchange(address, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn a_large_body_is_refused() {
        let address = start(quick()).await;
        let answer = exchange(address, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 70000\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }

    #[tokio::test]
    async fn connections_past_the_limit_wait_for_a_free_place() {
        let address = start(Limits { connections: 1, ..quick() }).await;
        let holder = TcpStream::connect(address).await.unwrap();
        let mut waiting = TcpStream::connect(address).await.unwrap();
        waiting.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        drop(holder);
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("hello"), "{answer}");
    }
}
