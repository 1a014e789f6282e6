//! What `docker-compose.yml` and `deployments/` say, held against the program, the rules and the validators of others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use outbox_testkit::servers::{PostgresServer, TestDatabase, free_port};
use serde_json::{Value, json};

use crate::documents::{read, root, settings};
use crate::program::{Relay, command, exchange, run, transcript};

/// What compose needs to be seen valid: the specification's grammar, and every name that is used is defined.
const COMPOSE_CHECK: &str = "
import sys
from compose_spec import PyCompose, _PyOptions
options = _PyOptions()
options.apply_merge = True
compose = options.from_yaml(sys.stdin.read())
compose.validate()
PyCompose(compose).to_spec()
";

#[test]
fn manifests_are_what_their_schemas_say() {
    let folder = root().join("deployments/k8s");
    let mut files = manifest_files();
    // KEDA's own kind; no schema of Kubernetes knows it.
    files.retain(|file| !file.ends_with("40-autoscaling.optional.yaml"));
    let output = Command::new(tool("kubernetes-validate")).arg("--strict").args(&files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("WARN"), "{said}");
    assert_eq!(said.matches(" passed for resource ").count(), documents_in(&files).len(), "{said}");

    let wrong = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    let text = read(&folder.join("15-outbox-relay.yaml")).replace("replicas: 3", "replikas: 3");
    std::fs::write(wrong.path(), text).unwrap();
    let output = Command::new(tool("kubernetes-validate")).arg("--strict").arg(wrong.path()).output().unwrap();
    assert!(!output.status.success(), "the validator finds nothing");
}

#[test]
fn the_compose_file_is_what_its_specification_says() {
    let text = read(&root().join("docker-compose.yml"));
    check_compose(&text).unwrap();
    for (from, to) in [("restart: unless-stopped", "restart: perhaps"), ("secrets: [relay-dsn, ", "secrets: [other, ")]
    {
        assert!(check_compose(&text.replace(from, to)).is_err(), "{to}: the validator finds nothing");
    }
}

fn check_compose(text: &str) -> Result<(), String> {
    let mut command = Command::new(tool("kubernetes-validate").with_file_name("python"));
    command.args(["-c", COMPOSE_CHECK]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A validator that `scripts/test` installed.
fn tool(name: &str) -> PathBuf {
    let path = root().join("target/test-tools/venv/bin").join(name);
    assert!(path.exists(), "{} is missing: scripts/test installs it", path.display());
    path
}

// --- Compose ---------------------------------------------------------------------------------------------------------

#[test]
fn compose_mounts_and_builds_what_exists() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let mut files: Vec<&str> = Vec::new();
    for service in services.values() {
        files.extend(service["build"]["dockerfile"].as_str());
        let volumes = strings(&service["volumes"]);
        files.extend(volumes.filter(|volume| volume.starts_with('.')).filter_map(|volume| volume.split(':').next()));
        for dependency in service["depends_on"].as_object().into_iter().flat_map(|map| map.keys()) {
            assert!(services.contains_key(dependency), "no service {dependency}");
        }
    }
    files.extend(compose["secrets"].as_object().unwrap().values().filter_map(|secret| secret["file"].as_str()));
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        assert!(root().join(file).exists(), "docker-compose.yml names {file}");
    }
}

#[test]
fn compose_runs_three_hardened_relays_that_prometheus_finds() {
    let compose = compose();
    let relay = &compose["services"]["outbox-relay"];
    assert_eq!(relay["deploy"]["replicas"], 3);
    assert_eq!(relay["ports"][0]["target"], 8085);
    assert_eq!(relay["environment"]["HTTP_PORT"], "8085");
    assert_eq!(relay["mem_limit"], "128m");
    assert_eq!(relay["user"], "65532:65532");
    assert_eq!((&relay["read_only"], &relay["cap_drop"][0]), (&Value::Bool(true), &Value::from("ALL")));
    let grace = relay["stop_grace_period"].as_str().and_then(|text| text.strip_suffix('s')).unwrap();
    assert!(grace.parse::<u64>().unwrap() > drain_timeout(&BTreeMap::new()) + 2);

    let scraped = &yaml(&root().join("config/prometheus/prometheus.yml"))[0]["scrape_configs"][0];
    assert_eq!(scraped["dns_sd_configs"][0]["names"][0], "outbox-relay");
    assert_eq!(scraped["dns_sd_configs"][0]["port"], 8085);
}

