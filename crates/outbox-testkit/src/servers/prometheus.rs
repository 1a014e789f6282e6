use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

use super::http::get;
use super::{Process, free_port};
use crate::wait_until;

/// Twice a second.
const QUICKLY: &str = "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\n";

/// A Prometheus server that scrapes relays and evaluates rules, both twice a second.
#[derive(Debug)]
pub struct PrometheusServer {
    port: u16,
    // Ended before its folder goes.
    _process: Process,
    _folder: TempDir,
}

impl PrometheusServer {
    /// Starts it with `relays` as the targets of the job `outbox-relay`, and `rules` as its rule file.
    pub async fn start(relays: &[SocketAddr], rules: &str) -> Result<Self> {
        let targets: Vec<String> = relays.iter().map(ToString::to_string).collect();
        let config = format!(
            "{QUICKLY}rule_files: [rules.yml]\n\
             scrape_configs: [{{job_name: outbox-relay, static_configs: [{{targets: {targets:?}}}]}}]\n"
        );
        Self::run(Path::new("prometheus"), &config, rules).await
    }

    /// Starts the one that `scripts/test` builds, newer than Debian's and with the discovery of Kubernetes, which that has not.
    /// `config` names the rules `rules.yml`, and says neither how often to scrape nor how often to evaluate.
    pub async fn start_newest(config: &str, rules: &str) -> Result<Self> {
        let program = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-tools/prometheus/prometheus"));
        ensure!(program.exists(), "{} is missing: scripts/test builds it", program.display());
        Self::run(program, &format!("{QUICKLY}{config}"), rules).await
    }

    async fn run(program: &Path, config: &str, rules: &str) -> Result<Self> {
        let folder = TempDir::with_prefix("outbox-prometheus-")?;
        let port = free_port();
        std::fs::write(folder.path().join("rules.yml"), rules)?;
        std::fs::write(folder.path().join("prometheus.yml"), config)?;
        let mut command = Command::new(program);
        command.arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::spawn("prometheus", &mut command, folder.path())?;
        wait_until("Prometheus is ready", async || {
            process.check_running().unwrap_or_else(|error| panic!("Prometheus does not run: {error:#}"));
            get(port, "/-/ready").await.ok()
        })
        .await;
        Ok(Self { port, _process: process, _folder: folder })
    }

    /// Returns the kinds that its targets say a metric is of.
    pub async fn types(&self, metric: &str) -> Result<Vec<String>> {
        let answer: Value = serde_json::from_str(&get(self.port, &format!("/api/v1/metadata?metric={metric}")).await?)?;
        let said = answer["data"].as_object().context("expected metadata")?.values().filter_map(Value::as_array);
        Ok(said.flatten().filter_map(|said| said["type"].as_str()).map(str::to_owned).collect())
    }

    /// Evaluates an expression now and returns what it finds: an array of `{"metric": {...}, "value": [time, "number"]}`.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let encoded = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let body = get(self.port, &format!("/api/v1/query?query={encoded}")).await.context(expression.to_owned())?;
        let answer: Value = serde_json::from_str(&body)?;
        Ok(answer["data"]["result"].as_array().context("expected a list of results")?.clone())
    }
}
