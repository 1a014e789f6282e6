//! Encrypted connections of the real program to real servers: whom it believes, whom it refuses, and what it says before it
//! knows.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use outbox_testkit::authority::{Authority, Certificate, Quality};
use outbox_testkit::servers::{NatsServer, PostgresServer, RedisServer, free_port};
use outbox_testkit::wait_until;

use crate::probe::{Settings, bus_is_refused, published_once, with};
use crate::program::{PATIENCE, Relay, run, transcript};

/// What is wrong with a certificate, and what the program says about it.
const REFUSED: [(Quality, &str); 3] = [
    (Quality::Expired, "expired"),
    (Quality::WrongName, "not valid for name"),
    (Quality::UnknownAuthority, "UnknownIssuer"),
];

#[tokio::test(flavor = "multi_thread")]
async fn postgres_shows_a_valid_certificate_or_gets_nothing() {
    let authority = Authority::new().unwrap();
    let server = PostgresServer::start_with_tls(&authority.server(Quality::Good).unwrap()).await.unwrap();
    let database = server.database().await;
    let ca = authority.ca();
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", database.url(), ca.display());
    let environment = [("DATABASE_URL", url.as_str()), ("EVENT_BUS", "stdout"), ("OUTBOX_POLL_INTERVAL", "20ms")];
    let migrated = run(&["migrate", "up"], &environment);
    assert!(migrated.status.success(), "{}", transcript(&migrated));
    let relay = Relay::start(&environment);
    relay.wait_for_log("relay running");
    let sql = database.client().await;
    sql.batch_execute("SELECT outbox_publish('events.player', 'registered', '1')").await.unwrap();
    relay.wait_for_stdout("events.player");
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                     WHERE application_name = 'outbox-relay'";
    assert_eq!(sql.query_one(encrypted, &[]).await.unwrap().get::<_, Option<bool>>(0), Some(true));

    for (quality, said) in REFUSED {
        let server = PostgresServer::start_with_tls(&authority.server(quality).unwrap()).await.unwrap();
        let url = format!("{}?sslmode=verify-full&sslrootcert={}", server.database().await.url(), ca.display());
        // The commands reach the database in two ways: the migrations have a client of their own.
        for command in [&["migrate", "up"][..], &["status"], &["emit", "--topic", "a.b", "--payload", "1"]] {
            let refused = run(command, &[("DATABASE_URL", &url), ("EVENT_BUS", "stdout")]);
            let text = transcript(&refused);
            assert_eq!(refused.status.code(), Some(1), "{quality:?}: {text}");
            assert!(text.contains(said), "{quality:?} {command:?}: expected {said:?} in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_without_tls_is_refused_unless_that_was_asked_for() {
    let url = PostgresServer::shared().database().await.url();
    let told = |sslmode: &str| format!("{url}?sslmode={sslmode}");
    for (url, code) in [
        (told("verify-full"), 1),
        (told("verify-ca"), 1),
        (told("require"), 1),
        (told("prefer"), 0),
        (told("disable"), 0),
        // The server is on this machine.
        (url.clone(), 0),
    ] {
        for command in [["migrate", "up"], ["migrate", "status"]] {
            let output = run(&command, &[("DATABASE_URL", &url)]);
            let text = transcript(&output);
            assert_eq!(output.status.code(), Some(code), "{url}: {text}");
            assert!(code == 0 || text.contains("TLS"), "{url}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_shows_a_valid_certificate_or_gets_nothing() {
    let authority = Authority::new().unwrap();
    for tls_first in [false, true] {
        let certificate = authority.server(Quality::Good).unwrap();
        let server = NatsServer::start_with(&nats_tls(&certificate, tls_first)).await.unwrap();
        let settings = bus_settings("nats", &server.url().replace("nats://", "tls://"), &authority.ca(), tls_first);
        published_once(&settings);
        let options = async_nats::ConnectOptions::new().add_root_certificates(authority.ca()).require_tls(true);
        let options = if tls_first { options.tls_first() } else { options };
        let jetstream = async_nats::jetstream::new(options.connect(server.url()).await.unwrap());
        let stream = jetstream.get_stream("PLAYER").await.unwrap();
        assert_eq!(stream.cached_info().state.messages, 1);

        for (quality, said) in REFUSED {
            let certificate = authority.server(quality).unwrap();
            let server = NatsServer::start_with(&nats_tls(&certificate, tls_first)).await.unwrap();
            // Without tls:// as well: the certificates say that it is wanted.
            bus_is_refused(&bus_settings("nats", &server.url(), &authority.ca(), tls_first), said);
        }
    }
    let plain = NatsServer::shared().url();
    bus_is_refused(&bus_settings("nats", &plain, &authority.ca(), false), "IO error");
    bus_is_refused(&bus_settings("nats", &plain.replace("nats://", "tls://"), &authority.ca(), false), "IO error");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_shows_a_valid_certificate_or_gets_nothing() {
    let authority = Authority::new().unwrap();
    let (server, url) = redis_with_tls(&authority.server(Quality::Good).unwrap(), &[]).await;
    published_once(&bus_settings("redis", &url, &authority.ca(), false));
    let mut plain = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    assert_eq!(redis::cmd("XLEN").arg("events.player").query::<u64>(&mut plain).unwrap(), 1);

    for (quality, said) in REFUSED {
        let (_server, url) = redis_with_tls(&authority.server(quality).unwrap(), &[]).await;
        bus_is_refused(&bus_settings("redis", &url, &authority.ca(), false), said);
    }
    let without_tls = RedisServer::shared().url().replace("redis://", "rediss://");
    bus_is_refused(&bus_settings("redis", &without_tls, &authority.ca(), false), "cannot connect to Redis");
}

/// All three ask a client for its certificate as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_opens_the_servers_that_ask_for_one() {
    let authority = Authority::new().unwrap();
    let (certificate, ca) = (authority.server(Quality::Good).unwrap(), authority.ca());
    let client = authority.client("postgres").unwrap();
    let files = [client.cert.to_str().unwrap(), client.key.to_str().unwrap()];

    let verify = format!(
        "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {ca:?}, verify: true }}",
        certificate.cert, certificate.key
    );
    let nats = NatsServer::start_with(&verify).await.unwrap();
    let settings = bus_settings("nats", &nats.url(), &ca, false);
    bus_is_refused(&settings, "ertificate");
    published_once(&with(&settings, &[("OUTBOX_NATS_CERT_FILE", files[0]), ("OUTBOX_NATS_KEY_FILE", files[1])]));

    let arguments = ["--tls-ca-cert-file", ca.to_str().unwrap(), "--tls-auth-clients", "yes"];
    let (_server, url) = redis_with_tls(&certificate, &arguments).await;
    let settings = bus_settings("redis", &url, &ca, false);
    bus_is_refused(&settings, "cannot connect to Redis");
    published_once(&with(&settings, &[("OUTBOX_REDIS_CERT_FILE", files[0]), ("OUTBOX_REDIS_KEY_FILE", files[1])]));

    let server = PostgresServer::start_with_tls(&certificate).await.unwrap();
    let database = server.database().await;
    let sql = database.client().await;
    let hba: String = sql.query_one("SHOW hba_file", &[]).await.unwrap().get(0);
    let data = Path::new(&hba).parent().unwrap();
    std::fs::copy(&ca, data.join("ca.pem")).unwrap();
    std::fs::write(&hba, "hostssl all all 127.0.0.1/32 cert\nhostnossl all all 127.0.0.1/32 trust\n").unwrap();
    sql.batch_execute("ALTER SYSTEM SET ssl_ca_file = 'ca.pem'").await.unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", database.url(), ca.display());
    wait_until("the server asks for certificates", async || {
        let refused = run(&["migrate", "status"], &[("DATABASE_URL", &url)]);
        (!refused.status.success()).then_some(())
    })
    .await;
    let url = format!("{url}&sslcert={}&sslkey={}", files[0], files[1]);
    for command in [["migrate", "up"], ["migrate", "status"]] {
        let output = run(&command, &[("DATABASE_URL", &url)]);
        assert!(output.status.success(), "{}", transcript(&output));
    }
}

const CANARY: &str = "c4n4ry-hunter2";

/// Servers that offer no TLS read everything that the program sends them, and find no login in it.
#[test]
fn no_login_is_sent_before_the_connection_is_encrypted() {
    let ca = Authority::new().unwrap();
    let ca = ca.ca();
    let ssl_request = [0, 0, 0, 8, 4, 210, 22, 47];

    let (port, seen) = plain_server(b"", b"N");
    for sslmode in ["verify-full", "require"] {
        let dsn = format!("host=127.0.0.1 port={port} user=relay password={CANARY} sslmode={sslmode}");
        for command in [["migrate", "up"], ["migrate", "status"]] {
            assert_eq!(run(&command, &[("POSTGRES_DSN", &dsn)]).status.code(), Some(1));
            assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), ssl_request, "{sslmode} {command:?}");
        }
    }

    let info = b"INFO {\"server_id\":\"a\",\"version\":\"2.12.0\",\"headers\":true,\"max_payload\":1048576,\"nonce\":\"n\"}\r\n";
    let (port, seen) = plain_server(info, b"-ERR 'Unknown Protocol Operation'\r\n");
    bus_is_refused(&bus_settings("nats", &format!("tls://relay:{CANARY}@127.0.0.1:{port}"), &ca, false), "IO error");
    only_a_handshake(&seen.recv_timeout(PATIENCE).unwrap());

    let (port, seen) = plain_server(b"", b"-ERR unknown command\r\n");
    let url = format!("rediss://relay:{CANARY}@127.0.0.1:{port}");
    bus_is_refused(&bus_settings("redis", &url, &ca, false), "cannot connect to Redis");
    only_a_handshake(&seen.recv_timeout(PATIENCE).unwrap());
}

/// PostgreSQL 17 and newer take TLS at once, from clients that say in it what they speak.
#[test]
fn direct_negotiation_says_what_is_spoken() {
    let (port, seen) = plain_server(b"", b"");
    let dsn = format!("host=127.0.0.1 port={port} user=relay password={CANARY} sslmode=require sslnegotiation=direct");
    for command in [["migrate", "up"], ["migrate", "status"]] {
        assert_eq!(run(&command, &[("POSTGRES_DSN", &dsn)]).status.code(), Some(1));
        let sent = seen.recv_timeout(PATIENCE).unwrap();
        only_a_handshake(&sent);
        assert!(sent.windows(11).any(|window| window == b"\x0apostgresql"), "{}", String::from_utf8_lossy(&sent));
    }
}

/// A libpq client would fall back to plain text here.
#[test]
fn without_sslmode_a_database_elsewhere_must_show_its_certificate() {
    let (port, seen) = plain_server(b"", b"N");
    // `hostaddr` leads the connection here; taken alone, the name says that the server is elsewhere.
    let dsn = format!("host=db.example port={port} user=relay password={CANARY}");
    let output = run(&["migrate", "status"], &[("POSTGRES_DSN", &dsn)]);
    assert_eq!(output.status.code(), Some(1), "{}", transcript(&output));
    assert!(seen.try_recv().is_err());
}

fn only_a_handshake(sent: &[u8]) {
    const HANDSHAKE: u8 = 22;
    assert_eq!(sent.first(), Some(&HANDSHAKE), "{}", String::from_utf8_lossy(sent));
    assert!(!sent.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()));
}

/// Starts a server that greets, answers the first bytes, and tells for each connection everything that was sent to it.
fn plain_server(greeting: &'static [u8], answer: &'static [u8]) -> (u16, Receiver<Vec<u8>>) {
    use std::io::{Read, Write};

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, seen) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut sent = vec![0; 64 * 1024];
                let greeted = stream.write_all(greeting);
                let count = greeted.and_then(|()| stream.read(&mut sent)).unwrap_or_default();
                sent.truncate(count);
                // The client may be gone by now; what it sent is what counts.
                let _ = stream.write_all(answer).and_then(|()| stream.read_to_end(&mut sent));
                sender.send(sent)
            });
        }
    });
    (port, seen)
}

