//! What kustomize makes of the manifests, as they are and in a namespace of their own.

use std::process::Command;

use serde_json::{Value, json};

use super::kubernetes::assert_restricted;
use super::{documents_in, one_of, text, tool, yaml_in};
use crate::documents::root;

/// Returns the text that `kubectl kustomize` prints for a folder.
fn built(folder: &str) -> String {
    let mut kubectl = Command::new("kubectl");
    let output = kubectl.arg("kustomize").arg(root().join(folder)).output();
    let output = output.expect("kubectl is there: scripts/test installs what is missing");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn objects(folder: &str) -> Vec<Value> {
    yaml_in(&built(folder)).unwrap()
}

#[test]
fn kustomize_changes_nothing_of_the_manifests() {
    let folder = root().join("deployments/k8s");
    let files = ["00-namespace", "12-migrate-job", "15-outbox-relay", "30-monitoring", "35-alertmanager"];
    let files: Vec<_> = files.iter().map(|name| folder.join(format!("{name}.yaml"))).collect();
    let mut written = documents_in(&files);
    let mut built = objects("deployments/k8s");
    for objects in [&mut written, &mut built] {
        objects.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
    }
    assert_eq!(written, built);
}

#[test]
fn an_overlay_moves_everything_into_a_namespace_of_its_own() {
    let text = built("deployments/overlays/own-namespace");
    let file = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
    std::fs::write(file.path(), &text).unwrap();
    let output = Command::new(tool("kubernetes-validate")).arg("--strict").arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let objects = yaml_in(&text).unwrap();
    for object in &objects {
        let place =
            if object["kind"] == "Namespace" { &object["metadata"]["name"] } else { &object["metadata"]["namespace"] };
        assert_eq!(place, "outbox", "{} {}", object["kind"], object["metadata"]["name"]);
    }
    let binding = one_of(objects.clone(), "RoleBinding", "prometheus");
    assert_eq!(binding["subjects"][0]["namespace"], "outbox");
    let namespace = one_of(objects.clone(), "Namespace", "outbox");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
    let pods = objects.into_iter().filter(|object| object["spec"]["template"].is_object());
    assert_eq!(assert_restricted(pods), 4);
}

#[test]
fn the_overlay_mounts_every_secret_as_a_file() {
    let template = super::manifest("Secret", "outbox-relay");
    for (kind, name) in [("Deployment", "outbox-relay"), ("Job", "outbox-migrate")] {
        let object = one_of(objects("deployments/overlays/own-namespace"), kind, name);
        let pod = &object["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        for variable in container["env"].as_array().unwrap() {
            assert!(text(&variable["name"]).ends_with("_FILE"), "{name}: {variable}");
            let key = variable["value"].as_str().and_then(|value| value.strip_prefix("/run/secrets/outbox/")).unwrap();
            assert!(template["stringData"][key].is_string(), "{name}: the template has no key {key}");
        }
        let mount = json!([{ "name": "secrets", "mountPath": "/run/secrets/outbox", "readOnly": true }]);
        assert_eq!(container["volumeMounts"], mount);
        assert_eq!(pod["volumes"][0]["secret"], json!({ "secretName": name, "defaultMode": 0o440 }));
    }
}
