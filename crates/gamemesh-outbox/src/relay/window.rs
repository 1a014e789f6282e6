//! How much is on its way to the bus at a time: as much as it answers in good time.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::config::RelayConfig;

/// Payload bytes of a batch on a way that is not known yet. It doubles with each batch that a quick bus takes.
const BYTES_FIRST: u64 = 128 * 1024;
/// Fewer bytes are never asked for; one event is carried in any case.
const BYTES_MIN: u64 = 4 * 1024;
/// What a way is trusted to carry in a second as long as nothing is known of it: a slow link.
const PACE_FIRST: u64 = 64 * 1024;
/// The slowest way whose bytes are waited for.
const PACE_MIN: u64 = 4 * 1024;
/// Fewer bytes say nothing of what a way can carry.
const SAMPLE_MIN: u64 = 16 * 1024;
/// The longest time that bytes are given.
const BYTES_TIME_MAX: Duration = Duration::from_secs(120);
/// What a way could carry is not believed for longer.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long the first batch goes alone.
const FIRST_ALONE: Duration = Duration::from_millis(110);
/// How long there is time for a batch that needed more.
const LARGE_KEPT: Duration = Duration::from_secs(60);
/// The longest time between the first and the last answer to a batch that is still good.
const SPAN_MAX: Duration = Duration::from_secs(1);

/// What a batch may hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Size {
    pub(super) events: u32,
    pub(super) bytes: u64,
}

/// How a batch fared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    pub(super) size: Size,
    /// When the first and the last answer came, from when it was sent.
    pub(super) answers: Option<(Duration, Duration)>,
    /// Whether an answer did not come in time that should have: no single route is to blame.
    pub(super) late: bool,
}

/// What is on its way. Workers share it.
#[derive(Debug)]
pub(super) struct Window {
    timeout: Duration,
    most: Size,
    workers: u32,
    state: Mutex<State>,
    left: Notify,
}

#[derive(Debug)]
struct State {
    /// What the next batch may hold.
    size: Size,
    /// Most batches at a time.
    batches: u32,
    in_flight: u32,
    bytes_in_flight: u64,
    /// Bytes a second that the way is trusted to carry.
    pace: u64,
    /// How long the first answer takes when nothing is in its way.
    first_answer: Option<Duration>,
    /// The bytes of a batch that needed more time than it had, and when.
    large: (u64, Instant),
    /// When a batch was full last.
    full_at: Instant,
    /// Whether somebody was told that the way is slow.
    told: bool,
}

/// A place in the window.
#[derive(Debug)]
pub(super) struct Flight<'a> {
    window: &'a Window,
    bytes: u64,
    /// Whether it takes one of the places that there are.
    placed: bool,
}

impl Window {
    pub(super) fn new(config: &RelayConfig) -> Self {
        let events = config.batch_size_max.max(config.batch_size);
        let most = Size { events, bytes: config.batch_bytes };
        let state = State {
            size: Size { events, bytes: BYTES_FIRST.min(most.bytes) },
            batches: 1,
            in_flight: 0,
            bytes_in_flight: 0,
            pace: PACE_FIRST,
            first_answer: None,
            large: (0, Instant::now()),
            full_at: Instant::now(),
            told: false,
        };
        let timeout = config.publish_timeout;
        Self { timeout, most, workers: config.workers, state: Mutex::new(state), left: Notify::new() }
    }

