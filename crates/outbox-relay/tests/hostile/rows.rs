//! The rows: what careless or hostile producers insert by a plain `INSERT`, and what becomes of each.

use uuid::Uuid;

use self::Expect::{Refused, Unchanged, Untraced};
use super::expect::{CREATED_AT, Expect, LIMITS, Row};

/// Lists every row. What a column is not given, it has from an ordinary event.
pub(super) fn rows() -> Vec<Row> {
    [payloads(), sizes(), topics(), event_types(), headers(), header_limits(), carriers(), keys(), times(), states()]
        .into_iter()
        .flatten()
        .collect()
}

/// Repeats `text`, for values of a size.
fn times_of(text: &str, times: usize) -> String {
    text.repeat(times)
}

fn payloads() -> Vec<Row> {
    let payload = |name, payload: &str| Row::new(name).with("payload", payload);
    let tokens = ["null", "true", "0", "-0.0", "\"\"", "[]", "{}", "[[], {}, [null]]"];
    let scalars = tokens.map(|token| Row::new(&format!("payload {token}")).with("payload", token));
    let texts = [
        payload("escaped control characters", r#""\u0001\u001f\u007f \b\f\n\r\t \" \\ \/""#),
        payload("text from right to left", "\"\u{202e}gnp.exe \u{2066}\u{5e9}\u{5dc}\u{5d5}\u{5dd}\u{2069}\""),
        payload("separators that JavaScript takes for line breaks", "\"a\u{2028}b\u{2029}c\u{feff}d\u{85}e\""),
        payload(
            "what a page could take for markup",
            r#"{"</script><script>alert(1)</script>": "<img src=x onerror=a()>"}"#,
        ),
        payload("what SQL could take for its own", r#"["'); DROP TABLE outbox_events; --", "$1", "\\x00"]"#),
        payload("what the envelope could take for its end", r#"["\"}", "},\"id\":\"x\""]"#),
        payload("a pair of surrogates", r#""\ud83d\ude00 😀""#),
        payload("an escaped NUL", r#""a\u0000b""#).postgres(Expect::NotInserted("22P05")),
        payload("a lone surrogate", r#""\ud800""#).postgres(Expect::NotInserted("22P02")),
        payload("text that is no JSON", "hello")
            .postgres(Expect::NotInserted("22P02"))
            .sqlite(Refused("payload is not JSON")),
        payload("two values", "{}{}").postgres(Expect::NotInserted("22P02")).sqlite(Refused("payload is not JSON")),
        payload("nothing at all", "").postgres(Expect::NotInserted("22P02")).sqlite(Refused("payload is not JSON")),
        Row::new("payload NULL").with_sql("payload", "NULL").expect(Expect::NotInserted("23502")),
    ];
    let numbers = [
        payload("an integer of 20 digits", "12345678901234567890"),
        payload("a number of 60 digits", "1234567890123456789012345678901234567890.12345678901234567890"),
        payload("the number 1e100000", "1e100000"),
        payload("the number 1e-1000", "1e-1000"),
        payload("a number that PostgreSQL has no room for", "1e131072").postgres(Expect::NotInserted("22003")),
        // A few bytes on disk, 131 kB each as text.
        payload("small numbers that grow to 2.6 MB", &format!("[{}1]", times_of("1e131071,", 20)))
            .postgres_nats(Refused("message too large: expected at most 1048576 bytes, got 262")),
        payload(
            "small numbers that grow beyond what PostgreSQL can write",
            &format!("[{}1]", times_of("1e131071,", 9000)),
        )
        // The server takes seconds and 1 GiB to fail: once is enough.
        .not_postgres_with_redis()
        .postgres(Refused("column payload cannot be read as text")),
    ];
    let shapes = [
        payload("5,000 levels", &format!("{}1{}", times_of("[", 5000), times_of("]", 5000))),
        payload("100,000 levels", &format!("{}1{}", times_of("[", 100_000), times_of("]", 100_000)))
            .postgres(Expect::NotInserted("54001")),
        payload("names that occur twice", r#"{"b": 1, "a": 2, "b": {"b": 3, "b": 4}}"#),
        payload(
            "20,000 names",
            &format!("{{{}\"\":0}}", (0..20_000).map(|n| format!("\"{n}\":{n},")).collect::<String>()),
        ),
        payload("spaces and line breaks", " {\n\t\"a\" :\r\n [ 1 , 2 ] }\n"),
    ];
    scalars.into_iter().chain(texts).chain(numbers).chain(shapes).collect()
}

fn sizes() -> Vec<Row> {
    let of_size = |name, bytes: usize| {
        let payload = format!("\"{}\"", times_of("x", bytes - 2));
        Row::new(name).with("payload", &payload).with("created_at", CREATED_AT)
    };
    let too_large = "message too large: expected at most 1048576 bytes, got";
    vec![
        of_size("a message of exactly what NATS takes", LIMITS.nats_payload_bytes()),
        of_size("a message of one byte more", LIMITS.nats_payload_bytes() + 1).nats(Refused(too_large)),
        of_size("a payload of exactly the limit", LIMITS.payload_bytes).nats(Refused(too_large)),
        of_size("a payload of one byte more", LIMITS.payload_bytes + 1)
            .expect(Refused("payload too large: expected at most 8388608 bytes, got 8388609")),
        of_size("a payload of 10 MiB", 10 << 20).expect(Refused("payload too large: expected at most 8388608 bytes")),
        // Hardly more than 1 MiB on disk: it compresses well.
        Row::new("a payload of 100 MiB")
            .with_sql("payload", "to_jsonb(repeat('x', 104857600))")
            .only_postgres()
            .expect(Refused("payload too large: expected at most 8388608 bytes, got 104857602")),
    ]
}

fn topics() -> Vec<Row> {
    let refused = |topic: &str, expected| {
        Row::new(&format!("topic {:.40}", format!("{topic:?}"))).with("topic", topic).expect(Refused(expected))
    };
    let taken = |topic: &str| Row::new(&format!("topic {topic:.40}")).with("topic", topic);
    const DOTS: &str = "expected tokens separated by single dots";
    const ASCII: &str = "expected printable ASCII without spaces, `*` and `>`";
    const CONTROL: &str = "expected a name outside the bus's control subjects";
    vec![
        refused("", DOTS),
        refused(".", DOTS),
        refused("events..player", DOTS),
        refused(".events", DOTS),
        refused("events.", DOTS),
        refused(" ", ASCII),
        refused("events player", ASCII),
        refused("events.player ", ASCII),
        refused("events.\tplayer", ASCII),
        refused("events.player\r\nPUB $SYS.REQ 0\r\n", ASCII),
        refused("events.\u{1}\u{7f}", ASCII),
        refused("*", ASCII),
        refused("events.*", ASCII),
        refused("events.>", ASCII),
        refused("events.pl*yer", ASCII),
        refused("events.😀", ASCII),
        refused("events.\u{202e}reyalp", ASCII),
        refused("events.pl\u{430}yer", ASCII),
        refused("$JS.API.STREAM.DELETE.EVENTS", CONTROL),
        refused("$SYS.REQ.SERVER.PING", CONTROL),
        refused("$KV.config.a", CONTROL),
        refused("_INBOX.abc", CONTROL),
        refused("_R_.abc", CONTROL),
        refused(&times_of("t", 256), "expected at most 255 bytes"),
        refused(&format!("events.{}", times_of("t", 65_536)), "expected at most 255 bytes"),
        Row::new("topic NULL").with_sql("topic", "NULL").expect(Expect::NotInserted("23502")),
        taken(&format!("events.{}", times_of("t", 248))),
        taken("events.$JS.API"),
        taken("events.\"quoted\""),
        taken("events.');DROP"),
        taken("events.%00%0d%0a"),
        taken("events.{{7}}"),
        // No stream takes it: its route waits, and nothing is counted. Redis makes a stream of any topic.
        taken("nowhere.at.all").nats(Unchanged),
    ]
}

fn event_types() -> Vec<Row> {
    let event_type = |name: &str, event_type: &str| Row::new(name).with("event_type", event_type);
    vec![
        event_type("no event type", ""),
        event_type("an event type of several tokens", "a.b.c"),
        event_type("an event type like a control subject", "$JS.API"),
        event_type("an event type that is a wildcard", "*").expect(Refused("invalid event type")),
        event_type("an event type that takes everything", ">").expect(Refused("invalid event type")),
        event_type("an event type with a space", "regis tered").expect(Refused("invalid event type")),
        event_type("an event type with a line break", "a\r\nb").expect(Refused("invalid event type")),
        event_type("an event type of 64 KiB", &times_of("t", 65_536)).expect(Refused("expected at most 255 bytes")),
        event_type("an event type that ends with a dot", "registered.").expect(Refused("invalid event type")),
    ]
}

fn headers() -> Vec<Row> {
    let headers = |name: &str, headers: &str| Row::new(name).with("headers", headers);
    let no_object = |json: &str| headers(&format!("headers {json}"), json).expect(Refused("JSON object of strings"));
    let refused = |name: &str, json: &str, error| headers(name, json).expect(Refused(error));
    const NAME: &str = "expected a name of letters, digits";
    const CONTROL: &str = "expected a value without control characters";
    const BUS: &str = "names that begin with Nats- belong to the bus";
    let no_objects =
        ["[]", "1", "\"Tenant: eu-1\"", "null", r#"{"a": 1}"#, r#"{"a": null}"#, r#"{"a": ["b"]}"#, r#"{"a": {}}"#];
    let others = [
        headers("ordinary headers", r#"{"Tenant": "eu-1", "X-Snow": "雪 \"quoted\" \\ €"}"#),
        headers("an empty header", r#"{"Tenant": ""}"#),
        headers("headers that differ in case", r#"{"tenant": "a", "Tenant": "b", "TENANT": "c"}"#),
        headers(
            "headers named like the fields of a Redis entry",
            r#"{"id": "1", "envelope": "{}", "key": "k", "type": "t"}"#,
        ),
        headers("a value that looks like a header", r#"{"Tenant": "Nats-Rollup: all"}"#),
        headers("a header of trace context, and none in the carrier", r#"{"traceparent": "forged"}"#),
        refused("spaces around a value", r#"{"Tenant": " eu-1 "}"#, "expected a value without spaces around it"),
        refused("a value of one space", r#"{"Tenant": " "}"#, "expected a value without spaces around it"),
        refused("a value with a line break", r#"{"Tenant": "a\r\nNats-Rollup: all"}"#, CONTROL),
        refused("a value with a line feed", r#"{"Tenant": "a\nb"}"#, CONTROL),
        refused("a value with a tab", r#"{"Tenant": "a\tb"}"#, CONTROL),
        refused("a value with DEL", r#"{"Tenant": "a\u007fb"}"#, CONTROL),
        refused("a value with NUL", r#"{"Tenant": "a\u0000b"}"#, CONTROL).postgres(Expect::NotInserted("22P05")),
        refused("a name with a line break", r#"{"Ten\r\nant": "a"}"#, NAME),
        refused("no name", r#"{"": "a"}"#, NAME),
        refused("a name with a space", r#"{"Ten ant": "a"}"#, NAME),
        refused("a name with a colon", r#"{"Ten:ant": "a"}"#, NAME),
        refused("a name of other letters", r#"{"Tenänt": "a"}"#, NAME),
        refused("Nats-Msg-Id", r#"{"Nats-Msg-Id": "0"}"#, BUS),
        refused("nats-msg-id", r#"{"nats-msg-id": "0"}"#, BUS),
        refused("Nats-Rollup", r#"{"Nats-Rollup": "all"}"#, BUS),
        refused("NATS-EXPECTED-STREAM", r#"{"NATS-EXPECTED-STREAM": "X"}"#, BUS),
        refused("Nats-TTL", r#"{"Nats-TTL": "1s"}"#, BUS),
        refused("Nats-Schedule", r#"{"Nats-Schedule": "@every 1s"}"#, BUS),
        headers("headers that are no JSON", "Tenant: eu-1")
            .postgres(Expect::NotInserted("22P02"))
            .sqlite(Refused("JSON object of strings")),
    ];
    no_objects.map(no_object).into_iter().chain(others).collect()
}

fn header_limits() -> Vec<Row> {
    let headers = |name: &str, headers: String| Row::new(name).with("headers", &headers);
    let many = |count: usize, value: &str| {
        let entries: Vec<String> = (0..count).map(|n| format!("\"h{n}\": \"{value}\"")).collect();
        format!("{{{}}}", entries.join(", "))
    };
    let long = |bytes: usize| format!("{{\"Tenant\": \"{}\"}}", times_of("x", bytes - "Tenant".len()));
    const BYTES: &str = "expected at most 4096 bytes of name and value";
    vec![
        headers("64 headers", many(64, "v")),
        headers("64 headers of 4,000 bytes", many(64, &times_of("v", 4000)))
            .nats(Refused("header size exceeds maximum allowed of 64k")),
        headers("65 headers", many(65, "v")).expect(Refused("expected at most 64 headers, got 65")),
        headers("10,000 headers", many(10_000, "v")).expect(Refused("expected at most 64 headers, got 10000")),
        headers("a header of 4,096 bytes", long(4096)),
        headers("a header of 4,097 bytes", long(4097)).expect(Refused(BYTES)),
        headers("a header of 64 KiB", long(65_536)).expect(Refused(BYTES)),
        headers("a header of 3 MiB", long(3 << 20)).expect(Refused("JSON object of strings")),
    ]
}

fn carriers() -> Vec<Row> {
    let carrier = |name: &str, carrier: &str| Row::new(name).with("carrier", carrier);
    let unreadable = |json: &str| carrier(&format!("carrier {json}"), json).expect(Untraced);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let unreadables = ["[]", "1", "null", "\"00-1\"", r#"{"traceparent": 1}"#, r#"{"traceparent": {"a": "b"}}"#];
    let others = [
        carrier("trace context", &format!(r#"{{"traceparent": "{trace}", "tracestate": "a=1", "baggage": "b=2"}}"#)),
        carrier("trace context in capitals", &format!(r#"{{"TRACEPARENT": "{trace}"}}"#)),
        carrier("an invalid traceparent", r#"{"traceparent": "00-zz-zz-zz"}"#),
        carrier(
            "a traceparent of zeros",
            r#"{"traceparent": "00-00000000000000000000000000000000-0000000000000000-00"}"#,
        ),
        carrier("a traceparent of another version", &format!(r#"{{"traceparent": "ff{}"}}"#, &trace[2..])),
        carrier("a traceparent with a line break", r#"{"traceparent": "00-1\r\nNats-Rollup: all"}"#),
        carrier("a traceparent with spaces around it", r#"{"traceparent": " 00-1 "}"#),
        carrier("an empty traceparent", r#"{"traceparent": ""}"#),
        carrier("entries that are no trace context", r#"{"Nats-Msg-Id": "0", "": "", "a\nb": "雪"}"#),
        carrier("a tracestate of 1 MiB", &format!(r#"{{"tracestate": "{}"}}"#, times_of("x", 1 << 20)))
            .expect(Untraced),
    ];
    unreadables.map(unreadable).into_iter().chain(others).collect()
}

fn keys() -> Vec<Row> {
    let key = |name: &str, key: &str| Row::new(name).with("event_key", key);
    const BYTES: &str = "event key too large: expected at most 4096 bytes";
    vec![
        key("an empty key", ""),
        key("a key with line breaks", "player\r\n7\tx\u{1}"),
        key("a key from right to left", "\u{202e}7-reyalp"),
        key("a key of 4,096 bytes", &times_of("k", 4096)),
        key("a key of 4,097 bytes", &times_of("k", 4097)).expect(Refused(BYTES)),
        key("a key of 3 MiB", &times_of("k", 3 << 20)).expect(Refused(BYTES)),
    ]
}

fn times() -> Vec<Row> {
    let created = |time: &str| Row::new(&format!("created at {time}")).with("created_at", time);
    let available = |time: &str| Row::new(&format!("available at {time}")).with("available_at", time);
    const YEARS: &str = "expected a time between the years 0 and 9999";
    vec![
        created("1969-12-31T23:59:59.999999Z"),
        created("0001-01-01T00:00:00Z"),
        created("9999-12-30T21:59:59Z"),
        created("2026-01-02T03:04:05.123456+14:00"),
        created("0044-03-15 12:00:00 BC").only_postgres().expect(Refused(YEARS)),
        Row::new("created before the years that RFC 3339 knows")
            .with("created_at", "-000043-03-15T12:00:00Z")
            .only_sqlite()
            .expect(Refused(YEARS)),
        created("10000-01-01T00:00:00Z").only_postgres().expect(Refused("column created_at")),
        created("infinity").only_postgres().expect(Refused("column created_at")),
        created("-infinity").only_postgres().expect(Refused("column created_at")),
        available("-infinity").only_postgres(),
        available("0001-01-01T00:00:00.000Z"),
        available("2999-01-01T00:00:00.000Z").expect(Unchanged),
        available("infinity").postgres(Unchanged).sqlite(Expect::NotInserted("CHECK")),
        available("tomorrow noon").postgres(Expect::NotInserted("22007")).sqlite(Expect::NotInserted("CHECK")),
    ]
}

fn states() -> Vec<Row> {
    let state = |name: &str, status: &str| Row::new(name).with("status", status);
    let attempts = |name: &str, attempts: &'static str| Row::new(name).with_sql("attempt_count", attempts);
    vec![
        state("a state that there is not", "DONE").expect(Expect::NotInserted("23514")),
        state("a state in small letters", "pending").expect(Expect::NotInserted("23514")),
        state("published before it was sent", "PUBLISHED").expect(Unchanged),
        state("set aside before it was tried", "FAILED").expect(Unchanged),
        attempts("fewer attempts than none", "-2147483648"),
        attempts("as many attempts as there can be", "2147483647"),
        attempts("fewer attempts than none, and a bad topic", "-2147483648")
            .with("topic", "*")
            .expect(Refused("invalid topic")),
        attempts("as many attempts as there can be, and a bad topic", "2147483647")
            .with("topic", "*")
            .expect(Refused("invalid topic")),
        attempts("more attempts than there can be", "2147483648").only_postgres().expect(Expect::NotInserted("22003")),
        Row::new("published in the past, it says").with("published_at", "2020-01-01T00:00:00.000Z"),
        Row::new("with an error already").with("last_error", "<b>\u{1b}[31m\r\nforged"),
        Row::new("the id of zeros").with_id(Uuid::nil()),
        Row::new("the same id again").with_id(Uuid::nil()).expect(Expect::NotInserted("23505")),
        Row::new("the id of ones").with_id(Uuid::max()),
        Row::new("no id").with_sql("id", "NULL").expect(Expect::NotInserted("23502")),
        Row::new("an id that is none")
            .with_sql("id", "'7'")
            .postgres(Expect::NotInserted("22P02"))
            .sqlite(Expect::NotInserted("CHECK")),
    ]
}
