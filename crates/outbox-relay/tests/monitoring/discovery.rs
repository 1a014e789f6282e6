//! Pods made of the manifests, found by a real Prometheus in a cluster as small as can be.

use outbox_testkit::servers::PrometheusServer;
use outbox_testkit::wait_until;
use serde_json::{Value, json};

use super::cluster::{Cluster, pod};
use super::read;
use crate::deployment::manifest;
use crate::program::Relay;

/// What scrapes around the earlier relay: every pod of the namespace that has the annotations.
const EARLIER: &str = "
rule_files: [rules.yml]
scrape_configs:
  - job_name: gamemesh-pods
    kubernetes_sd_configs:
      - role: pod
        namespaces: {names: [gamemesh]}
    relabel_configs:
      - {action: keep, source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], regex: 'true'}
      - action: replace
        source_labels: [__address__, __meta_kubernetes_pod_annotation_prometheus_io_port]
        regex: '([^:]+)(?::[0-9]+)?;([0-9]+)'
        replacement: '$1:$2'
        target_label: __address__
      - {source_labels: [__meta_kubernetes_pod_label_app], target_label: app}
";

/// Returns the configuration of the manifest, without what is only inside of a cluster.
fn ours() -> String {
    let data = &manifest("ConfigMap", "prometheus-config")["data"];
    let config = data["prometheus.yml"].as_str().unwrap();
    let (global, rest) = config.split_once("rule_files:").unwrap();
    assert!(global.starts_with("global:"), "{global}");
    let mut config = format!("rule_files:{rest}");
    for (inside, outside) in [("- alerts.yml", "- rules.yml"), ("own_namespace: true", "names: [gamemesh]")] {
        assert!(config.contains(inside), "{inside} in {config}");
        config = config.replace(inside, outside);
    }
    config
}

/// A pod of another service of the game, or of none.
fn other(name: &str, ip: &str, annotations: &Value) -> Value {
    let template = json!({
        "metadata": { "labels": { "app": name }, "annotations": annotations },
        "spec": { "containers": [{ "name": name, "image": name, "ports": [{ "containerPort": 8081 }] }] },
    });
    pod(&template, name, ip)
}

/// Starts the pods of two relays and of another service, each at an address of its own of this machine, and looks what a
/// Prometheus with `config` finds.
async fn finds_every_pod_that_asks_for_it(config: &str, network: u32) {
    let number = std::process::id();
    let ip = |last: u32| format!("127.{}.{}.{last}", 1 + number / 250 % 250, 1 + number % 250 + network);
    let template = &manifest("Deployment", "outbox-relay")["spec"]["template"];
    // A process that only serves its metrics is enough.
    let serve = |ip: &str, port: &str, service: &str| {
        let place = [("OUTBOX_HTTP_ADDRESS", ip), ("HTTP_PORT", port)];
        Relay::start(&[place[0], place[1], ("OUTBOX_ENABLED", "false"), ("OTEL_SERVICE_NAME", service)])
    };
    let running =
        [serve(&ip(1), "8085", "outbox-relay"), serve(&ip(2), "8085", "outbox-relay"), serve(&ip(3), "8081", "player")];
    let annotations = json!({ "prometheus.io/scrape": "true", "prometheus.io/port": "8081" });
    let pods = vec![
        pod(template, "outbox-relay-a", &ip(1)),
        pod(template, "outbox-relay-b", &ip(2)),
        other("player", &ip(3), &annotations),
        other("postgres", &ip(4), &Value::Null),
        other("refuses", &ip(5), &json!({ "prometheus.io/scrape": "false", "prometheus.io/port": "8081" })),
    ];
    let cluster = Cluster::serve("gamemesh", pods);
    let api = format!("role: pod\n        api_server: {}\n", cluster.url());
    assert_eq!(config.matches("role: pod\n").count(), 1);
    let rules = read("config/prometheus/alerts.yml");
    let prometheus = PrometheusServer::start_newest(&config.replace("role: pod\n", &api), &rules).await.unwrap();

    let expected = [
        format!("outbox-relay at {}:8085", ip(1)),
        format!("outbox-relay at {}:8085", ip(2)),
        format!("player at {}:8081", ip(3)),
    ];
    wait_until("every pod that asks for it is scraped, and answers", async || {
        let up = prometheus.query("up{job=\"gamemesh-pods\"} == 1").await.unwrap();
        let name = |sample: &Value| {
            let label = |name: &str| sample["metric"][name].as_str().unwrap_or_default().to_owned();
            format!("{} at {}", label("app"), label("instance"))
        };
        let mut found: Vec<String> = up.iter().map(name).collect();
        found.sort();
        (found == expected).then_some(())
    })
    .await;
    assert_eq!(prometheus.query("up").await.unwrap().len(), expected.len(), "and no other");
    wait_until("the rules know which of them are relays", async || {
        (prometheus.query("instance:outbox_relay_up:bool == 1").await.unwrap().len() == 2).then_some(())
    })
    .await;
    let pending = prometheus.query("gamemesh_outbox_events_pending{service=\"outbox-relay\"}").await.unwrap();
    assert_eq!(pending.len(), 2, "{pending:?}");
    wait_until("nobody is told that no relay is known", async || {
        let alerts = prometheus.query("ALERTS{alertname=~\"OutboxNothingScraped|OutboxMetricsGone\"}").await.unwrap();
        alerts.is_empty().then_some(())
    })
    .await;
    drop((prometheus, running));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_earlier_relays_prometheus_finds_our_pods_by_their_annotations() {
    finds_every_pod_that_asks_for_it(EARLIER, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_prometheus_finds_our_pods_and_those_of_every_other_service() {
    finds_every_pod_that_asks_for_it(&ours(), 1).await;
}
