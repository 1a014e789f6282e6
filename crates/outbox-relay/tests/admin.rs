//! The HTTP API, and who may change something through it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use nix::sys::signal::Signal;
use outbox_testkit::servers::PostgresServer;
use outbox_testkit::wait_until;
use serde_json::{Value, json};

use crate::outbox::{Outbox, TOKEN, Text, id, naming, post};
use crate::program::{Relay, exchange, run, transcript};

const REFUSED: Text<'_> = Text {
    topic: "events.player",
    event_type: "registered",
    last_error: "message too large: expected at most 10 bytes, got 42",
    payload: r#"{"name":"Grace"}"#,
};

const LATE: Text<'_> = Text { last_error: "no answer", event_type: "renamed", ..REFUSED };

fn get(relay: &Relay, path: &str) -> Value {
    let (head, body) = relay.get(path);
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}\n{body}");
    serde_json::from_str(&body).unwrap()
}

fn ids(page: &Value) -> Vec<&str> {
    page["letters"].as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn dead_letters_are_listed_in_pages_filtered_and_grouped() {
    let outbox = Outbox::new();
    outbox.insert(1..=5, REFUSED).await;
    outbox.insert(6..=7, LATE).await;
    let relay = outbox.relay(&[]);

    let first = get(&relay, "/api/v1/dead-letters?limit=4");
    let after = first["next"].as_str().expect("there is more");
    let second = get(&relay, &format!("/api/v1/dead-letters?limit=4&after={after}"));
    assert!(second["next"].is_null(), "{second}");
    let mut listed = [ids(&first), ids(&second)].concat();
    listed.sort();
    assert_eq!(listed, (1..=7).map(id).collect::<Vec<_>>());

    let renamed = get(&relay, "/api/v1/dead-letters?event_type=renamed");
    assert_eq!(ids(&renamed).len(), 2);
    let groups = get(&relay, "/api/v1/dead-letters/groups");
    assert_eq!(groups["groups"][0]["count"], 5, "{groups}");
    assert_eq!(groups["groups"][1]["error_class"], "no answer", "{groups}");
    let one = get(&relay, &format!("/api/v1/dead-letters?id={}", id(3)));
    assert_eq!(ids(&one), [id(3)]);
}

#[tokio::test]
async fn a_payload_is_shown_only_to_whoever_has_the_token() {
    let outbox = Outbox::new();
    outbox.insert(1..=1, REFUSED).await;
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN)]);
    for path in ["", "/groups", &format!("/{}", id(1))] {
        let (_, body) = relay.get(&format!("/api/v1/dead-letters{path}"));
        assert!(body.contains("message too large") && !body.contains("Grace"), "{path}: {body}");
    }
    let (head, _) = relay.get(&format!("/api/v1/dead-letters/{}/payload", id(1)));
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
    let shown = post(&relay, &format!("{}/payload", id(1)), &json!({})).json();
    assert_eq!(shown["payload"], REFUSED.payload);
    relay.wait_for_log("payload shown");
}

#[tokio::test]
async fn a_requeued_letter_is_published_and_the_audit_says_who_asked() {
    let outbox = Outbox::new();
    outbox.insert(1..=3, REFUSED).await;
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN)]);

    let mut body = naming(&[1, 2]);
    body["dry_run"] = true.into();
    let counted = post(&relay, "requeue", &body).json();
    assert_eq!((&counted["changed"], &counted["dry_run"]), (&json!(2), &json!(true)), "{counted}");
    assert_eq!(outbox.count("status = 'FAILED'").await, 3, "a dry run changes nothing");

    let body = naming(&[1, 2, 9]);
    let requeued = post(&relay, "requeue", &body).json();
    assert_eq!((&requeued["changed"], &requeued["complete"]), (&json!(2), &json!(true)), "{requeued}");
    assert_eq!(requeued["untouched"], json!([id(9)]), "{requeued}");
    relay.wait_for_stdout(&id(1));
    relay.wait_for_stdout(&id(2));
    assert_eq!(post(&relay, "requeue", &body).json()["changed"], 0, "asked again, it changes nothing");
    assert_eq!(outbox.count("status = 'FAILED'").await, 1);

    let detail = get(&relay, &format!("/api/v1/dead-letters/{}", id(1)));
    assert_eq!(detail["history"][0]["actor"], "ada (http, 127.0.0.1)", "{detail}");
    assert_eq!(detail["history"][0]["action"], "requeue", "{detail}");
}

