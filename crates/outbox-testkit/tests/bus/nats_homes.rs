//! Which streams there must be: a home for each topic in use, whatever its name, and nothing is made behind its owner's back.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use gamemesh_outbox::bus::BusErrorKind::{NoRoute, Unavailable};
use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::bus::nats::{NatsBus, NatsConfig};
use gamemesh_outbox::diagnosis::{Demands, Diagnose, Finding, Severity};
use gamemesh_outbox::store::HealthCheck;
use outbox_testkit::bus_suite::event;
use outbox_testkit::servers::{JetStream, NatsServer, free_port};
use outbox_testkit::wait_until;

use super::nats::{PLAYER, config, connect, healthy, jetstream, stored};
use super::{kinds, text};

async fn streams(server: &NatsServer) -> Vec<String> {
    use futures_util::TryStreamExt;
    jetstream(server).await.stream_names().try_collect().await.unwrap()
}

async fn add(server: &NatsServer, name: &str, subjects: &[&str]) {
    let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
    let stream = Config { name: name.into(), subjects, ..Config::default() };
    jetstream(server).await.create_stream(stream).await.unwrap();
}

async fn examine(bus: &NatsBus, topics: &[&str]) -> Vec<Finding> {
    let demands = Demands {
        deletes: false,
        payload_bytes_max: 1 << 20,
        retry_span: Duration::from_secs(15),
        long_transaction: Duration::from_secs(60),
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
    };
    bus.diagnose(&demands).await
}

fn errors(findings: &[Finding]) -> Vec<&str> {
    findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| finding.found.as_str())
        .collect()
}

#[tokio::test]
async fn a_stream_that_its_owner_removed_is_not_made_again_whatever_happens_to_the_server() {
    let mut server = NatsServer::start().await.unwrap();
    let bus = connect(&server).await;
    healthy(&bus).await;
    jetstream(&server).await.delete_stream("PLAYER").await.unwrap();
    server.restart().await.unwrap();
    wait_until("it is told", async || {
        bus.check().await.err().filter(|health| health.contains("stream PLAYER is gone"))
    })
    .await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [Some(NoRoute)]);
    assert_eq!(streams(&server).await, Vec::<String>::new());
    add(&server, "PLAYERS_V2", &["events.player", "events.player.>"]).await;
    healthy(&bus).await;
    wait_until("it has a home", async || bus.publish(&[event(PLAYER, "registered")]).await[0].as_ref().ok().copied())
        .await;
    assert_eq!(streams(&server).await, ["PLAYERS_V2"]);
    let restarted = connect(&server).await;
    healthy(&restarted).await;
    assert_eq!(streams(&server).await, ["PLAYERS_V2"], "another takes the subjects");
}

#[tokio::test]
async fn a_restarted_relay_makes_the_streams_that_are_missing() {
    let server = NatsServer::start().await.unwrap();
    let bus = connect(&server).await;
    healthy(&bus).await;
    jetstream(&server).await.delete_stream("PLAYER").await.unwrap();
    wait_until("it is noticed", async || bus.check().await.err()).await;
    healthy(&connect(&server).await).await;
    assert_eq!(streams(&server).await, ["PLAYER"]);
    healthy(&bus).await;
}

#[tokio::test]
async fn without_configured_streams_none_is_made_and_the_topics_in_use_decide() {
    let server = NatsServer::start().await.unwrap();
    let none = NatsConfig { streams: Vec::new(), ..config(server.url()) };
    let bus = NatsBus::connect(none).await.unwrap();
    healthy(&bus).await;
    let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(NoRoute)]);
    let health = bus.check().await.unwrap_err();
    assert_eq!(health, "no stream takes subject events.player.registered");
    assert_eq!(streams(&server).await, Vec::<String>::new());
    add(&server, "ALL", &["events.>"]).await;
    healthy(&bus).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
    assert_eq!(stored(&server, "ALL").await, 1);
}

