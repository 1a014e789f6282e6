//! As much of a Kubernetes API as a Prometheus needs to find pods: a list of them, and a watch in which nothing happens.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::{Value, json};

/// Serves the pods of one namespace to whoever asks.
pub(super) struct Cluster {
    address: SocketAddr,
}

impl Cluster {
    pub(super) fn serve(namespace: &str, pods: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let path = format!("GET /api/v1/namespaces/{namespace}/pods?");
        let shared = Arc::new((path, pods));
        // It ends with the tests: whoever asks is ended before.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                std::thread::spawn(move || answer(stream, &shared.0, &shared.1));
            }
        });
        Self { address }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Makes the pod that a controller makes of `template`.
pub(super) fn pod(template: &Value, name: &str, ip: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": template["metadata"],
        "spec": template["spec"],
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "hostIP": "127.0.0.1",
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["namespace"] = "gamemesh".into();
    pod["metadata"]["uid"] = format!("uid-of-{name}").into();
    pod["metadata"]["resourceVersion"] = "1".into();
    pod["spec"]["nodeName"] = "node".into();
    pod
}

/// Answers one request of a connection. Errors mean that the other side has gone.
fn answer(stream: TcpStream, path: &str, pods: &[Value]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    let head = "Content-Type: application/json\r\nConnection: close\r\n\r\n";
    if !request.starts_with(path) {
        return write!(writer, "HTTP/1.1 404 Not Found\r\n{head}{{}}");
    }
    write!(writer, "HTTP/1.1 200 OK\r\n{head}")?;
    if !request.contains("watch=true") && !request.contains("watch=1") {
        let list =
            json!({ "apiVersion": "v1", "kind": "PodList", "metadata": { "resourceVersion": "1" }, "items": pods });
        return write!(writer, "{list}");
    }
    // Who watches from the beginning is told of what there is, and when that is all.
    if request.contains("sendInitialEvents=true") {
        for pod in pods {
            writeln!(writer, "{}", json!({ "type": "ADDED", "object": pod }))?;
        }
        let end = json!({ "resourceVersion": "1", "annotations": { "k8s.io/initial-events-end": "true" } });
        let bookmark = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": end });
        writeln!(writer, "{}", json!({ "type": "BOOKMARK", "object": bookmark }))?;
    }
    writer.flush()?;
    // Until whoever watches goes.
    reader.read_to_end(&mut Vec::new()).map(drop)
}
