//! Who is believed: only the stream that takes a subject, however many others answer, and however quickly.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use gamemesh_outbox::bus::BusErrorKind::{NoRoute, Unknown};
use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::bus::nats::{NatsBus, NatsConfig};
use outbox_testkit::bus_suite::event;
use outbox_testkit::proxy::{Direction, Flow, TcpProxy};
use outbox_testkit::servers::{JetStream, NatsServer, free_port};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::nats::{PLAYER, config, connect, healthy, jetstream, stored};
use super::{kinds, text};

/// Stands for the status by which a server says that nobody is there.
const NOBODY: &str = "503";

/// What services that have no business there answer.
const FOREIGN: [&str; 9] = [
    NOBODY,
    "",
    "ok",
    "[1]",
    r#"{"error":{"code":404,"description":"player not found"}}"#,
    r#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"}}"#,
    r#"{"stream":"ORDERS","seq":7}"#,
    r#"{"stream":"PLAYER","domain":"elsewhere","seq":7}"#,
    r#"{"error":{"code":400,"err_code":10109,"description":"invalid operation on sealed stream"},"stream":"ORDERS"}"#,
];

/// Answers every event below `subject` at once with all of `answers`. No client lets itself be used for some of them.
async fn service(server: &NatsServer, subject: &str, answers: &'static [&'static str]) {
    let (reader, mut writer) = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap().into_split();
    let begin = format!("CONNECT {{\"headers\":true,\"verbose\":false}}\r\nSUB {subject} 1\r\nPING\r\n");
    writer.write_all(begin.as_bytes()).await.unwrap();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    while line != "PONG\r\n" {
        line.clear();
        reader.read_line(&mut line).await.unwrap();
    }
    tokio::spawn(async move {
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let reply = match words[..] {
                ["MSG", _, _, reply, _] | ["HMSG", _, _, reply, _, _] => Some(reply),
                ["MSG" | "HMSG", ..] => None,
                ["PING"] => {
                    writer.write_all(b"PONG\r\n").await.unwrap();
                    continue;
                }
                _ => continue,
            };
            let mut body = vec![0; words.last().unwrap().parse::<usize>().unwrap() + 2];
            reader.read_exact(&mut body).await.unwrap();
            let Some(reply) = reply else { continue };
            let said: String = answers
                .iter()
                .map(|answer| match *answer {
                    NOBODY => format!("HPUB {reply} 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"),
                    answer => format!("PUB {reply} {}\r\n{answer}\r\n", answer.len()),
                })
                .collect();
            writer.write_all(said.as_bytes()).await.unwrap();
        }
    });
}

