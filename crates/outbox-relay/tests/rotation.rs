//! Secrets that are changed in their files while the relay runs: no restart.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nkeys::KeyPair;
use outbox_testkit::servers::{NatsServer, PostgresServer, RedisServer};
use outbox_testkit::wait_until;
use tempfile::TempDir;

use crate::probe::{Probe, until_published};
use crate::program::{Relay, run, transcript};

struct SecretFile {
    _folder: TempDir,
    path: PathBuf,
}

impl SecretFile {
    fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Self { path: folder.path().join("secret"), _folder: folder };
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.path, format!("{text}\n")).unwrap();
    }

    fn path(&self) -> String {
        self.path.display().to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_of_postgres_is_taken_up() {
    let server = PostgresServer::start().await.unwrap();
    let database = server.database().await;
    let sql = database.client().await;
    sql.batch_execute("CREATE ROLE relay LOGIN SUPERUSER PASSWORD 'first'").await.unwrap();
    let hba: String = sql.query_one("SHOW hba_file", &[]).await.unwrap().get(0);
    let rules = "host all relay 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n";
    std::fs::write(Path::new(&hba), rules).unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();

    let dsn = |password: &str| database.dsn().replace("user=postgres", &format!("user=relay password={password}"));
    let url = |password: &str| database.url().replace("postgres@", &format!("relay:{password}@"));
    wait_until("passwords are asked for", async || {
        (!run(&["migrate", "status"], &[("POSTGRES_DSN", &dsn("wrong"))]).status.success()).then_some(())
    })
    .await;
    let migrated = run(&["migrate", "up"], &[("POSTGRES_DSN", &dsn("first"))]);
    assert!(migrated.status.success(), "{}", transcript(&migrated));

    // Each event says which it is: an end of connections may bring an earlier one a second time.
    let publish = async |number: u32| {
        let publish = format!("SELECT outbox_publish('events.player', 'registered', '\"number {number}\"')");
        sql.batch_execute(&publish).await.unwrap();
    };
    let number = |number: u32| format!("\"number {number}\"");
    let end_connections = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'relay'";
    let connected_since = "SELECT count(*) FROM pg_stat_activity
                           WHERE usename = 'relay' AND backend_start > $1::text::timestamptz";
    let passwords = ["first", "second"];
    let settings = [("POSTGRES_DSN_FILE", passwords.map(dsn)), ("DATABASE_URL_FILE", passwords.map(url))];
    for (round, (setting, [old, new])) in (0..).zip(settings) {
        let [first, second, third] = [1, 2, 3].map(|number| 10 * round + number);
        sql.batch_execute("ALTER ROLE relay PASSWORD 'first'").await.unwrap();
        let file = SecretFile::new(&old);
        let environment = [(setting, &*file.path()), ("EVENT_BUS", "stdout"), ("OUTBOX_POLL_INTERVAL", "20ms")];
        let relay = Relay::start(&environment);
        relay.wait_for_log("relay running");
        publish(first).await;
        relay.wait_for_stdout(&number(first));

        file.write(&new);
        sql.batch_execute("ALTER ROLE relay PASSWORD 'second'").await.unwrap();
        let changed: String = sql.query_one("SELECT clock_timestamp()::text", &[]).await.unwrap().get(0);
        // Again and again: one that was just being made is not listed yet, and still has the old password.
        wait_until("a connection with the new password", async || {
            sql.batch_execute(end_connections).await.unwrap();
            let made: i64 = sql.query_one(connected_since, &[&changed]).await.unwrap().get(0);
            (made > 0).then_some(())
        })
        .await;
        publish(second).await;
        relay.wait_for_stdout(&number(second));

        // Nobody has to be fast: what is no connection string leaves the last one in force.
        file.write("half a connec");
        wait_until("the relay has tried to read it", async || {
            sql.batch_execute(end_connections).await.unwrap();
            relay.has_printed("cannot be read again").then_some(())
        })
        .await;
        publish(third).await;
        relay.wait_for_stdout(&number(third));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_of_nats_is_taken_up() {
    let rule = |password: &str| format!("authorization {{ user: relay, password: {password} }}");
    let mut server = NatsServer::start_with(&rule("first")).await.unwrap();
    let url = |password: &str| server.url().replace("nats://", &format!("nats://relay:{password}@"));
    let file = SecretFile::new(&url("first"));
    let probe = Probe::new(&vec![("NATS_URL_FILE", file.path())]);
    let relay = probe.relay();
    probe.emit();
    until_published(&relay, 1);

    file.write(&url("second"));
    server.configure(&rule("second")).unwrap();
    server.restart().await.unwrap();
    probe.emit();
    until_published(&relay, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_credentials_of_nats_are_taken_up() {
    let keys = [KeyPair::new_user(), KeyPair::new_user()];
    let rule = |key: &KeyPair| format!("authorization {{ users: [{{ nkey: {} }}] }}", key.public_key());
    let mut server = NatsServer::start_with(&rule(&keys[0])).await.unwrap();
    let file = SecretFile::new(&keys[0].seed().unwrap());
    let probe = Probe::new(&vec![("NATS_URL", server.url()), ("NATS_CREDENTIALS_FILE", file.path())]);
    let relay = probe.relay();
    probe.emit();
    until_published(&relay, 1);

    file.write(&keys[1].seed().unwrap());
    server.configure(&rule(&keys[1])).unwrap();
    server.restart().await.unwrap();
    probe.emit();
    until_published(&relay, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_of_redis_is_taken_up() {
    let server = RedisServer::start_with(&["--requirepass", "first"]).await.unwrap();
    let url = |password: &str| server.url().replace("redis://", &format!("redis://:{password}@"));
    let file = SecretFile::new(&url("first"));
    let probe = Probe::new(&vec![("EVENT_BUS", "redis".to_owned()), ("REDIS_URL_FILE", file.path())]);
    let relay = probe.relay();
    probe.emit();
    until_published(&relay, 1);

    let mut admin = redis::Client::open(url("first")).unwrap().get_connection().unwrap();
    file.write(&url("second"));
    redis::cmd("CONFIG").arg(&["SET", "requirepass", "second"]).exec(&mut admin).unwrap();
    let killed: u32 = redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal"]).query(&mut admin).unwrap();
    assert!(killed > 0, "the relay was connected");
    probe.emit();
    until_published(&relay, 2);
}

#[test]
fn a_secret_that_everybody_can_read_is_pointed_out() {
    let file = SecretFile::new("a-token-for-these-tests");
    // A port that is taken ends the program after it has looked.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (mode, warned) in [(0o644, true), (0o440, false), (0o400, false)] {
        std::fs::set_permissions(&file.path, PermissionsExt::from_mode(mode)).unwrap();
        let path = file.path();
        let environment = [
            ("OUTBOX_ADMIN_TOKEN_FILE", path.as_str()),
            ("OUTBOX_ENABLED", "false"),
            ("OUTBOX_HTTP_ADDRESS", "127.0.0.1"),
            ("HTTP_PORT", &port),
        ];
        let text = transcript(&run(&["run"], &environment));
        assert_eq!(text.matches("can be read by every user").count(), usize::from(warned), "{mode:o}: {text}");
        assert_eq!(text.contains("OUTBOX_ADMIN_TOKEN_FILE"), warned, "{mode:o}: {text}");
    }
}
