//! What the relay does for each event between the store and the bus. `cargo bench -p gamemesh-outbox --features relay`

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use gamemesh_outbox::bus::BusErrorKind;
use gamemesh_outbox::relay::{Acked, decide};
use gamemesh_outbox::validate::Validator;
use gamemesh_outbox::{Carrier, Event, wire};

fn main() {
    divan::main();
}

const PAYLOAD_BYTES: [usize; 3] = [100, 500, 10_000];
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn event(payload_bytes: usize) -> Event {
    let text = "a".repeat(payload_bytes - r#"{"text":""}"#.len());
    Event {
        id: "0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f".parse().expect("an id"),
        topic: "events.player".to_owned(),
        event_type: "registered".to_owned(),
        payload: format!(r#"{{"text":"{text}"}}"#).into(),
        carrier: Carrier::from_iter([("traceparent".to_owned(), TRACEPARENT.to_owned())]),
        headers: [("Tenant".to_owned(), "eu-1".to_owned())].into(),
        key: Some("player-7".to_owned()),
        created_at: "2026-01-02T03:04:05.678Z".parse().expect("a time"),
        attempt_count: 0,
        defect: None,
    }
}

#[divan::bench(args = PAYLOAD_BYTES)]
fn validate(bencher: Bencher, payload_bytes: usize) {
    let (validator, event) = (Validator::default(), event(payload_bytes));
    bencher.counter(ItemsCount::new(1usize)).bench(|| validator.event(black_box(&event)));
}

#[divan::bench(args = PAYLOAD_BYTES)]
fn envelope(bencher: Bencher, payload_bytes: usize) {
    let event = event(payload_bytes);
    bencher.counter(BytesCount::new(payload_bytes)).bench(|| wire::envelope(black_box(&event)));
}

#[divan::bench]
fn headers(bencher: Bencher) {
    let event = event(500);
    bencher.bench(|| wire::headers(black_box(&event)));
}

#[divan::bench]
fn subject(bencher: Bencher) {
    let event = event(500);
    bencher.bench(|| black_box(&event).subject());
}

#[divan::bench]
fn decide_batch(bencher: Bencher) {
    let failures = [None, Some(BusErrorKind::Rejected), Some(BusErrorKind::Unknown), None];
    let batch = failures.repeat(25);
    bencher
        .counter(ItemsCount::new(batch.len()))
        .bench(|| black_box(&batch).iter().map(|failure| decide(*failure, Acked::ItsRoute) as u64).sum::<u64>());
}