/// A hub with JetStream, and a leaf node without, linked with a delay: on the leaf everybody is quicker than the stream.
async fn far_stream(delay: Duration) -> (NatsServer, TcpProxy, NatsServer) {
    let port = free_port();
    let listen = format!("leafnodes {{ listen: \"127.0.0.1:{port}\" }}");
    let hub = NatsServer::start_in(JetStream::Domain("hub"), &listen).await.unwrap();
    let link = TcpProxy::start(port).await.unwrap();
    link.set(Direction::ToClient, Flow::Delay(delay));
    let remote = format!("leafnodes {{ remotes: [{{ url: \"nats://127.0.0.1:{}\" }}] }}", link.port());
    let leaf = NatsServer::start_in(JetStream::None, &remote).await.unwrap();
    (hub, link, leaf)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_quicker_than_the_stream_costs_no_copy() {
    let (hub, _link, leaf) = far_stream(Duration::from_millis(50)).await;
    let domain = NatsConfig { jetstream_domain: Some("hub".into()), ..config(leaf.url()) };
    let bus = NatsBus::connect(domain).await.unwrap();
    healthy(&bus).await;
    service(&leaf, "events.player.>", &FOREIGN).await;
    for _ in 0..3 {
        let batch: Vec<_> = (0..20).map(|_| event(PLAYER, "registered")).collect();
        assert_eq!(kinds(&bus.publish(&batch).await), vec![None; 20]);
    }
    assert_eq!(stored(&hub, "PLAYER").await, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_gone_is_no_route_at_once_where_somebody_says_that_nobody_is_there() {
    let server = NatsServer::start().await.unwrap();
    let bus = connect(&server).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
    service(&server, "events.player.>", &[NOBODY]).await;
    jetstream(&server).await.delete_stream("PLAYER").await.unwrap();
    let receipts = bus.publish(&[event(PLAYER, "registered"), event(PLAYER, "banned")]).await;
    assert_eq!(kinds(&receipts), [Some(NoRoute), Some(NoRoute)], "{receipts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_of_a_stream_that_does_not_take_the_subject_counts_for_nothing() {
    let server = NatsServer::start().await.unwrap();
    let bus = connect(&server).await;
    healthy(&bus).await;
    service(&server, "events.ghost.>", &[r#"{"stream":"PLAYER","seq":1}"#, r#"{"stream":"ORDERS","seq":7}"#]).await;
    let started = tokio::time::Instant::now();
    let receipts = bus.publish(&[event("events.ghost", "registered"), event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(NoRoute), None], "{receipts:?}");
    assert!(text(&receipts).contains("no stream takes subject events.ghost.registered"), "{}", text(&receipts));
    assert!(started.elapsed() < Duration::from_secs(3), "nobody waits for a service");
}

#[tokio::test]
async fn a_core_subscriber_does_not_hide_that_there_is_no_stream() {
    let server = NatsServer::start().await.unwrap();
    let bus = connect(&server).await;
    healthy(&bus).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let _subscriber = client.subscribe("events.>").await.unwrap();
    client.flush().await.unwrap();
    let started = tokio::time::Instant::now();
    let batch: Vec<_> = (0..100).map(|number| event("events.none", &format!("t{number}"))).collect();
    assert_eq!(kinds(&bus.publish(&batch).await), vec![Some(NoRoute); 100]);
    assert!(started.elapsed() < Duration::from_secs(3), "it took {:?}", started.elapsed());
    assert!(
        bus.client().statistics().out_messages.load(std::sync::atomic::Ordering::Relaxed) < 250,
        "none was published"
    );
}

#[tokio::test]
async fn a_stream_that_moved_is_believed_at_its_first_acknowledgement() {
    let server = NatsServer::start().await.unwrap();
    let bus = connect(&server).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
    let admin = jetstream(&server).await;
    admin.delete_stream("PLAYER").await.unwrap();
    let subjects = vec!["events.player".into(), "events.player.>".into()];
    admin.create_stream(Config { name: "PLAYERS_V2".into(), subjects, ..Config::default() }).await.unwrap();
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
    assert_eq!(stored(&server, "PLAYERS_V2").await, 1);
    healthy(&bus).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_gone_behind_a_service_is_noticed_after_one_timeout() {
    let server = NatsServer::start().await.unwrap();
    let publish_timeout = Duration::from_millis(500);
    let bus = NatsBus::connect(NatsConfig { publish_timeout, ..config(server.url()) }).await.unwrap();
    healthy(&bus).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
    service(&server, "events.player.>", &["ok"]).await;
    jetstream(&server).await.delete_stream("PLAYER").await.unwrap();
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unknown)], "{receipts:?}");
    assert!(text(&receipts).contains("somebody else answers on this subject"), "{}", text(&receipts));
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [Some(NoRoute)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_answers_every_question_is_not_taken_for_jetstream() {
    let server = NatsServer::start().await.unwrap();
    service(&server, ">", &["ok", r#"{"streams":["GHOST"]}"#]).await;
    let bus = connect(&server).await;
    healthy(&bus).await;
    let receipts = bus.publish(&[event("events.ghost", ""), event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(NoRoute), None], "{receipts:?}");
}
