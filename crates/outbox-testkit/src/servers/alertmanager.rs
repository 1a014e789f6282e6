use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use super::http::{get, post};
use super::{Process, free_port};
use crate::wait_until;

/// An Alertmanager server.
#[derive(Debug)]
pub struct AlertmanagerServer {
    port: u16,
    // Ended before its folder goes.
    _process: Process,
    _folder: TempDir,
}

impl AlertmanagerServer {
    /// Starts it with this configuration.
    pub async fn start(config: &str) -> Result<Self> {
        let folder = TempDir::with_prefix("outbox-alertmanager-")?;
        let port = free_port();
        let file = folder.path().join("alertmanager.yml");
        std::fs::write(&file, config)?;
        let mut command = Command::new("prometheus-alertmanager");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        // One of them: there are no others to speak with.
        command.arg("--cluster.listen-address=");
        let mut process = Process::spawn("prometheus-alertmanager", &mut command, folder.path())?;
        wait_until("Alertmanager is ready", async || {
            process.check_running().expect("Alertmanager runs");
            get(port, "/-/ready").await.ok()
        })
        .await;
        Ok(Self { port, _process: process, _folder: folder })
    }

    /// Gives it alerts that fire now, as Prometheus does: an array of `{"labels": {...}}`.
    pub async fn fire(&self, alerts: &Value) -> Result<()> {
        post(self.port, "/api/v2/alerts", &alerts.to_string()).await.map(drop)
    }

    /// Returns the alerts that it knows, `inhibited` ones or the others.
    pub async fn alerts(&self, inhibited: bool) -> Result<Vec<Value>> {
        let path = format!("/api/v2/alerts?active={}&inhibited={inhibited}&silenced=false", !inhibited);
        let alerts: Value = serde_json::from_str(&get(self.port, &path).await?)?;
        Ok(alerts.as_array().context("expected a list of alerts")?.clone())
    }
}
