//! What `docker-compose.yml` and `deployments/` say, held against the program, the rules and the validators of others.

mod compose;
mod kubernetes;
mod overlay;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use outbox_testkit::servers::{PostgresServer, TestDatabase, free_port};
use serde_json::{Value, json};

use crate::documents::{read, root, settings};
use crate::program::{Relay, command, exchange, run, transcript};

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

/// A validator that `scripts/test` installed.
fn tool(name: &str) -> PathBuf {
    let path = root().join("target/test-tools/venv/bin").join(name);
    assert!(path.exists(), "{} is missing: scripts/test installs it", path.display());
    path
}

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

pub(crate) fn manifest(kind: &str, name: &str) -> Value {
    one_of(manifests(), kind, name)
}

fn one_of(mut found: Vec<Value>, kind: &str, name: &str) -> Value {
    found.retain(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    assert_eq!(found.len(), 1, "{kind} {name}");
    found.remove(0)
}

fn yaml(path: &Path) -> Vec<Value> {
    yaml_in(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml_in(text: &str) -> Result<Vec<Value>, String> {
    serde_saphyr::from_multiple(text).map_err(|error| error.to_string())
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
