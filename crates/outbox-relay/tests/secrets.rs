//! Wherever a password can be set, and whatever goes wrong with it, it is never printed, served or stored.

use std::path::Path;
use std::process::Output;

use nix::sys::signal::Signal;
use nkeys::KeyPair;
use outbox_testkit::servers::{NatsServer, PostgresServer, RedisServer, free_port};
use outbox_testkit::wait_until;

use crate::probe::{Probe, with};
use crate::program::{Relay, run, sqlite, transcript};

const CANARY: &str = "c4n4ry-hunter2";
/// The same, as it may stand in a URL.
const CANARIES: [&str; 2] = [CANARY, "c4n4ry%2Dhunter2"];

fn holds_no_canary(what: &str, text: &str) {
    for canary in CANARIES {
        assert!(!text.contains(canary), "{what}: {text}");
    }
}

fn fails_without_a_canary(what: &str, output: &Output) {
    let text = transcript(output);
    assert!(!output.status.success(), "{what}: {text}");
    holds_no_canary(what, &text);
}

/// What reaches the database, and how it is given nothing.
const COMMANDS: [&[&str]; 8] = [
    &["migrate", "status"],
    &["migrate", "up"],
    &["status"],
    &["status", "--json"],
    &["doctor"],
    &["dead-letters", "list"],
    &["emit", "--topic", "events.player", "--payload", "1"],
    &["bench", "insert"],
];

