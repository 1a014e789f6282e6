mod nats;
mod nats_answers;
mod nats_homes;
mod nats_limit;
mod nats_places;
mod nats_streams;
mod redis;
mod slow;
mod stdout;
mod suite;

use gamemesh_outbox::bus::{BusErrorKind, Receipt};

fn kinds(receipts: &[Receipt]) -> Vec<Option<BusErrorKind>> {
    receipts.iter().map(|receipt| receipt.as_ref().err().map(|error| error.kind())).collect()
}

/// The text of the only failed receipt.
fn text(receipts: &[Receipt]) -> String {
    let failed: Vec<_> = receipts.iter().filter_map(|receipt| receipt.as_ref().err()).collect();
    let [error] = &failed[..] else { panic!("expected one failed receipt, got {receipts:?}") };
    error.chain()
}
