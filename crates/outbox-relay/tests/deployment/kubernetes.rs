//! `deployments/k8s`: what the cluster is asked for, over what the earlier relay's manifests asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};

use super::{
    assert_changes_need, drain_timeout, manifest, manifests, migrated_database, start_with, strings, text, text_map,
    yaml,
};
use crate::documents::{read, root};

/// What the earlier manifests made, and what of it can never be changed or is named elsewhere.
const EARLIER: [(&str, &str); 7] = [
    ("Namespace", "gamemesh"),
    ("Deployment", "outbox-relay"),
    ("Service", "outbox-relay"),
    ("PodDisruptionBudget", "outbox-relay"),
    ("ServiceAccount", "prometheus"),
    ("Deployment", "prometheus"),
    ("Service", "prometheus"),
];

#[test]
fn manifests_apply_over_the_earlier_ones() {
    for (kind, name) in EARLIER {
        let object = manifest(kind, name);
        if kind != "Namespace" {
            assert_eq!(object["metadata"]["namespace"], "gamemesh", "{kind} {name}");
        }
        let pods = json!({ "app": name });
        match kind {
            "Deployment" => {
                assert_eq!(object["spec"]["selector"], json!({ "matchLabels": pods }), "{name}: it cannot be changed");
                let labels = &object["spec"]["template"]["metadata"]["labels"];
                assert_eq!((&labels["app"], &labels["app.kubernetes.io/name"]), (&name.into(), &name.into()));
                assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["name"], name);
            }
            "Service" => assert_eq!(object["spec"]["selector"], pods, "{name}"),
            "PodDisruptionBudget" => assert_eq!(object["spec"]["selector"]["matchLabels"], pods),
            _ => {}
        }
    }
    for object in manifests() {
        let place = &object["metadata"]["namespace"];
        assert!(object["kind"] == "Namespace" || place == "gamemesh", "{}", object["metadata"]["name"]);
    }
}

/// The whole game's configuration and secrets, and the pods of its other services, are not the outbox's to change.
#[test]
fn nothing_of_the_other_services_is_replaced() {
    let applied: Vec<Value> = strings(&yaml(&root().join("deployments/k8s/kustomization.yaml"))[0]["resources"])
        .flat_map(|file| yaml(&root().join("deployments/k8s").join(file)))
        .collect();
    for object in &applied {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(!["gamemesh-config", "gamemesh-secrets"].contains(&name), "{name} would lose its other keys");
        assert_ne!(object["kind"], "Secret");
    }
    let labels = &manifest("Namespace", "gamemesh")["metadata"]["labels"];
    assert!(labels["pod-security.kubernetes.io/enforce"].is_null(), "it would refuse pods of others");
    let config = manifest("ConfigMap", "prometheus-config");
    let scraped: Value = serde_saphyr::from_str(config["data"]["prometheus.yml"].as_str().unwrap()).unwrap();
    let jobs: Vec<&Value> = scraped["scrape_configs"].as_array().unwrap().iter().collect();
    assert_eq!(jobs.len(), 1, "who is scraped twice counts twice");
    assert_eq!(jobs[0]["job_name"], "gamemesh-pods");
}

#[test]
fn the_relay_reads_the_games_configuration_and_secrets() {
    for (kind, name) in [("Deployment", "outbox-relay"), ("Job", "outbox-migrate")] {
        let object = manifest(kind, name);
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "gamemesh/outbox-relay:0.1.0");
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        let secret =
            BTreeMap::from([("POSTGRES_USER", "gamemesh"), ("POSTGRES_PASSWORD", "p'@#/?=$"), ("POSTGRES_DB", "mesh")]);
        let mut dsn = String::new();
        let mut known = BTreeSet::new();
        for variable in container["env"].as_array().unwrap() {
            let name = variable["name"].as_str().unwrap();
            let from = &variable["valueFrom"]["secretKeyRef"];
            if secret.contains_key(name) {
                assert_eq!(from, &json!({ "name": "gamemesh-secrets", "key": name }));
                known.insert(name);
            } else if name == "POSTGRES_DSN" {
                dsn = text(&variable["value"]);
            }
        }
        for name in known {
            // Not in quotes, as the earlier manifest has it: a password with one works there.
            assert_eq!(dsn.matches(&format!("=$({name}) ")).count(), 1, "{dsn}");
            dsn = dsn.replace(&format!("$({name})"), secret[name]);
        }
        let dsn: tokio_postgres::Config = dsn.parse().unwrap();
        assert_eq!((dsn.get_user(), dsn.get_dbname()), (Some("gamemesh"), Some("mesh")));
        assert_eq!(dsn.get_password(), Some(&b"p'@#/?=$"[..]));
    }
    let from = manifest("Deployment", "outbox-relay")["spec"]["template"]["spec"]["containers"][0]["envFrom"].clone();
    // What comes later goes before what came first.
    let game = json!({ "configMapRef": { "name": "gamemesh-config", "optional": true } });
    assert_eq!(from, json!([game, { "configMapRef": { "name": "outbox-relay" } }]));
    assert_eq!(manifest("ConfigMap", "outbox-relay")["data"]["OUTBOX_MAX_ATTEMPTS"], "5");
}

