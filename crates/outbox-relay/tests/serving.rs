use std::collections::VecDeque;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use outbox_testkit::servers::free_port;

use crate::program::{Relay, run, sqlite, transcript};

#[test]
fn a_disabled_relay_serves_its_endpoints_and_stops_cleanly() {
    let mut relay = Relay::start(&[("OUTBOX_ENABLED", "false"), ("OTEL_SERVICE_NAME", "shop")]);
    relay.wait_for_log("idle");
    let (head, body) = relay.get("/healthz");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: application/json"), "{head}");
    assert_eq!(body, r#"{"status":"ok","service":"shop"}"#, "as the earlier relay answers");
    let (head, body) = relay.get("/readyz");
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("disabled"), "{head}\n{body}");
    let (head, metrics) = relay.get("/metrics");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    for name in ["events_published", "events_dead_lettered", "publish_failures"] {
        let line = format!("gamemesh_outbox_{name}_total{{service=\"shop\"}} 0\n");
        assert!(metrics.contains(&line), "expected {line} in\n{metrics}");
    }
    assert!(relay.get("/nowhere").0.starts_with("HTTP/1.1 404"));
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));
}

#[test]
fn requests_are_counted_by_the_template_of_their_route() {
    let relay = Relay::start(&[("OUTBOX_ENABLED", "false")]);
    for id in ["0192f0c1-0000-7000-8000-000000000001", "0192f0c1-0000-7000-8000-000000000002", "none"] {
        relay.get(&format!("/api/v1/dead-letters/{id}"));
    }
    relay.get("/healthz");
    relay.get("/made/up");
    let metrics = relay.get("/metrics").1;
    let of = |name: &str, path: &str| {
        let start = format!("gamemesh_http_{name}{{service=\"outbox-relay\",method=\"GET\",path=\"{path}\"");
        let lines = metrics.lines().filter(|line| line.starts_with(&start));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    assert_eq!(of("requests_total", "/api/v1/dead-letters/{id}"), 3, "{metrics}");
    assert_eq!(of("errors_total", "/api/v1/dead-letters/{id}"), 3, "{metrics}");
    assert_eq!((of("requests_total", "/healthz"), of("errors_total", "/healthz")), (1, 0), "{metrics}");
    assert_eq!((of("requests_total", "other"), of("errors_total", "other")), (1, 1), "{metrics}");
    assert_eq!(of("request_duration_seconds_count", "/api/v1/dead-letters/{id}"), 3, "{metrics}");
    assert!(!metrics.contains("0192f0c1") && !metrics.contains("made"), "{metrics}");
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let relay = Relay::start(&[("OUTBOX_ENABLED", "false")]);
    for path in ["/", "/page.css", "/main.js", "/letters.js", "/api/v1/state"] {
        let (head, body) = relay.get(path);
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        for header in [
            "content-security-policy: default-src 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
        ] {
            assert!(head.contains(header), "{path}: expected {header} in {head}");
        }
        assert!(!body.contains("innerHTML") && !body.contains("http://") && !body.contains("https://"), "{path}");
    }
    let state: serde_json::Value = serde_json::from_str(&relay.get("/api/v1/state").1).unwrap();
    assert_eq!(state["phase"], "disabled");
    assert_eq!(state["published"], 0);
}

#[test]
fn an_unreachable_database_is_waited_for() {
    let dsn = format!("host=127.0.0.1 port={} user=relay connect_timeout=1", free_port());
    let mut relay = Relay::start(&[("POSTGRES_DSN", &dsn), ("EVENT_BUS", "stdout")]);
    relay.wait_for_log("database not reachable yet");
    assert!(relay.get("/healthz").0.starts_with("HTTP/1.1 200"));
    let (head, body) = relay.get("/readyz");
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let readiness: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(readiness["store"]["ok"], false, "{body}");
    assert_eq!(readiness["bus"]["ok"], true, "{body}");
    assert!(readiness["store"]["error"].is_string(), "{body}");
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.exit_code(), Some(0));
}

#[test]
fn a_relay_is_ready_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    let environment = [("DATABASE_URL", url.as_str()), ("EVENT_BUS", "stdout")];
    assert!(run(&["migrate", "up"], &environment).status.success());
    let mut relay = Relay::start(&environment);
    relay.wait_for_log("relay running");
    let (head, body) = relay.get("/readyz");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{body}");
    relay.signal(Signal::SIGINT);
    relay.wait_for_log("stopped");
    assert_eq!(relay.exit_code(), Some(0));
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let environment = [("OUTBOX_ENABLED", "false"), ("OUTBOX_HTTP_ADDRESS", "127.0.0.1"), ("HTTP_PORT", port.as_str())];
    let output = run(&["run"], &environment);
    assert_eq!(output.status.code(), Some(1));
    let text = transcript(&output);
    assert!(
        text.contains(&format!("Error: cannot listen on 127.0.0.1:{port}")) && text.contains("Hint: HTTP_PORT"),
        "{text}"
    );
}

/// Four times as many clients as there are places, each holding its connection in one of the ways that cost nothing.
#[test]
fn clients_that_only_hold_connections_keep_no_probe_from_its_answer() {
    let relay = Relay::start(&[("OUTBOX_ENABLED", "false")]);
    let nothing_more = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
    let no_body = "POST /api/v1/dead-letters/requeue HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n";
    let never_read = "GET /main.js HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20);
    let follower = "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut held = VecDeque::new();
    let started = Instant::now();
    for number in 0..1000 {
        let mut client = TcpStream::connect(relay.address()).unwrap();
        let request = [nothing_more, no_body, &never_read, follower, ""][number % 5];
        client.write_all(request.as_bytes()).unwrap();
        held.push_back(client);
        // The oldest have been dropped by the server; this process has only so many descriptors.
        if held.len() > 400 {
            held.pop_front();
        }
        if number % 100 == 99 {
            for path in ["/healthz", "/readyz", "/metrics"] {
                assert!(relay.get(path).0.starts_with("HTTP/1.1 200"), "{path} after {number} clients");
            }
        }
    }
    // Sooner than any of them is dropped for its slowness.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
