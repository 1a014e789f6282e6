use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Process, free_port};
use crate::wait_until;

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
        let folder = TempDir::with_prefix("outbox-prometheus-")?;
        let port = free_port();
        let targets: Vec<String> = relays.iter().map(ToString::to_string).collect();
        std::fs::write(folder.path().join("rules.yml"), rules)?;
        std::fs::write(
            folder.path().join("prometheus.yml"),
            format!(
                "global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}\n\
                 rule_files: [rules.yml]\n\
                 scrape_configs: [{{job_name: outbox-relay, static_configs: [{{targets: {targets:?}}}]}}]\n"
            ),
        )?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::spawn("prometheus", &mut command, folder.path())?;
        wait_until("Prometheus is ready", async || {
            process.check_running().expect("Prometheus runs");
            get(port, "/-/ready").await.ok()
        })
        .await;
        Ok(Self { port, _process: process, _folder: folder })
    }

    /// Evaluates an expression now and returns what it finds: an array of `{"metric": {...}, "value": [time, "number"]}`.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let encoded = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let body = get(self.port, &format!("/api/v1/query?query={encoded}")).await.context(expression.to_owned())?;
        let answer: Value = serde_json::from_str(&body)?;
        Ok(answer["data"]["result"].as_array().context("expected a list of results")?.clone())
    }
}

/// Returns the body of a page. HTTP 1.0, so that the body ends with the connection.
async fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("expected a head and a body")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "expected status 200, got {head}\n{body}");
    Ok(body.to_owned())
}
