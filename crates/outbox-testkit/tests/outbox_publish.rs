//! The SQL function `outbox_publish` refuses what the library refuses, in the same words.

use gamemesh_outbox::NewEvent;
use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::validate::Validator;
use outbox_testkit::servers::{PostgresServer, TestDatabase};
use tokio_postgres::Client;
use tokio_postgres::error::{DbError, SqlState};

async fn migrated() -> (TestDatabase, Client) {
    let database = PostgresServer::shared().database().await;
    let store = PostgresStore::new(PostgresConfig::from_dsn(&database.dsn()).unwrap()).unwrap();
    store.migrate_up().await.unwrap();
    let client = database.client().await;
    (database, client)
}

/// What the library says.
fn library(event: &NewEvent) -> Option<String> {
    Validator::default().new_event(event).err().map(|invalid| invalid.to_string())
}

/// What the function that only looks says.
async fn looked_at(client: &Client, event: &NewEvent) -> Option<String> {
    let headers = serde_json::to_string(event.headers()).unwrap();
    let look = "SELECT outbox_invalid($1, $2, $3::text::jsonb, $4, $5::text::jsonb)";
    let row = client
        .query_one(look, &[&event.topic(), &event.event_type(), &event.payload(), &event.event_key(), &headers])
        .await;
    row.unwrap().get(0)
}

async fn publish(client: &Client, event: &NewEvent) -> Result<(), DbError> {
    let headers = serde_json::to_string(event.headers()).unwrap();
    let publish = "SELECT outbox_publish($1, $2, $3::text::jsonb, $4, $5::text::jsonb)";
    let published = client
        .execute(publish, &[&event.topic(), &event.event_type(), &event.payload(), &event.event_key(), &headers])
        .await;
    published.map(drop).map_err(|error| error.as_db_error().expect("an error of the server").clone())
}

fn event(topic: &str, event_type: &str) -> NewEvent {
    NewEvent::from_json(topic, event_type, "1").unwrap()
}

/// Good and bad names, as topics and as types.
fn names() -> Vec<String> {
    let names = [
        "events.player",
        "events.player.eu-1",
        "events.$JS.API",
        "events.');DROP",
        "events.\"quoted\"",
        "",
        ".",
        "events..player",
        ".events",
        "events.",
        " ",
        "events player",
        "events.\tplayer",
        "events.player\r\nPUB $SYS.REQ 0\r\n",
        "events.\u{1}\u{7f}\u{85}",
        "*",
        "events.*",
        "events.>",
        "events.it's \\ \"so\"",
        "events.😀",
        "events.\u{202e}reyalp",
        "events.pl\u{430}yer",
        "$JS.API.STREAM.DELETE.EVENTS",
        "$",
        "_INBOX.abc",
        "_INBOX",
        "_INBOXES.abc",
        "_R_.abc",
        "_r_.abc",
    ];
    let long = [
        "t".repeat(255),
        "t".repeat(256),
        format!("a b{}", "t".repeat(77)),
        format!("a b{}", "t".repeat(78)),
        format!("a b{}", "ä".repeat(39)),
        format!("{}{}", "t".repeat(79), "ä".repeat(20)),
        format!("events.{}", "😀".repeat(100)),
    ];
    names.map(str::to_owned).into_iter().chain(long).collect()
}

fn headers() -> Vec<(String, String)> {
    let headers = [
        ("Tenant", "eu-1"),
        ("Tenant", ""),
        ("X-Snow", "雪 \"quoted\" \\ €"),
        ("!#$%&'*+-.^_`|~09azAZ", "all that a name may hold"),
        ("", "a"),
        ("Ten ant", "a"),
        ("Ten:ant", "a"),
        ("Ten\r\nant", "a"),
        ("Tenänt", "a"),
        ("Tenant", "a\nb"),
        ("Tenant", "a\tb"),
        ("Tenant", "a\u{7f}b"),
        ("Tenant", "a\u{9f}b"),
        ("Tenant", " eu-1"),
        ("Tenant", "eu-1\u{a0}"),
        ("Tenant", "\u{3000}eu-1"),
        ("Tenant", "\u{200b}eu-1"),
        ("Nats-Msg-Id", "0"),
        ("nats-", "0"),
        ("NATS-EXPECTED-STREAM", "X"),
        ("Nats", "0"),
    ];
    let long = |bytes: usize| ("Tenant".to_owned(), "x".repeat(bytes - "Tenant".len()));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    headers.into_iter().chain([long(4096), long(4097)]).collect()
}

