use std::sync::LazyLock;

use tracing::subscriber::{DefaultGuard, set_default};
use tracing::{Dispatch, Subscriber};

/// While tracing knows of one subscriber alone, it asks that of the *current* thread about a span that it meets for the
/// first time, and remembers the answer for every thread: a test without a subscriber would take the span away from its
/// neighbour's. A second one that lives for ever, and refuses nothing, makes it ask them all.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

/// Makes `subscriber` this thread's until the guard is dropped, whatever other tests of the same process do meanwhile.
pub fn listen(subscriber: impl Subscriber + Send + Sync + 'static) -> DefaultGuard {
    LazyLock::force(&ANOTHER);
    set_default(subscriber)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt};

    use super::listen;

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn say() {
        tracing::info!("said from two threads");
    }

    #[test]
    fn what_a_thread_without_a_subscriber_meets_first_is_heard_by_others() {
        let count = Count::default();
        let _listening = listen(tracing_subscriber::registry().with(count.clone()));
        std::thread::spawn(say).join().expect("a thread that ends");
        say();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
