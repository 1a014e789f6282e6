//! Standard output.

use std::sync::Arc;

use async_trait::async_trait;
use gamemesh_outbox::bus;
use gamemesh_outbox::bus::stdout::{self, StdoutBus};

use super::{Bus, BusAdapter, BusDemands};
use crate::report::CommandError;
use crate::settings::About;
use crate::settings::load::Values;

/// The adapter.
#[derive(Debug)]
pub(super) struct Stdout;

#[async_trait]
impl BusAdapter for Stdout {
    fn name(&self) -> &'static str {
        "stdout"
    }

    fn about(&self) -> &'static bus::About {
        &stdout::ABOUT
    }

    fn settings(&self) -> &'static [&'static About] {
        &[]
    }

    async fn connect(&self, _: &Values, demands: BusDemands) -> Result<Arc<dyn Bus>, CommandError> {
        Ok(Arc::new(StdoutBus::default().publish_timeout(demands.publish_timeout)))
    }
}
