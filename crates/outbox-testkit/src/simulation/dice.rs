use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use uuid::Uuid;

/// The one source of chance of a run. Everybody draws from the same sequence, in the order in which the scheduler lets
/// them, so that one seed decides everything. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Dice(Arc<Mutex<Rng>>);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Rng::with_seed(seed))))
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.0.lock().expect("no code panics while it holds the lock"))
    }

    pub(super) fn number(&self, range: RangeInclusive<u64>) -> u64 {
        self.draw(|rng| rng.u64(range))
    }

    /// Says yes that many times in a thousand.
    pub(super) fn chance(&self, per_mille: u64) -> bool {
        self.draw(|rng| rng.u64(0..1000)) < per_mille
    }

    pub(super) fn pick<T: Clone>(&self, from: &[T]) -> T {
        from[self.draw(|rng| rng.usize(0..from.len()))].clone()
    }

    pub(super) fn millis(&self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(range))
    }

    /// Shuffles, and keeps up to `count`.
    pub(super) fn some<T>(&self, mut from: Vec<T>, count: usize) -> Vec<T> {
        self.draw(|rng| rng.shuffle(&mut from));
        from.truncate(count);
        from
    }

    pub(super) fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.draw(|rng| rng.u128(..)).to_be_bytes()).into_uuid()
    }
}