fn cases() -> Vec<NewEvent> {
    let mut cases = Vec::new();
    for name in names() {
        cases.push(event(&name, "registered"));
        cases.push(event("events.player", &name));
    }
    let player = || event("events.player", "registered");
    cases.extend(headers().into_iter().map(|(name, value)| player().header(name, value)));
    let many = |count: usize| (0..count).fold(player(), |event, n| event.header(format!("h{n}"), "v"));
    cases.extend([many(64), many(65)]);
    cases.push(player().header("b b", "1").header("aaa a", "1").header("Zz z", "1"));
    cases.extend([player().key(""), player().key("k".repeat(4096)), player().key("k".repeat(4097))]);
    cases.push(player().key("k".repeat(4097)).header("Nats-Msg-Id", "0"));
    let limit = Validator::default().payload_bytes_max as usize;
    let large = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    cases.extend([limit, limit + 1].map(|bytes| NewEvent::from_json("events.player", "", large(bytes)).unwrap()));
    cases
}

#[tokio::test]
async fn outbox_publish_and_the_library_refuse_the_same_in_the_same_words() {
    let (_database, client) = migrated().await;
    let mut refused = 0;
    for event in cases() {
        let named = || format!("{:?} {:?} {:?}", event.topic(), event.event_type(), event.headers());
        let expected = library(&event);
        assert_eq!(looked_at(&client, &event).await, expected, "{}", named());
        match (publish(&client, &event).await, expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => {
                assert_eq!(error.message(), format!("outbox_publish: {expected}"));
                assert_eq!(error.code(), &SqlState::INVALID_PARAMETER_VALUE);
                assert!(error.hint().is_some_and(|hint| hint.contains("outbox.validate")), "{error:?}");
                refused += 1;
            }
            other => panic!("{}: {other:?}", named()),
        }
    }
    assert!(refused > 50, "{refused} were refused");
}

#[tokio::test]
async fn names_that_nobody_thought_of_get_the_same_verdict() {
    const LETTERS: [&str; 24] = [
        "a",
        "Z",
        "7",
        ".",
        "..",
        " ",
        "*",
        ">",
        "$",
        "_INBOX",
        "_R_",
        "-",
        "\\",
        "\"",
        "'",
        "\t",
        "\u{1}",
        "\u{7f}",
        "\u{85}",
        "\u{a0}",
        "ä",
        "\u{430}",
        "😀",
        "tttttttttttttttttttttttttttttttttttttttt",
    ];
    let (_database, client) = migrated().await;
    let mut random = fastrand::Rng::with_seed(11);
    let mut word = |longest: usize| -> String {
        let length = random.usize(..=longest);
        (0..length).map(|_| LETTERS[random.usize(..LETTERS.len())]).collect()
    };
    for _ in 0..1_000 {
        let event = event(&word(8), &word(3)).header(word(3), word(4)).header("Tenant", word(3));
        assert_eq!(looked_at(&client, &event).await, library(&event), "{event:?}");
        let event =
            NewEvent::from_json("events.player", "", "1").unwrap().header(word(3), word(4)).header(word(1), word(3));
        assert_eq!(looked_at(&client, &event).await, library(&event), "{event:?}");
    }
}

#[tokio::test]
async fn those_who_must_not_refuse_switch_it_off_where_they_want() {
    let (_database, client) = migrated().await;
    let bad = event("a b", "registered").header("Nats-Msg-Id", "0");
    client.batch_execute("BEGIN; SET LOCAL outbox.validate = off").await.unwrap();
    publish(&client, &bad).await.unwrap();
    assert_eq!(
        publish(&client, &event("", "registered")).await.unwrap_err().message(),
        "outbox_publish: topic must not be empty"
    );
    client.batch_execute("ROLLBACK").await.unwrap();
    assert!(publish(&client, &bad).await.is_err(), "it ended with the transaction");

    client.batch_execute("SET outbox.payload_bytes_max = 10").await.unwrap();
    let large = NewEvent::from_json("events.player", "", "\"123456789\"").unwrap();
    let error = publish(&client, &large).await.unwrap_err();
    assert_eq!(error.message(), "outbox_publish: payload too large: expected at most 10 bytes, got 11");
}

#[tokio::test]
async fn what_would_never_be_due_is_refused() {
    let (_database, client) = migrated().await;
    let publish = |time: &str| format!("SELECT outbox_publish('a.b', '', '1', available_at => '{time}')");
    let error = client.batch_execute(&publish("infinity")).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("available_at must be a time that comes"), "{error:?}");
    client.batch_execute(&publish("2999-01-01")).await.unwrap();
    client.batch_execute(&publish("-infinity")).await.unwrap();
}