#[tokio::test]
async fn a_discard_needs_a_reason_and_touches_what_was_named() {
    let outbox = Outbox::new();
    outbox.insert(1..=3, REFUSED).await;
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN)]);
    let mut body = naming(&[2]);
    let refused = post(&relay, "discard", &body);
    assert_eq!((refused.status, outbox.count("true").await), (400, 3), "{refused:?}");
    body["reason"] = "sent by hand".into();
    assert_eq!(post(&relay, "discard", &body).json()["changed"], 1);
    let (head, _) = relay.get(&format!("/api/v1/dead-letters/{}", id(2)));
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert_eq!(outbox.count("true").await, 2);
}

#[tokio::test]
async fn a_change_that_takes_longer_than_a_request_goes_on_where_it_was() {
    let outbox = Outbox::new();
    outbox.insert(1..=6, REFUSED).await;
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN)]);
    let request_id = id(99);
    let mut body = json!({ "everything": true, "reason": "sent by hand", "per_second": 1, "request_id": request_id });
    let first = post(&relay, "discard", &body).json();
    let changed = first["changed"].as_u64().unwrap();
    assert!((1..6).contains(&changed) && first["complete"] == false, "{first}");
    body["after"] = first["next"].clone();
    let second = post(&relay, "discard", &body).json();
    assert_eq!((second["changed"].as_u64(), &second["complete"]), (Some(6 - changed), &json!(true)), "{second}");
    assert!(second["next"].is_null(), "{second}");
    assert_eq!(outbox.count("true").await, 0);
    body["after"] = "somewhere".into();
    assert_eq!(post(&relay, "discard", &body).status, 400);
}

/// A request that began at the oldest letter each time never got to the newest ones.
#[tokio::test]
async fn few_letters_that_are_the_newest_of_many_are_discarded_by_their_class() {
    let outbox = Outbox::new();
    outbox.insert(1..=60_000, REFUSED).await;
    outbox.insert(60_001..=60_003, LATE).await;
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN)]);
    let (mut changed, mut after) = (0, Value::Null);
    loop {
        let body = json!({
            "filter": { "error_class": "no answer" }, "reason": "sent by hand", "request_id": id(99_999), "after": after,
        });
        let answer = post(&relay, "discard", &body).json();
        changed += answer["changed"].as_u64().unwrap();
        if answer["complete"] == true {
            break;
        }
        assert_ne!(answer["next"], after, "it goes on");
        after = answer["next"].clone();
    }
    assert_eq!((changed, outbox.count("true").await), (3, 60_000));
}

#[tokio::test]
async fn nothing_named_is_not_everything() {
    let outbox = Outbox::new();
    outbox.insert(1..=3, REFUSED).await;
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN)]);
    for body in [
        json!({}),
        json!({ "filter": {} }),
        json!({ "filter": { "ids": [] } }),
        json!({ "filter": { "topics": "a misspelt key" } }),
        json!({ "filter": { "topic": "events.player" }, "everything": true }),
        json!({ "filters": { "topic": "events.player" }, "everything": true }),
    ] {
        let refused = post(&relay, "requeue", &body);
        assert!(refused.status == 400 || refused.status == 422, "{body}: {refused:?}");
        assert!(refused.json()["error"]["code"] == "bad_request", "{body}: {refused:?}");
    }
    assert_eq!(outbox.count("status = 'FAILED'").await, 3);
    assert_eq!(post(&relay, "requeue", &json!({ "everything": true })).json()["changed"], 3);
}

#[tokio::test]
async fn every_error_has_one_shape() {
    let outbox = Outbox::new();
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN)]);
    for (path, status) in [
        ("nowhere", 404),
        ("dead-letters?limit=0", 400),
        ("dead-letters?limit=501", 400),
        ("dead-letters?limit=many", 400),
        ("dead-letters?after=somewhere", 400),
        ("dead-letters?id=7", 400),
        ("dead-letters?created_since=yesterday", 400),
        ("dead-letters?unknown=1", 400),
        ("dead-letters/groups?after=x", 400),
        ("dead-letters/not-an-id", 400),
        ("dead-letters/00000000-0000-7000-8000-000000000001", 404),
        ("dead-letters/requeue", 405),
        ("dead-letters/discard", 405),
    ] {
        let answer = exchange(relay.address(), "GET", &format!("/api/v1/{path}"), &[("Host", "localhost")], "");
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        let error = &answer.json()["error"];
        assert!(error["code"].is_string() && error["message"].is_string(), "{path}: {answer:?}");
    }
    let large = json!({ "reason": "x".repeat(70_000), "everything": true });
    let large = post(&relay, "requeue", &large);
    assert_eq!((large.status, large.json()["error"]["code"].as_str()), (413, Some("too_large")));
}