fn bus_settings(bus: &'static str, url: &str, ca: &Path, tls_first: bool) -> Settings {
    let (url_setting, ca_setting) =
        if bus == "nats" { ("NATS_URL", "OUTBOX_NATS_CA_FILE") } else { ("REDIS_URL", "OUTBOX_REDIS_CA_FILE") };
    vec![
        ("EVENT_BUS", bus.to_owned()),
        (url_setting, url.to_owned()),
        (ca_setting, ca.display().to_string()),
        ("OUTBOX_NATS_TLS_FIRST", tls_first.to_string()),
        ("OUTBOX_POLL_INTERVAL", "20ms".to_owned()),
    ]
}

fn nats_tls(certificate: &Certificate, tls_first: bool) -> String {
    let Certificate { cert, key } = certificate;
    let first = if tls_first { ", handshake_first: true" } else { "" };
    format!("tls {{ cert_file: {cert:?}, key_file: {key:?}{first} }}")
}

/// Starts a server with a port for TLS, whose URL is returned, and one without, to look at it.
async fn redis_with_tls(certificate: &Certificate, more: &[&str]) -> (RedisServer, String) {
    let port = free_port();
    let (tls_port, cert) = (port.to_string(), certificate.cert.to_str().unwrap());
    let mut arguments = vec!["--tls-port", &tls_port, "--tls-cert-file", cert];
    arguments.extend(["--tls-key-file", certificate.key.to_str().unwrap()]);
    match more {
        [] => arguments.extend(["--tls-auth-clients", "no"]),
        more => arguments.extend(more),
    }
    (RedisServer::start_with(&arguments).await.unwrap(), format!("rediss://127.0.0.1:{port}"))
}