    /// Waits until one batch more may be on its way. The first one goes alone for a moment: where nothing answers it, the
    /// others have something to learn.
    pub(super) async fn enter(&self) -> Flight<'_> {
        loop {
            let left = self.left.notified();
            let unknown = {
                let mut state = self.lock();
                if state.in_flight < state.batches {
                    state.in_flight += 1;
                    return Flight { window: self, bytes: 0, placed: true };
                }
                state.first_answer.is_none() && !state.told
            };
            let alone = if unknown { FIRST_ALONE } else { Duration::MAX };
            if timeout(alone, left).await.is_err() {
                return self.beside();
            }
        }
    }

    /// Takes a place beside the window: for what must not wait for others.
    pub(super) fn beside(&self) -> Flight<'_> {
        Flight { window: self, bytes: 0, placed: false }
    }

    /// Returns what the next batch may hold.
    pub(super) fn size(&self) -> Size {
        let mut state = self.lock();
        if state.full_at.elapsed() > IDLE_MAX {
            state.size.bytes = state.size.bytes.min(BYTES_FIRST);
        }
        state.size
    }

    /// Returns the bytes a second that the way is trusted to carry.
    pub(super) fn pace(&self) -> u64 {
        self.lock().pace
    }

    /// Returns how long `bytes` may take.
    pub(super) fn time_for(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.pace() as f64).min(BYTES_TIME_MAX)
    }

    /// Returns how long the bytes of the next batch may take, behind those that are on their way.
    pub(super) fn time_for_next(&self) -> Duration {
        let bytes = {
            let state = self.lock();
            let (large, at) = state.large;
            let large = if at.elapsed() < LARGE_KEPT { large } else { 0 };
            state.size.bytes.max(large) + state.bytes_in_flight
        };
        self.time_for(bytes)
    }

    /// The next batch needs the time that so many bytes take.
    pub(super) fn make_time_for(&self, bytes: u64) {
        self.lock().large = (bytes, Instant::now());
    }

    /// Learns from a batch how large the next ones may be, and says whether it is news that the way is slow.
    pub(super) fn learn(&self, carried: Carried) -> bool {
        let mut state = self.lock();
        let news = state.learn(carried, self.timeout, self.most, self.workers);
        drop(state);
        self.left.notify_waiters();
        news
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the lock")
    }
}

impl State {
    fn learn(&mut self, carried: Carried, timeout: Duration, most: Size, workers: u32) -> bool {
        let Carried { size, answers, late } = carried;
        if late {
            self.size.events = (size.events / 2).clamp(1, self.size.events);
            self.size.bytes = (size.bytes / 2).clamp(BYTES_MIN.min(self.size.bytes), self.size.bytes);
            self.batches = (self.batches / 2).max(1);
            self.pace = (self.pace / 2).max(PACE_MIN);
            return !std::mem::replace(&mut self.told, true);
        }
        let Some((first, last)) = answers else { return false };
        let good = SPAN_MAX.min(timeout / 4);
        let span = last.saturating_sub(first);
        let first_of_all = self.first_answer.is_none();
        let usual = self.first_answer.map_or(first, |usual| usual.min(first) + first.saturating_sub(usual) / 16);
        self.first_answer = Some(usual);
        let queued = first.saturating_sub(usual) > good;
        self.batches = if queued { (self.batches - 1).max(1) } else { (self.batches + 1).min(workers) };
        if first_of_all {
            self.batches = workers;
        }
        if size.bytes >= SAMPLE_MIN {
            let pace = (size.bytes as f64 / last.as_secs_f64().max(1e-6) / 2.0) as u64;
            if pace > self.pace {
                // One quick batch is not trusted: bytes that are given too much time cost nothing.
                self.pace = pace.min(2 * self.pace);
            } else if queued || span > good {
                self.pace = pace.max(PACE_MIN);
            }
        }
        if span > good {
            let part = good.as_secs_f64() / span.as_secs_f64();
            self.size.events = ((f64::from(size.events) * part) as u32).clamp(1, self.size.events);
            self.size.bytes = ((size.bytes as f64 * part) as u64).clamp(BYTES_MIN.min(most.bytes), most.bytes);
        } else if size.events >= self.size.events / 2 || size.bytes >= self.size.bytes / 2 {
            self.full_at = Instant::now();
            if span <= good / 2 {
                self.size.events = self.size.events.saturating_mul(2).min(most.events);
                self.size.bytes = self.size.bytes.saturating_mul(2).min(most.bytes);
            }
        }
        if self.size == most {
            self.told = false;
        }
        false
    }
}

