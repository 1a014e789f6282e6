//! A relay at work in the background.

use std::time::Duration;

use gamemesh_outbox::bus::BusPublisher;
use gamemesh_outbox::relay::{Relay, RelayConfig, RelayError};
use gamemesh_outbox::store::Store;
use gamemesh_outbox::telemetry::{Progress, Telemetry};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) struct Running {
    pub(crate) telemetry: Telemetry,
    pub(crate) progress: watch::Receiver<Progress>,
    stop: oneshot::Sender<()>,
    relay: JoinHandle<Result<(), RelayError>>,
}

impl Running {
    pub(crate) fn start(store: impl Store, bus: impl BusPublisher, config: RelayConfig) -> Self {
        let telemetry = Telemetry::new("test");
        let progress = telemetry.progress();
        let (stop, stopped) = oneshot::channel();
        let relay = Relay::new(store, bus, config, telemetry.clone());
        let relay = tokio::spawn(relay.run(async { stopped.await.unwrap_or_default() }));
        Self { telemetry, progress, stop, relay }
    }

    pub(crate) async fn until(&mut self, condition: impl FnMut(&Progress) -> bool) -> Progress {
        let waited = tokio::time::timeout(Duration::from_secs(3600), self.progress.wait_for(condition)).await;
        waited.expect("it happens within an hour of test time").expect("the relay runs").clone()
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).expect("the relay runs");
        self.relay.await.expect("the relay does not panic").expect("the relay has no error");
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(self) -> Result<(), RelayError> {
        let Self { relay, stop: _running, .. } = self;
        relay.await.expect("the relay does not panic")
    }
}