/// Settings that lead to no database.
fn broken_databases(folder: &Path, postgres: u16) -> Vec<(&'static str, String)> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let nobody = free_port();
    let no_key = write("no.pem", CANARY);
    vec![
        // Where nobody listens, and where nobody is.
        ("POSTGRES_DSN", format!("host=127.0.0.1 port={nobody} user=relay password={CANARY}")),
        ("DATABASE_URL", format!("postgres://relay:{CANARY}@127.0.0.1:{nobody}/app")),
        ("DATABASE_URL", format!("postgres://relay:c4n4ry%2Dhunter2@127.0.0.1:{nobody}/app")),
        ("DATABASE_URL", format!("postgres://relay:{CANARY}@nowhere.invalid/app?connect_timeout=1")),
        // A server that refuses the login, the database, or TLS.
        ("POSTGRES_DSN", format!("host=127.0.0.1 port={postgres} user=relay password={CANARY} dbname=postgres")),
        ("DATABASE_URL", format!("postgres://relay:{CANARY}@127.0.0.1:{postgres}/nothing")),
        ("POSTGRES_DSN", format!("host=127.0.0.1 port={postgres} user=relay password={CANARY} sslmode=require")),
        ("DATABASE_URL", format!("postgres://relay:{CANARY}@127.0.0.1:{postgres}/app?sslmode=verify-full")),
        // Certificates that are none.
        ("POSTGRES_DSN", format!("host=127.0.0.1 password={CANARY} sslmode=verify-full sslrootcert={no_key}")),
        ("POSTGRES_DSN", format!("host=127.0.0.1 password={CANARY} sslmode=verify-full sslrootcert=/nowhere.pem")),
        ("POSTGRES_DSN", format!("host=127.0.0.1 password={CANARY} sslcert={no_key} sslkey={no_key}")),
        ("POSTGRES_DSN", format!("host=127.0.0.1 password={CANARY} sslcert={no_key}")),
        // Slips of the hand.
        ("POSTGRES_DSN", format!("host=127.0.0.1 user=relay password={CANARY} sslmode=maybe")),
        ("POSTGRES_DSN", format!("host=127.0.0.1 password={CANARY} port=many")),
        ("POSTGRES_DSN", format!("host=127.0.0.1 port={CANARY}")),
        ("POSTGRES_DSN", format!("password='{CANARY}")),
        ("POSTGRES_DSN", format!("host=127.0.0.1 {CANARY}")),
        ("POSTGRES_DSN", format!("{CANARY}=1")),
        ("POSTGRES_DSN", CANARY.to_owned()),
        ("POSTGRES_DSN_FILE", CANARY.to_owned()),
        ("POSTGRES_DSN_FILE", folder.display().to_string()),
        ("POSTGRES_DSN_FILE", write("unclosed", &format!("password='{CANARY}"))),
        ("DATABASE_URL", format!("postgres://relay:{CANARY}@127.0.0.1:port/app")),
        ("DATABASE_URL", format!("postgres://relay:{CANARY}@127.0.0.1/app?sslmode={CANARY}")),
        ("DATABASE_URL", format!("postgres://relay:{CANARY}@127.0.0.1/app?{CANARY}=1")),
        ("DATABASE_URL", format!("postgres://relay:{CANARY}@[127.0.0.1/app")),
        ("DATABASE_URL", format!("mysql://relay:{CANARY}@db/app")),
        ("DATABASE_URL", format!("relay:{CANARY}@db/app")),
        ("DATABASE_URL", format!("sqlite:///nowhere/outbox.db?{CANARY}={CANARY}")),
        ("DATABASE_URL_FILE", CANARY.to_owned()),
        ("DATABASE_URL_FILE", write("mysql", &format!("mysql://relay:{CANARY}@db/app\n"))),
        // A configuration file.
        ("OUTBOX_CONFIG", write("unclosed.toml", &format!("[nats]\nurl = \"nats://relay:{CANARY}@nats:4222\n"))),
        ("OUTBOX_CONFIG", write("type.toml", &format!("[database]\nurl = {{ password = \"{CANARY}\" }}\n"))),
        ("OUTBOX_CONFIG", write("value.toml", &format!("[database]\nurl = \"mysql://relay:{CANARY}@db\"\n"))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_the_database_is_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let server = postgres_that_wants_passwords().await;
    let broken = broken_databases(folder.path(), server.port());
    assert!(broken.len() >= 30, "{}", broken.len());
    for (variable, value) in &broken {
        let environment = [(*variable, value.as_str()), ("EVENT_BUS", "stdout"), ("LOG_LEVEL", "trace")];
        // Each has its own way to the database, but what cannot be read is the same for all of them.
        let connects = variable != &"OUTBOX_CONFIG" && value.contains("127.0.0.1:") | value.contains("port=");
        let commands = if connects { &COMMANDS[..] } else { &COMMANDS[..1] };
        for command in commands {
            fails_without_a_canary(&format!("{command:?} {variable}={value}"), &run(command, &environment));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_of_the_bus_is_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let database = sqlite(folder.path());
    assert!(run(&["migrate", "up"], &[("DATABASE_URL", &database)]).status.success());
    let (no_seed, nobody) = (folder.path().join("no.creds"), free_port());
    std::fs::write(&no_seed, CANARY).unwrap();
    let nats = NatsServer::start_with("authorization { user: relay, password: right }").await.unwrap();
    let redis = RedisServer::start_with(&["--requirepass", "right"]).await.unwrap();
    let login = |url: String| url.replace("://", &format!("://relay:{CANARY}@"));

    // The settings are wrong: the program does not start.
    for (bus, variable, value) in [
        ("nats", "NATS_URL", format!("nats://relay:{CANARY}@127.0.0.1:port")),
        ("nats", "NATS_URL", format!("http://relay:{CANARY}@127.0.0.1")),
        ("nats", "NATS_URL", format!("nats://relay:{CANARY}@[127.0.0.1")),
        ("nats", "NATS_URL_FILE", CANARY.to_owned()),
        ("nats", "NATS_CREDENTIALS_FILE", no_seed.display().to_string()),
        ("nats", "OUTBOX_NATS_MONITORING_URL", format!("https://relay:{CANARY}@127.0.0.1")),
        ("redis", "REDIS_URL", format!("http://relay:{CANARY}@127.0.0.1")),
        ("redis", "REDIS_URL", format!("redis://relay:{CANARY}@127.0.0.1:port")),
        ("redis", "REDIS_URL", format!("redis://relay:{CANARY}@127.0.0.1/{CANARY}")),
        ("redis", "REDIS_URL_FILE", CANARY.to_owned()),
        ("stdout", "OUTBOX_ADMIN_TOKEN", format!("{CANARY} with spaces")),
    ] {
        let environment = [
            ("DATABASE_URL", database.as_str()),
            ("EVENT_BUS", bus),
            (variable, &value),
            ("HTTP_PORT", "0"),
            ("LOG_LEVEL", "trace"),
        ];
        let output = run(&["run"], &environment);
        fails_without_a_canary(&format!("{variable}={value}"), &output);
        assert_eq!(output.status.code(), Some(2), "{}", transcript(&output));
        let text = transcript(&output);
        assert!(text.contains(variable), "{text}");
    }

    // The server is away, or refuses: the commands say so.
    for (bus, variable, value) in [
        ("nats", "NATS_URL", format!("nats://relay:{CANARY}@127.0.0.1:{nobody}")),
        ("nats", "NATS_URL", format!("tls://{CANARY}@127.0.0.1:{nobody}")),
        ("nats", "NATS_URL", login(nats.url())),
        ("nats", "NATS_URL", login(nats.url()).replace("nats://", "tls://")),
        ("nats", "NATS_URL", nats.url().replace("://", &format!("://{CANARY}@"))),
        ("redis", "REDIS_URL", format!("redis://relay:{CANARY}@127.0.0.1:{nobody}")),
        ("redis", "REDIS_URL", login(redis.url())),
        ("redis", "REDIS_URL", login(redis.url()).replace("redis://", "rediss://")),
        ("redis", "REDIS_URL", redis.url().replace("://", &format!("://:{CANARY}@"))),
    ] {
        let environment =
            [("DATABASE_URL", database.as_str()), ("EVENT_BUS", bus), (variable, &value), ("LOG_LEVEL", "trace")];
        for command in [&["status"][..], &["status", "--json"], &["doctor"]] {
            fails_without_a_canary(&format!("{command:?} {value}"), &run(command, &environment));
        }
    }
}

/// Both sides refuse a relay that keeps trying, and everything that it shows to anybody is looked at.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_refused_serves_and_logs_no_password() {
    let server = postgres_that_wants_passwords().await;
    let nats = NatsServer::start_with("authorization { user: relay, password: right }").await.unwrap();
    let dsn = format!("host=127.0.0.1 port={} user=relay password={CANARY} dbname=postgres", server.port());
    let url = nats.url().replace("://", &format!("://relay:{CANARY}@"));
    let mut relay = Relay::start(&[
        ("POSTGRES_DSN", &dsn),
        ("NATS_URL", &url),
        ("OUTBOX_ADMIN_TOKEN", &format!("{CANARY}-token")),
        ("LOG_LEVEL", "trace"),
    ]);
    relay.wait_for_log("database not reachable yet");
    wait_until("both sides are known to be away", async || {
        let ready = relay.get("/readyz").1;
        (ready.contains("authentication failed") && ready.contains("authorization violation")).then_some(())
    })
    .await;
    for path in ["/metrics", "/readyz", "/healthz", "/api/v1/state", "/api/v1/dead-letters", "/nowhere"] {
        let (head, body) = relay.get(path);
        holds_no_canary(path, &format!("{head}\n{body}"));
    }
    relay.signal(Signal::SIGTERM);
    relay.exit_code();
    let log = relay.everything_printed();
    assert!(log.contains("password authentication failed"), "{log}");
    holds_no_canary("log", &log);
}

/// What a refused event leaves in its row and in the dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_error_holds_no_password() {
    let key = KeyPair::new_user();
    let rules = format!(
        "max_payload: 2000\nauthorization {{ users: [{{ user: relay, password: {CANARY} }}, {{ nkey: {} }}] }}",
        key.public_key()
    );
    let server = NatsServer::start_with(&rules).await.unwrap();
    let url = server.url().replace("://", &format!("://relay:{CANARY}@"));
    let bus = with(&vec![("NATS_URL", url)], &[("OUTBOX_MAX_ATTEMPTS", "1"), ("LOG_LEVEL", "trace")]);
    let probe = Probe::new(&bus);
    probe.emit_payload(&"1".repeat(3000));
    let mut relay = probe.relay();
    relay.wait_for_log("set aside as FAILED");
    relay.signal(Signal::SIGTERM);
    relay.exit_code();
    holds_no_canary("log", &relay.everything_printed());
    for command in [&["dead-letters", "list"][..], &["dead-letters", "list", "--group"], &["status"]] {
        let text = transcript(&run(command, &probe.environment()));
        holds_no_canary("dead letters", &text);
    }
    let listed = transcript(&run(&["dead-letters", "list"], &probe.environment()));
    assert!(listed.contains("events.player"), "{listed}");
}

/// Starts a server that lets only `postgres` in without a password.
async fn postgres_that_wants_passwords() -> PostgresServer {
    let server = PostgresServer::start().await.unwrap();
    let sql = server.database().await.client().await;
    sql.batch_execute("CREATE ROLE relay LOGIN PASSWORD 'right'").await.unwrap();
    let hba: String = sql.query_one("SHOW hba_file", &[]).await.unwrap().get(0);
    let rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(Path::new(&hba), rules).unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let wrong = format!("host=127.0.0.1 port={} user=relay password=wrong dbname=postgres", server.port());
    wait_until("passwords are asked for", async || {
        let refused = run(&["migrate", "status"], &[("POSTGRES_DSN", &wrong)]);
        transcript(&refused).contains("authentication failed").then_some(())
    })
    .await;
    server
}