/// Sends a change that would requeue everything, with `headers` in place of, or besides, those that it needs.
fn attempt(relay: &Relay, headers: &[(&str, &str)]) -> u16 {
    let bearer = format!("Bearer {TOKEN}");
    let needed = [("Host", "localhost"), ("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    let given = |name: &str| headers.iter().any(|(given, _)| *given == name);
    let mut all: Vec<_> = needed.into_iter().filter(|(name, _)| !given(name)).collect();
    all.extend(headers.iter().filter(|(_, value)| !value.is_empty()));
    let answer = exchange(relay.address(), "POST", "/api/v1/dead-letters/requeue", &all, r#"{"everything":true}"#);
    assert!(answer.status == 200 || answer.json()["error"]["code"].is_string(), "{answer:?}");
    answer.status
}

#[tokio::test]
async fn only_the_pages_own_requests_with_the_token_change_something() {
    let outbox = Outbox::new();
    outbox.insert(1..=1, REFUSED).await;
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN), ("OUTBOX_HTTP_HOSTS", "outbox.example.com")]);
    for (headers, status) in [
        ([("Authorization", "")], 401),
        ([("Authorization", "Bearer wrong")], 401),
        ([("Authorization", "Basic YWRtaW46YWRtaW4=")], 401),
        ([("Content-Type", "")], 415),
        ([("Content-Type", "text/plain")], 415),
        ([("Content-Type", "application/x-www-form-urlencoded")], 415),
        ([("Origin", "https://evil.example")], 403),
        ([("Origin", "null")], 403),
        ([("Sec-Fetch-Site", "cross-site")], 403),
        ([("Host", "evil.example")], 421),
    ] {
        assert_eq!(attempt(&relay, &headers), status, "{headers:?}");
    }
    for path in ["requeue", "discard"] {
        let answer =
            exchange(relay.address(), "GET", &format!("/api/v1/dead-letters/{path}"), &[("Host", "localhost")], "");
        assert_eq!(answer.status, 405, "{answer:?}");
    }
    assert_eq!(outbox.count("status = 'FAILED'").await, 1, "none of them changed anything");
    let own =
        [("Host", "outbox.example.com"), ("Origin", "https://outbox.example.com"), ("Sec-Fetch-Site", "same-origin")];
    assert_eq!(attempt(&relay, &own), 200);
    assert_eq!(outbox.count("status = 'FAILED'").await, 0);
}

#[tokio::test]
async fn guessing_the_token_is_slowed_down() {
    let outbox = Outbox::new();
    outbox.insert(1..=1, REFUSED).await;
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN)]);
    for _ in 0..5 {
        assert_eq!(attempt(&relay, &[("Authorization", "Bearer a-guess-of-the-token")]), 401);
    }
    assert_eq!(attempt(&relay, &[("Authorization", "Bearer a-guess-of-the-token")]), 429);
    assert_eq!(outbox.count("status = 'FAILED'").await, 1);
    assert_eq!(attempt(&relay, &[]), 200, "whoever has the right one is not kept out by whoever has not");
    assert_eq!(attempt(&relay, &[("Authorization", "Bearer a-guess-of-the-token")]), 429);
    assert!(relay.get("/api/v1/dead-letters").0.starts_with("HTTP/1.1 200"), "reading goes on");
}

#[tokio::test]
async fn without_a_configured_token_everything_is_read_only() {
    let outbox = Outbox::new();
    outbox.insert(1..=1, REFUSED).await;
    let relay = outbox.relay(&[]);
    let refused = post(&relay, "requeue", &json!({ "everything": true }));
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("OUTBOX_ADMIN_TOKEN"), "{refused:?}");
    assert_eq!(get(&relay, "/api/v1/state")["changes_enabled"], false);
    assert_eq!(outbox.count("status = 'FAILED'").await, 1);
}

#[test]
fn a_short_token_is_refused_and_never_printed() {
    let output = run(&["run"], &[("OUTBOX_ENABLED", "false"), ("OUTBOX_ADMIN_TOKEN", "hunter2-hunter2")]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("OUTBOX_ADMIN_TOKEN: expected at least 16") && !text.contains("hunter2"), "{text}");
}