#[test]
fn compose_listens_on_this_machine_only_and_pins_every_image() {
    for (name, service) in compose()["services"].as_object().unwrap() {
        let image = service["image"].as_str().unwrap();
        let tag = image.split_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|tag| tag != "latest"), "{name}: {image}");
        for port in service["ports"].as_array().into_iter().flatten() {
            let local = port.as_str().is_some_and(|port| port.starts_with("127.0.0.1:"));
            assert!(local || port["host_ip"] == "127.0.0.1", "{name}: {port}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_start_with_the_settings_of_compose() {
    let (compose, database) = (compose(), migrated_database().await);
    let token = read(&root().join(compose["secrets"]["admin-token"]["file"].as_str().unwrap()));
    let services = compose["services"].as_object().unwrap();
    let relays = services.iter().filter(|(_, service)| service["image"] == "outbox-relay:local");
    for (name, service) in relays {
        let set = text_map(&service["environment"]);
        let relay = start_with(&set, &database, &token);
        if name == "outbox-relay" {
            assert_changes_need(&relay, &token);
        }
        let secrets: BTreeSet<&str> = strings(&service["secrets"]).collect();
        let named = set.values().filter_map(|value| value.strip_prefix("/run/secrets/"));
        assert!(named.clone().count() > 0 && named.clone().all(|secret| secrets.contains(secret)), "{set:?}");
    }
}

// --- Kubernetes ------------------------------------------------------------------------------------------------------

#[test]
fn the_cluster_keeps_three_relays_and_never_fewer_than_two() {
    let relay = manifest("Deployment", "outbox-relay");
    assert_eq!(relay["spec"]["replicas"], 3);
    assert_eq!(relay["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], 1);
    let budget = manifest("PodDisruptionBudget", "outbox-relay");
    assert_eq!(budget["spec"]["minAvailable"], 2);
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
    assert_eq!(container["resources"]["requests"]["memory"], "64Mi");
    assert_eq!(container["resources"]["limits"]["memory"], "128Mi");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(pod["spec"]["topologySpreadConstraints"].as_array().unwrap().len(), 2);
}

#[test]
fn pods_are_as_restricted_as_the_cluster_can_ask() {
    let namespace = manifest("Namespace", "outbox");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    let pods: Vec<Value> = manifests().into_iter().filter(|object| object["spec"]["template"].is_object()).collect();
    assert_eq!(pods.len(), 4);
    for pod in pods {
        let (name, spec) = (&pod["metadata"]["name"], &pod["spec"]["template"]["spec"]);
        let security = &spec["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{name}");
        assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        if name != "prometheus" {
            assert_eq!(security["runAsUser"], 65532, "{name}");
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
    }
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
    let secret = manifest("Secret", "outbox-relay");
    for (kind, name) in [("Deployment", "outbox-relay"), ("Job", "outbox-migrate")] {
        let object = manifest(kind, name);
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        let mut set = config.clone();
        for variable in container["env"].as_array().unwrap() {
            set.insert(text(&variable["name"]), text(&variable["value"]));
        }
        let relay = start_with(&set, &database, token);
        if name == "outbox-relay" {
            assert_changes_need(&relay, token);
        }
        for key in set.values().filter_map(|value| value.strip_prefix("/run/secrets/outbox/")) {
            assert!(secret["stringData"][key].is_string(), "{name}: the template has no key {key}");
        }
    }
}

#[test]
fn the_cluster_has_the_same_rules() {
    let path = root().join("deployments/k8s/30-monitoring.yaml");
    let rules = read(&root().join("config/prometheus/alerts.yml"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let manifest = read(&path);
        let (before, _) = manifest.split_once("  alerts.yml: |\n").unwrap();
        let indented: Vec<String> =
            rules.lines().map(|line| if line.is_empty() { String::new() } else { format!("    {line}") }).collect();
        std::fs::write(&path, format!("{before}  alerts.yml: |\n{}\n", indented.join("\n"))).unwrap();
    }
    let data = &manifest("ConfigMap", "prometheus-config")["data"];
    assert!(data["alerts.yml"] == rules.as_str(), "run the tests once with UPDATE_DOCS=1");
    for alert in ["OutboxEventsDeadLettered", "OutboxBacklogGrowing", "OutboxPublishStalled"] {
        assert!(rules.contains(&format!("alert: {alert}\n")), "{alert}");
    }

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

// --- Reading ---------------------------------------------------------------------------------------------------------

async fn migrated_database() -> TestDatabase {
    let database = PostgresServer::shared().database().await;
    let migrated = run(&["migrate", "up"], &[("POSTGRES_DSN", &database.dsn())]);
    assert!(migrated.status.success(), "{}", transcript(&migrated));
    database
}

/// Starts a relay with what a file sets: every name and every value is checked by the program itself. What would be
/// mounted as a secret holds `token`, this database, and the address of a bus that is away.
fn start_with(set: &BTreeMap<String, String>, database: &TestDatabase, token: &str) -> Relay {
    let known = settings();
    let folder = tempfile::tempdir().unwrap();
    let nobody = format!("nats://127.0.0.1:{}", free_port());
    let mut command = command(&["run"], &[]);
    for (name, value) in set {
        assert!(known.contains(name), "{name} is no setting");
        let text = match name.trim_end_matches("_FILE") {
            "POSTGRES_DSN" => &database.dsn(),
            "NATS_URL" => &nobody,
            "OUTBOX_ADMIN_TOKEN" => token,
            _ => value,
        };
        if value.starts_with("/run/secrets/") {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            command.env(name, file);
        } else {
            command.env(name, text);
        }
    }
    command.envs([("HTTP_PORT", "0"), ("OUTBOX_HTTP_ADDRESS", "127.0.0.1"), ("OTEL_ENABLED", "false")]);
    let relay = Relay::start_command(command);
    relay.wait_for_log("relay running");
    relay
}

/// Dead letters may be changed by whoever has this token, and by nobody else.
fn assert_changes_need(relay: &Relay, token: &str) {
    let body = json!({ "everything": true, "dry_run": true }).to_string();
    let requeue = |authorization: &[(&str, &str)]| {
        let headers = [&[("Host", "localhost"), ("Content-Type", "application/json")], authorization].concat();
        exchange(relay.address(), "POST", "/api/v1/dead-letters/requeue", &headers, &body)
    };
    let answer = requeue(&[("Authorization", &format!("Bearer {}", token.trim()))]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = requeue(&[]);
    assert_eq!(answer.status, 401, "{answer:?}");
}

/// Returns the drain timeout, in seconds, of these settings.
fn drain_timeout(set: &BTreeMap<String, String>) -> u64 {
    let page = read(&root().join("docs/configuration.md"));
    let section = page.split_once("### `OUTBOX_DRAIN_TIMEOUT`").unwrap().1;
    let default = section.split_once("default `").unwrap().1.split('`').next().unwrap();
    let chosen = set.get("OUTBOX_DRAIN_TIMEOUT").map_or(default, String::as_str);
    let seconds = chosen.strip_suffix('s').and_then(|number| number.parse().ok());
    seconds.unwrap_or_else(|| panic!("expected seconds, got {chosen}"))
}

fn compose() -> Value {
    let mut found = yaml(&root().join("docker-compose.yml"));
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn manifest_files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root().join("deployments/k8s")).unwrap();
    let paths = folder.map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = paths.filter(|path| !path.ends_with("kustomization.yaml")).collect();
    files.sort();
    files
}

fn manifests() -> Vec<Value> {
    documents_in(&manifest_files())
}

fn documents_in(files: &[PathBuf]) -> Vec<Value> {
    files.iter().flat_map(|file| yaml(file)).collect()
}

fn manifest(kind: &str, name: &str) -> Value {
    let mut found = manifests();
    found.retain(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    assert_eq!(found.len(), 1, "{kind} {name}");
    found.remove(0)
}

fn yaml(path: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("expected a text, got {value}: put it in quotes")).to_owned()
}

fn text_map(values: &Value) -> BTreeMap<String, String> {
    values.as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value))).collect()
}