#[tokio::test]
async fn another_stream_that_takes_the_subjects_is_as_good() {
    for subjects in [&["events.>"][..], &["events.player", "events.player.>"], &["events.*", "events.*.>"]] {
        let server = NatsServer::start().await.unwrap();
        add(&server, "ALL", subjects).await;
        let bus = connect(&server).await;
        healthy(&bus).await;
        let batch = [event(PLAYER, "registered"), event(PLAYER, "")];
        assert_eq!(kinds(&bus.publish(&batch).await), [None, None], "{subjects:?}");
        assert_eq!(streams(&server).await, ["ALL"]);
        let findings = examine(&bus, &[PLAYER]).await;
        assert_eq!(errors(&findings), Vec::<&str>::new(), "{findings:?}");
        assert!(!findings.iter().any(|finding| finding.fix.contains("stream add")), "{findings:?}");
    }
}

#[tokio::test]
async fn a_stream_that_takes_a_part_is_told_with_what_the_server_accepts() {
    let server = NatsServer::start().await.unwrap();
    add(&server, "PART", &["events.player"]).await;
    let bus = connect(&server).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, ""), event(PLAYER, "registered")]).await), [None, Some(NoRoute)]);
    let health = bus.check().await.unwrap_err();
    assert!(health.contains("events.player.registered") && health.contains("overlap"), "{health}");
    let findings = examine(&bus, &[]).await;
    assert_eq!(errors(&findings), ["stream PART does not take events.player.>"]);
    let fix = &findings.iter().find(|finding| finding.severity == Severity::Error).unwrap().fix;
    assert_eq!(fix, "nats stream edit PART --subjects 'events.player,events.player.>' --force");
}

#[tokio::test]
async fn a_topic_that_waits_and_has_no_stream_is_an_error_of_the_examination() {
    let server = NatsServer::start().await.unwrap();
    let bus = connect(&server).await;
    healthy(&bus).await;
    let findings = examine(&bus, &[PLAYER, "events.ghost"]).await;
    assert_eq!(errors(&findings), ["no stream takes the topic events.ghost, and events wait for it"]);
}

/// A hub of the domain `hub`, and a leaf node.
async fn leaf(of: JetStream) -> (NatsServer, NatsServer) {
    let port = free_port();
    let listen = format!("leafnodes {{ listen: \"127.0.0.1:{port}\" }}");
    let hub = NatsServer::start_in(JetStream::Domain("hub"), &listen).await.unwrap();
    let remote = format!("leafnodes {{ remotes: [{{ url: \"nats://127.0.0.1:{port}\" }}] }}");
    let leaf = NatsServer::start_in(of, &remote).await.unwrap();
    (hub, leaf)
}

#[tokio::test]
async fn a_leaf_without_jetstream_names_the_domain_and_with_it_everything_works() {
    let (hub, leaf) = leaf(JetStream::None).await;
    let lost = connect(&leaf).await;
    let receipts = lost.publish(&[event(PLAYER, "registered")]).await;
    assert_eq!(kinds(&receipts), [Some(Unavailable)]);
    assert!(text(&receipts).contains("OUTBOX_NATS_JETSTREAM_DOMAIN"), "{}", text(&receipts));
    let findings = examine(&lost, &[]).await;
    assert!(findings[0].fix.contains("OUTBOX_NATS_JETSTREAM_DOMAIN"), "{findings:?}");
    for (domain, prefix) in [(Some("hub"), None), (None, Some("$JS.hub.API"))] {
        let bus = NatsBus::connect(NatsConfig {
            jetstream_domain: domain.map(str::to_owned),
            jetstream_api_prefix: prefix.map(str::to_owned),
            ..config(leaf.url())
        });
        let bus = bus.await.unwrap();
        healthy(&bus).await;
        assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
        let findings = examine(&bus, &[]).await;
        assert!(
            findings[0].found.contains("no JetStream of its own") && findings[0].found.contains("domain hub"),
            "{findings:?}"
        );
    }
    assert_eq!(stored(&hub, "PLAYER").await, 2);
    let wrong = NatsConfig { jetstream_domain: Some("hup".into()), ..config(leaf.url()) };
    let health = NatsBus::connect(wrong).await.unwrap().check().await.unwrap_err();
    assert!(health.contains("no JetStream of the domain hup"), "{health}");
}