#[test]
fn the_openapi_document_lists_the_routes_that_there_are() {
    let relay = Relay::start(&[("OUTBOX_ENABLED", "false")]);
    let document = get(&relay, "/api/v1/openapi.json");
    let mut found = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_uppercase();
            let is_change = method == "POST";
            assert_eq!(operation["security"].is_array(), is_change, "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
            let real = path.replace("{id}", &id(1));
            if real != "/api/v1/events" {
                let answer = exchange(relay.address(), &method, &real, &[("Host", "localhost")], "");
                let expected: &[u16] = if is_change { &[415] } else { &[200, 503] };
                assert!(expected.contains(&answer.status), "{method} {path}: {answer:?}");
            }
            found.push(format!("{method} {path}"));
        }
    }
    found.sort();
    let routes = [
        "GET /api/v1/dead-letters",
        "GET /api/v1/dead-letters/groups",
        "GET /api/v1/dead-letters/{id}",
        "GET /api/v1/events",
        "GET /api/v1/openapi.json",
        "GET /api/v1/state",
        "GET /api/v1/troubles",
        "POST /api/v1/dead-letters/discard",
        "POST /api/v1/dead-letters/requeue",
        "POST /api/v1/dead-letters/{id}/payload",
    ];
    assert_eq!(found, routes);
    let text = document.to_string();
    let named = text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next());
    let dangling: Vec<&str> = named.filter(|name| document["components"]["schemas"][*name].is_null()).collect();
    assert!(dangling.is_empty(), "{dangling:?}");
}

