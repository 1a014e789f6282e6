//! The server's `max_payload`, which changes while the relay is connected.

use gamemesh_outbox::bus::BusErrorKind::Rejected;
use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::event::Event;
use nix::sys::signal::Signal;
use outbox_testkit::bus_suite::event;
use outbox_testkit::servers::NatsServer;
use outbox_testkit::wait_until;

use super::nats::{PLAYER, connect, healthy};
use super::{kinds, text};

fn large(bytes: usize) -> Event {
    Event { payload: format!("\"{}\"", "x".repeat(bytes)).into(), ..event(PLAYER, "registered") }
}

async fn reload(server: &mut NatsServer, configuration: &str) {
    server.configure(configuration).unwrap();
    server.process().signal(Signal::SIGHUP).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_limit_is_noticed_without_a_restart_and_costs_nobody_anything() {
    let mut server = NatsServer::start_with("max_payload: 4096").await.unwrap();
    let bus = connect(&server).await;
    healthy(&bus).await;
    assert_eq!(kinds(&bus.publish(&[large(8000)]).await), [Some(Rejected)]);
    reload(&mut server, "max_payload: 65536").await;
    let others = async {
        for _ in 0..200 {
            let receipts = bus.publish(&[event(PLAYER, "registered")]).await;
            assert!(receipts[0].as_ref().is_ok_and(|ack| !ack.duplicate), "{receipts:?}");
        }
    };
    let taken =
        wait_until("the raised limit is noticed", async || bus.publish(&[large(8000)]).await[0].as_ref().ok().copied());
    tokio::join!(others, taken);
    let receipts = bus.publish(&[large(70_000)]).await;
    assert_eq!(kinds(&receipts), [Some(Rejected)]);
    assert!(text(&receipts).contains("at most 65536 bytes"), "{}", text(&receipts));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_limit_ends_in_a_refusal_of_the_event_alone() {
    let mut server = NatsServer::start_with("max_payload: 65536").await.unwrap();
    let bus = connect(&server).await;
    healthy(&bus).await;
    assert_eq!(kinds(&bus.publish(&[large(8000)]).await), [None]);
    reload(&mut server, "max_payload: 4096").await;
    wait_until("the server's new limit is known", async || {
        let receipts = bus.publish(&[large(8000)]).await;
        (kinds(&receipts) == [Some(Rejected)]).then_some(())
    })
    .await;
    assert_eq!(kinds(&bus.publish(&[event(PLAYER, "registered")]).await), [None]);
}
