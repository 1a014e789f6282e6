//! What can be wrong with standard output.

use std::io::Write;

use async_trait::async_trait;

use super::StdoutBus;
use crate::diagnosis::{Demands, Diagnose, Finding, checks};
use crate::store::HealthCheck;

checks! {
    KEEPS = "stdout.keeps", "whether the bus keeps what it acknowledges",
        "an event that was written and not stored by the reader is gone";
}

#[async_trait]
impl<W: Write + Send + 'static> Diagnose for StdoutBus<W> {
    async fn reach(&self) -> Result<(), String> {
        self.check().await
    }

    async fn diagnose(&self, _: &Demands) -> Vec<Finding> {
        let fix = "choose another EVENT_BUS, unless the program behind the pipe stores each line";
        vec![KEEPS.warning("a written line counts as published, whoever reads it", fix)]
    }
}