#[test]
fn the_policy_lets_the_games_prometheus_and_ours_in() {
    let policy = manifest("NetworkPolicy", "outbox-relay");
    let who = &policy["spec"]["podSelector"]["matchExpressions"][0];
    assert_eq!((&who["key"], &who["values"]), (&"app".into(), &json!(["outbox-relay", "outbox-migrate"])));
    let may = policy["spec"]["ingress"][0]["from"].as_array().unwrap();
    for labels in [json!({ "app": "prometheus" }), json!({ "app.kubernetes.io/name": "prometheus" })] {
        assert!(may.iter().any(|peer| peer == &json!({ "podSelector": { "matchLabels": labels } })), "{labels}");
    }
}

#[test]
fn the_cluster_keeps_three_relays_and_never_fewer_than_two() {
    let relay = manifest("Deployment", "outbox-relay");
    assert_eq!(relay["spec"]["replicas"], 3);
    assert_eq!(relay["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 1);
    let budget = manifest("PodDisruptionBudget", "outbox-relay");
    assert_eq!(budget["spec"]["minAvailable"], 2);
    assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    let service = manifest("Service", "outbox-relay");
    assert_eq!(service["spec"]["ports"][0]["port"], 8085);

    let pod = &relay["spec"]["template"];
    for selector in [&budget["spec"]["selector"]["matchLabels"], &service["spec"]["selector"]] {
        for (label, value) in selector.as_object().unwrap() {
            assert_eq!(&pod["metadata"]["labels"][label], value, "nothing is selected");
        }
    }
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(
        (&annotations["prometheus.io/scrape"], &annotations["prometheus.io/port"]),
        (&"true".into(), &"8085".into())
    );

    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["ports"][0]["containerPort"], 8085);
    let resources =
        json!({ "requests": { "cpu": "100m", "memory": "64Mi" }, "limits": { "cpu": "500m", "memory": "128Mi" } });
    assert_eq!(container["resources"], resources);
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(pod["spec"]["topologySpreadConstraints"].as_array().unwrap().len(), 2);
}

#[test]
fn pods_are_as_restricted_as_the_cluster_can_ask() {
    let pods = manifests().into_iter().filter(|object| object["spec"]["template"].is_object());
    assert_eq!(assert_restricted(pods), 5);
}

/// Counts the pods.
pub(super) fn assert_restricted(pods: impl Iterator<Item = Value>) -> usize {
    let mut count = 0;
    for pod in pods {
        let (name, spec) = (&pod["metadata"]["name"], &pod["spec"]["template"]["spec"]);
        let security = &spec["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        if name != "prometheus" && name != "alertmanager" {
            assert_eq!(security["runAsUser"], 65532, "{name}");
        }
        if name != "prometheus" {
            assert_eq!(spec["automountServiceAccountToken"], false, "{name}");
        }
        for container in spec["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["capabilities"], serde_json::json!({"drop": ["ALL"]}), "{name}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
        }
        for volume in spec["volumes"].as_array().into_iter().flatten() {
            assert!(volume["hostPath"].is_null(), "{name}");
        }
        count += 1;
    }
    count
}

#[test]
fn a_relay_is_given_longer_than_it_takes_to_stop() {
    let relay = manifest("Deployment", "outbox-relay");
    let grace = relay["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    let drain = drain_timeout(&text_map(&manifest("ConfigMap", "outbox-relay")["data"]));
    assert!(grace >= drain + 5, "grace {grace} s, drain {drain} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_start_with_the_settings_of_the_cluster() {
    let (database, token) = (migrated_database().await, "0123456789abcdef");
    let config = text_map(&manifest("ConfigMap", "outbox-relay")["data"]);
    for (kind, name) in [("Deployment", "outbox-relay"), ("Job", "outbox-migrate")] {
        let object = manifest(kind, name);
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        let mut set = config.clone();
        for variable in container["env"].as_array().unwrap() {
            let name = text(&variable["name"]);
            // Parts of the connection string.
            if !["POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"].contains(&name.as_str()) {
                set.insert(name, variable["value"].as_str().unwrap_or("from the secret").to_owned());
            }
        }
        let relay = start_with(&set, &database, token);
        if name == "outbox-relay" {
            assert_changes_need(&relay, token);
        }
    }
}

#[test]
fn the_cluster_has_the_same_rules() {
    let rules = read(&root().join("config/prometheus/alerts.yml"));
    let inhibitions = read(&root().join("config/prometheus/alertmanager.yml"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        update("30-monitoring.yaml", "alerts.yml", &rules);
        update("35-alertmanager.yaml", "alertmanager.yml", &inhibitions);
    }
    let data = &manifest("ConfigMap", "prometheus-config")["data"];
    assert!(data["alerts.yml"] == rules.as_str(), "run the tests once with UPDATE_DOCS=1");
    let copy = &manifest("ConfigMap", "alertmanager-config")["data"]["alertmanager.yml"];
    assert!(*copy == inhibitions.as_str(), "run the tests once with UPDATE_DOCS=1");
    for alert in ["OutboxEventsDeadLettered", "OutboxBacklogGrowing", "OutboxPublishStalled"] {
        assert!(rules.contains(&format!("alert: {alert}\n")), "{alert}");
    }

    let scraped: Value = serde_saphyr::from_str(data["prometheus.yml"].as_str().unwrap()).unwrap();
    let target = scraped["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"][0].as_str().unwrap();
    let service = manifest("Service", target.split(':').next().unwrap());
    assert_eq!(service["spec"]["ports"][0]["port"].to_string(), target.split(':').nth(1).unwrap());

    // Debian's promtool is built without the discovery of Kubernetes; everything else of the file it can check.
    let discovery = "kubernetes_sd_configs:\n      - role: pod\n        namespaces:\n          own_namespace: true\n";
    let config = data["prometheus.yml"].as_str().unwrap();
    assert!(config.contains(discovery));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("prometheus.yml"), config.replace(discovery, "static_configs: []\n")).unwrap();
    std::fs::write(folder.path().join("alerts.yml"), &rules).unwrap();
    let mut promtool = Command::new("promtool");
    let output = promtool.args(["check", "config"]).arg(folder.path().join("prometheus.yml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Writes `text` as the last thing in a manifest, under `key`.
fn update(file: &str, key: &str, text: &str) {
    let path = root().join("deployments/k8s").join(file);
    let manifest = read(&path);
    let (before, _) = manifest.split_once(&format!("  {key}: |\n")).unwrap();
    let indent = |line: &str| if line.is_empty() { String::new() } else { format!("    {line}") };
    let indented: Vec<String> = text.lines().map(indent).collect();
    std::fs::write(&path, format!("{before}  {key}: |\n{}\n", indented.join("\n"))).unwrap();
}

#[test]
fn kustomize_applies_files_that_exist_and_no_secret() {
    let folder = root().join("deployments/k8s");
    let listed = &yaml(&folder.join("kustomization.yaml"))[0]["resources"];
    for file in strings(listed) {
        assert!(folder.join(file).exists(), "{file}");
        assert!(!file.contains("example") && !file.contains("optional"), "{file}");
    }
    let template = read(&folder.join("05-secrets.example.yaml"));
    let filled =
        template.lines().filter(|line| ["password=", "://", "token:"].iter().any(|secret| line.contains(secret)));
    assert!(filled.clone().count() > 3 && filled.clone().all(|line| line.contains("REPLACE")));
}

#[test]
fn the_image_has_no_shell_and_its_build_finds_every_file() {
    for name in ["outbox-relay", "player-service"] {
        let text = read(&root().join(format!("deployments/docker/Dockerfile.{name}")));
        let last_stage = text.rsplit_once("\nFROM ").unwrap().1;
        assert!(last_stage.starts_with("gcr.io/distroless/cc-debian12:nonroot\n"), "{last_stage}");
        assert!(last_stage.contains("\nUSER 65532:65532\n") && !last_stage.contains("\nRUN "), "{last_stage}");
        assert!(text.contains(&format!("cargo build --locked --profile dist -p {name}")));
        let rust = read(&root().join("Cargo.toml"));
        let version = rust.split_once("rust-version = \"").unwrap().1.split('"').next().unwrap();
        assert!(text.contains(&format!("FROM rust:{version}-bookworm AS build")), "expected Rust {version}");

        let ignored = read(&root().join(".dockerignore"));
        let copied = text.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from"));
        let sources = copied.flat_map(|line| line.split_whitespace().skip(1)).filter(|word| *word != "./");
        for source in sources {
            assert!(root().join(source).exists(), "{source}");
            assert!(ignored.contains(&format!("\n!{source}\n")), "{source} is not in the build's context");
        }
    }
}