impl<'a> Flight<'a> {
    pub(super) fn window(&self) -> &'a Window {
        self.window
    }

    /// Notes what is on its way, and returns how many bytes of others are.
    pub(super) fn load(&mut self, bytes: u64) -> u64 {
        let mut state = self.window.lock();
        let ahead = state.bytes_in_flight;
        state.bytes_in_flight += bytes;
        self.bytes += bytes;
        ahead
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = self.window.lock();
        state.in_flight -= u32::from(self.placed);
        state.bytes_in_flight -= self.bytes;
        drop(state);
        self.window.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const MB: u64 = 1_000_000;

    fn window() -> Window {
        Window::new(&RelayConfig::default())
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Carries `batches` batches of events of `event_bytes` over a way of `pace` bytes a second.
    fn carry(window: &Window, event_bytes: u64, pace: f64, batches: usize) -> Size {
        for _ in 0..batches {
            let Size { events, bytes } = window.size();
            let events = (bytes / event_bytes).clamp(1, u64::from(events));
            let bytes = events * event_bytes;
            let (first, last) = (seconds(event_bytes as f64 / pace), seconds(bytes as f64 / pace));
            let size = Size { events: events as u32, bytes };
            window.learn(Carried { size, answers: Some((first, last)), late: false });
        }
        window.size()
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_way_is_filled_within_few_batches() {
        let window = window();
        assert!(window.size().bytes < MB, "what is not known is not filled");
        assert_eq!(carry(&window, 1_000, 100e6, 8), window.most);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_way_gets_batches_that_take_about_a_second() {
        let window = window();
        let bytes = carry(&window, 20_000, 100e3, 10).bytes;
        assert!((60_000..=160_000).contains(&bytes), "{bytes}");
        assert!(window.time_for(900_000) > seconds(9.0), "a large event has its time");
        let bytes = carry(&window, 20_000, 10e3, 20).bytes;
        assert!((4_000..=40_000).contains(&bytes), "it became slower: {bytes}");
        assert_eq!(carry(&window, 1_000, 100e6, 20), window.most, "and quick again");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_do_not_come_leave_one_event_at_a_time_and_that_is_told_once() {
        let window = window();
        let late = Carried { size: Size { events: 100, bytes: MB }, answers: None, late: true };
        assert!(window.learn(late));
        for _ in 0..10 {
            assert!(!window.learn(Carried { size: window.size(), ..late }));
        }
        let (events, batches) = (window.size().events, window.lock().batches);
        assert_eq!((events, batches), (1, 1));
        let flight = window.enter().await;
        assert!(window.enter().now_or_never().is_none());
        drop(flight);
        assert!(window.enter().now_or_never().is_some());
        carry(&window, 1_000, 100e6, 20);
        assert_eq!(window.lock().batches, 4);
        assert!(window.learn(late), "it is news again");
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_late_for_everybody_are_no_queue() {
        let window = window();
        let slow = |first: f64| Carried {
            size: Size { events: 10, bytes: MB },
            answers: Some((seconds(first), seconds(first + 0.1))),
            late: false,
        };
        for _ in 0..20 {
            window.learn(slow(3.0));
        }
        assert_eq!(window.lock().batches, 4);
        for _ in 0..3 {
            window.learn(slow(6.0));
        }
        assert_eq!(window.lock().batches, 1, "these waited behind others");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_way_could_carry_is_not_believed_for_long() {
        let window = window();
        carry(&window, 1_000, 100e6, 10);
        tokio::time::advance(IDLE_MAX + seconds(1.0)).await;
        assert_eq!(window.size().bytes, BYTES_FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_on_their_way_are_counted_while_they_are() {
        let window = window();
        let (mut one, mut two) = (window.enter().await, window.enter().await);
        assert_eq!((one.load(10), two.load(5)), (0, 10));
        drop(one);
        assert_eq!(two.load(1), 5);
    }
}