#[tokio::test]
async fn a_leaf_with_a_domain_of_its_own_is_not_asked_when_the_hub_is_meant() {
    let (hub, leaf) = leaf(JetStream::Domain("leaf")).await;
    let bus =
        NatsBus::connect(NatsConfig { jetstream_domain: Some("hub".into()), ..config(leaf.url()) }).await.unwrap();
    healthy(&bus).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
    assert_eq!((streams(&hub).await, streams(&leaf).await), (vec!["PLAYER".to_owned()], Vec::new()));
    // Somebody makes the same stream in the leaf: its quick acknowledgement is not the hub's.
    add(&leaf, "PLAYER", &["events.player", "events.player.>"]).await;
    let batch: Vec<_> = (0..10).map(|_| event(PLAYER, "registered")).collect();
    assert_eq!(kinds(&bus.publish(&batch).await), vec![None; 10]);
    assert_eq!(stored(&hub, "PLAYER").await, 11);
}

#[tokio::test]
async fn answers_come_where_the_login_may_listen() {
    let permissions = r#"authorization { users = [
        { user: relay, password: pass, permissions: { publish: ["events.player.>", "$JS.API.>"], subscribe: "_RELAY.>" } }
    ] }"#;
    let server = NatsServer::start_with(permissions).await.unwrap();
    let url = server.url().replace("nats://", "nats://relay:pass@");
    let deaf = NatsBus::connect(config(url.clone())).await.unwrap();
    let health = wait_until("the refusal is known", async || {
        deaf.check().await.err().filter(|health| health.contains("OUTBOX_NATS_INBOX_PREFIX"))
    })
    .await;
    assert!(health.starts_with("no answer can be received"), "{health}");
    assert_eq!(kinds(&deaf.publish(&[event(PLAYER, "registered")]).await), [Some(Unavailable)]);
    let bus = NatsBus::connect(NatsConfig { inbox_prefix: Some("_RELAY".into()), ..config(url) }).await.unwrap();
    healthy(&bus).await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
}

#[tokio::test]
async fn a_login_that_may_look_at_its_stream_alone_needs_to_ask_nothing_else() {
    let permissions = r#"authorization { users = [
        { user: admin, password: pass }
        { user: relay, password: pass,
          permissions: { publish: ["events.>", "$JS.API.STREAM.INFO.PLAYER"], subscribe: "_INBOX.>" } }
    ] }"#;
    let server = NatsServer::start_with(permissions).await.unwrap();
    let login = |user: &str| server.url().replace("nats://", &format!("nats://{user}:pass@"));
    healthy(&NatsBus::connect(config(login("admin"))).await.unwrap()).await;
    let strict = NatsConfig { require_durable: true, ..config(login("relay")) };
    let bus = NatsBus::connect(strict).await.unwrap();
    let receipts = bus.publish(&[event(PLAYER, "registered"), event("events.other", "x")]).await;
    assert_eq!(kinds(&receipts), [None, Some(NoRoute)], "{receipts:?}");
    assert!(text(&receipts).contains("OUTBOX_REQUIRE_DURABLE"), "{}", text(&receipts));
    assert_eq!(bus.troubles(), []);
}

#[tokio::test]
async fn a_subject_that_the_account_maps_into_a_stream_is_found_by_what_the_stream_says() {
    let server = NatsServer::start_with(r#"mappings: { "events.player.*": "players.$1" }"#).await.unwrap();
    add(&server, "PLAYERS", &["players.>"]).await;
    for streams in [Vec::new(), NatsConfig::default().streams] {
        let bus = NatsBus::connect(NatsConfig { streams, ..config(server.url()) }).await.unwrap();
        let before = stored(&server, "PLAYERS").await;
        let batch = [event(PLAYER, "registered"), event("events.ghost", "registered")];
        let receipts = bus.publish(&batch).await;
        assert_eq!(kinds(&receipts), [None, Some(NoRoute)], "{receipts:?}");
        assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
        assert_eq!(stored(&server, "PLAYERS").await, before + 2, "what was sent on trial is not stored");
        let health = bus.check().await.unwrap_err();
        assert_eq!(health, "no stream takes subject events.ghost.registered");
    }
}