#[tokio::test]
async fn the_state_is_followed_by_a_bounded_number_of_clients_until_the_relay_stops() {
    let relay = Relay::start(&[("OUTBOX_ENABLED", "false")]);
    relay.wait_for_log("idle");
    let follow = || {
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        write!(stream, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        let status = lines.next().unwrap();
        (status, lines)
    };
    let mut followers: Vec<_> = (0..32).map(|_| follow()).collect();
    assert!(followers.iter().all(|(status, _)| status == "HTTP/1.1 200 OK"));
    let states: Vec<_> = followers[0].1.by_ref().filter(|line| line.starts_with("data: ")).take(2).collect();
    assert!(states.iter().all(|state| state.contains(r#""phase":"disabled""#)), "{states:?}");
    assert_eq!(follow().0, "HTTP/1.1 503 Service Unavailable");

    drop(followers.split_off(1));
    wait_until("a place is free again", async || (follow().0 == "HTTP/1.1 200 OK").then_some(())).await;
    relay.signal(Signal::SIGTERM);
    let rest: Vec<String> = followers.remove(0).1.collect();
    assert!(rest.iter().any(|line| line.contains(r#""phase":"stopping""#)), "{rest:?}");
}

#[tokio::test]
async fn dead_letters_of_postgres_are_requeued_over_http() {
    let database = PostgresServer::shared().database().await;
    let sql = database.client().await;
    let dsn = database.dsn();
    let environment = [
        ("POSTGRES_DSN", dsn.as_str()),
        ("EVENT_BUS", "stdout"),
        ("OUTBOX_POLL_INTERVAL", "20ms"),
        ("OUTBOX_ADMIN_TOKEN", TOKEN),
    ];
    assert!(run(&["migrate", "up"], &environment).status.success());
    let insert = "INSERT INTO outbox_events (id, event_type, topic, payload, status, attempt_count, last_error)
                  SELECT gen_random_uuid(), 'registered', 'events.player', '{}', 'FAILED', 3, 'refused ' || number
                  FROM generate_series(1, 1200) AS number";
    sql.execute(insert, &[]).await.unwrap();
    let relay = Relay::start(&environment);
    relay.wait_for_log("relay running");
    let groups = get(&relay, "/api/v1/dead-letters/groups");
    assert_eq!(groups["groups"][0]["error_class"], "refused #", "{groups}");
    let page = get(&relay, "/api/v1/dead-letters?limit=500");
    assert_eq!((ids(&page).len(), page["next"].is_string()), (500, true));
    let relays = get(&relay, "/api/v1/state")["relays"].clone();
    assert_eq!(relays[0]["address"], "127.0.0.1", "{relays}");
    assert!(relays[0]["connections"].as_u64() >= Some(1), "{relays}");
    let body = json!({ "filter": { "error_class": "refused #" }, "reason": "fixed" });
    assert_eq!(post(&relay, "requeue", &body).json()["changed"], 1200);
    let counted = "gamemesh_outbox_audit_actions_total{service=\"outbox-relay\",action=\"requeue\"} 1200\n";
    let (_, metrics) = relay.get("/metrics");
    assert!(metrics.contains(counted), "expected {counted} in\n{metrics}");
    let published = "SELECT count(*) FROM outbox_events WHERE status = 'PUBLISHED'";
    wait_until("all are published", async || {
        (sql.query_one(published, &[]).await.unwrap().get::<_, i64>(0) == 1200).then_some(())
    })
    .await;
}

/// Input that no database takes is the asker's to mend, and says which part it is.
#[tokio::test]
async fn what_no_database_takes_is_refused_by_name() {
    let outbox = Outbox::new();
    outbox.insert(1..=1, REFUSED).await;
    let relay = outbox.relay(&[("OUTBOX_ADMIN_TOKEN", TOKEN)]);
    let long = "x".repeat(5_000);
    for (query, named) in [
        ("topic=a%00b", "topic"),
        ("event_type=%00", "event_type"),
        ("error_class=no%00answer", "error_class"),
        ("created_since=-009999-01-02T01:59:59Z", "created_since"),
        ("created_until=-000001-01-01T00:00:00Z", "created_until"),
        ("created_since=yesterday", "created_since"),
        (&*format!("topic={long}"), "topic"),
        ("id=1,2", "id"),
        ("limit=0", "limit"),
        ("limit=99999999999", "limit"),
        ("after=zz", "after"),
        ("colour=red", "colour"),
    ] {
        for path in ["", "/groups"] {
            let (head, body) = relay.get(&format!("/api/v1/dead-letters{path}?{query}"));
            assert!(head.starts_with("HTTP/1.1 400"), "{path}?{query}: {head}\n{body}");
            assert!(body.contains(named) && !body.contains("asking again"), "{path}?{query}: {body}");
        }
    }
    for (change, named) in [
        (json!({ "filter": { "topic": "a\u{0}b" }, "reason": "r" }), "topic"),
        (json!({ "filter": { "error_class": "\u{0}" }, "reason": "r" }), "error_class"),
        (json!({ "filter": { "created_since": "-000500-01-01T00:00:00Z" }, "reason": "r" }), "created_since"),
        (json!({ "everything": true, "reason": "be\u{0}cause" }), "reason"),
        (json!({ "everything": true, "reason": long }), "reason"),
        (json!({ "everything": true, "reason": "r", "actor": "\u{0}" }), "actor"),
        (json!({ "everything": true, "reason": "r", "per_second": 0 }), "per_second"),
        (json!({ "everything": true, "reason": "r", "after": "zz" }), "after"),
        (json!({ "filter": { "ids": ["seven"] }, "reason": "r" }), "ids"),
    ] {
        for path in ["requeue", "discard"] {
            let answer = post(&relay, path, &change);
            let status = [400, 422].contains(&answer.status);
            assert!(status && answer.body.contains(named), "{path} {change}: {answer:?}");
        }
    }
    assert_eq!(outbox.count("status = 'FAILED'").await, 1, "none of them changed anything");
    // What people paste has lines, and what rows of other programs hold is asked for as it is.
    assert!(relay.get("/api/v1/dead-letters?topic=a%09b&error_class=one%0Atwo").0.starts_with("HTTP/1.1 200"));
    let pasted = json!({ "everything": true, "reason": "one\ntwo", "dry_run": true });
    assert_eq!(post(&relay, "discard", &pasted).json()["changed"], 1);
}

#[test]
fn the_command_line_refuses_with_the_same_words() {
    let outbox = Outbox::new();
    let url = outbox.url();
    let environment = [("DATABASE_URL", url.as_str())];
    let long = "x".repeat(5_000);
    for (arguments, said) in [
        (vec!["list", "--topic", &long], "topic: expected at most 4096 characters, got 5000"),
        (
            vec!["list", "--until=-000500-01-01T00:00:00Z"],
            "created_until: expected a time between the years 0 and 9999",
        ),
        (vec!["requeue", "--type", &long], "event_type: expected at most 4096 characters"),
        (vec!["discard", "--all", "--reason", &long], "reason: expected a reason of at most 1000 characters"),
    ] {
        let output = run(&[vec!["dead-letters"], arguments].concat(), &environment);
        let text = transcript(&output);
        assert!(output.status.code() == Some(2) && text.contains(said), "{text}");
    }
}
