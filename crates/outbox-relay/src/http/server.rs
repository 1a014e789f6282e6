//! Connections with limits, so that no client can hold what the probes need.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, State};
use axum::http::{Request, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use gamemesh_outbox::telemetry::Telemetry;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tokio_io_timeout::TimeoutStream;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tracing::{debug, warn};

use super::error::one_shape;

/// What one client may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long the head of a request may take, and how long a connection may stay idle.
    pub header_timeout: Duration,
    /// How long the answer may take.
    pub request_timeout: Duration,
    /// Most connections at a time; a further one takes the place of the oldest.
    pub connections: usize,
    /// How long a connection may last at all. An open page connects again.
    pub connection_age: Duration,
    /// How long a client may take none of what is sent to it.
    pub write_timeout: Duration,
    /// The most that is kept of a request's head, and of answers that their client has not taken yet.
    pub buffer_bytes: usize,
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
            write_timeout: Duration::from_secs(10),
            buffer_bytes: 16 * 1024,
            body_bytes: 64 * 1024,
            shutdown_timeout: Duration::from_millis(500),
        }
    }
}

/// How long to wait after a connection could not be accepted, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until `stop` completes, and counts the requests.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    telemetry: Telemetry,
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let router = router
        .layer(RequestBodyLimitLayer::new(limits.body_bytes))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, limits.request_timeout))
        .layer(from_fn(one_shape))
        // Outside of all others: what they refuse is counted as well.
        .layer(from_fn_with_state(telemetry, count));
    let service = TowerToHyperService::new(router);
    let mut connections = http1::Builder::new();
    connections.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(limits.buffer_bytes);
    let graceful = GracefulShutdown::new();

    let accept = async {
        let mut open = VecDeque::new();
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    make_room(&mut open, limits.connections);
                    let service = service.clone();
                    let service = service_fn(move |mut request: Request<Incoming>| {
                        request.extensions_mut().insert(ConnectInfo(peer));
                        service.call(request)
                    });
                    let mut stream = TimeoutStream::new(stream);
                    stream.set_write_timeout(Some(limits.write_timeout));
                    let connection = connections.serve_connection(TokioIo::new(Box::pin(stream)), service);
                    let connection = timeout(limits.connection_age, graceful.watch(connection));
                    let connection = tokio::spawn(async move {
                        match connection.await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => debug!(error = %error, "connection ended early"),
                            Err(_) => debug!("connection ended for its age"),
                        }
                    });
                    open.push_back(connection.abort_handle());
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

/// Counts a request by the template of its route, never by what a client wrote.
async fn count(State(telemetry): State<Telemetry>, request: axum::extract::Request, next: Next) -> Response {
    let (method, began) = (request.method().clone(), Instant::now());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map(MatchedPath::as_str);
    telemetry.requested(method.as_str(), route, response.status().as_u16(), began.elapsed());
    response
}

/// Closes the oldest connections until one more fits below `max`. Whoever only holds a connection is soon the oldest; a
/// probe has its answer long before.
fn make_room(open: &mut VecDeque<AbortHandle>, max: usize) {
    if open.len() >= max {
        open.retain(|connection| !connection.is_finished());
    }
    while open.len() >= max.max(1) {
        if let Some(oldest) = open.pop_front() {
            oldest.abort();
        }
    }
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
            .route("/large", get(|| async { "x".repeat(100_000) }))
            .route("/stuck", get(std::future::pending::<String>))
            .route("/endless", get(|| async { Body::from_stream(stream::pending::<Result<String, Infallible>>()) }));
        tokio::spawn(serve(listener, router, Telemetry::new("test"), limits, std::future::pending()));
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
    async fn a_connection_past_the_limit_takes_the_place_of_the_oldest() {
        let address = start(Limits { connections: 2, ..Limits::default() }).await;
        let mut oldest = TcpStream::connect(address).await.unwrap();
        let mut younger = TcpStream::connect(address).await.unwrap();
        let answer = exchange(address, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(answer.ends_with("hello"), "{answer}");
        assert_eq!(oldest.read(&mut [0]).await.unwrap(), 0, "it was closed");
        // One place is free again, so nobody has to go for this one.
        let answer = exchange(address, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(answer.ends_with("hello"), "{answer}");
        younger.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        younger.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("hello"), "{answer}");
    }

    /// Sends `request`, and then a byte again and again, much more often than the server's timeouts, until it closes.
    async fn drip(address: SocketAddr, request: &str) {
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        writer.write_all(request.as_bytes()).await.unwrap();
        let dripping = tokio::spawn(async move {
            let mut often = tokio::time::interval(Duration::from_millis(10));
            while writer.write_all(b"0").await.is_ok() {
                often.tick().await;
            }
        });
        // A server that closes before it has read everything resets the connection, and its answer may be lost.
        let mut answer = Vec::new();
        let closed = reader.read_to_end(&mut answer);
        let _ = tokio::time::timeout(Duration::from_secs(5), closed).await.expect("the server closes");
        dripping.abort();
    }

    #[tokio::test]
    async fn a_head_or_a_body_that_comes_byte_by_byte_is_not_waited_for() {
        let address = start(quick()).await;
        for request in [
            "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
            // Nobody reads this body.
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n",
        ] {
            drip(address, request).await;
        }
    }

    #[tokio::test]
    async fn a_client_that_takes_none_of_its_answers_is_dropped() {
        let limits = Limits { write_timeout: Duration::from_millis(200), ..Limits::default() };
        let address = start(limits).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Asks for more and more, and reads nothing: at some time neither side has room.
        let asks = async {
            let request = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
            while stream.write_all(&request).await.is_ok() {}
        };
        tokio::time::timeout(Duration::from_secs(20), asks).await.expect("the server closes");
    }

    #[tokio::test]
    async fn a_head_takes_no_more_memory_than_it_may() {
        let address = start(quick()).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}", "x".repeat(17 * 1024));
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 431");
    }
}
