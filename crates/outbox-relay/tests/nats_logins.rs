//! Every way to log in to NATS, against a server that wants it.

use std::path::Path;

use nkeys::KeyPair;
use outbox_testkit::servers::{NatsOperator, NatsServer};

use crate::probe::{Settings, bus_is_refused, published_once};

const WRONG: &str = "c4n4ry-hunter2";

fn url(server: &NatsServer, login: &str) -> Settings {
    vec![("NATS_URL", server.url().replace("nats://", &format!("nats://{login}@")))]
}

fn file(server: &NatsServer, folder: &Path, name: &str, text: &str) -> Settings {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    vec![("NATS_URL", server.url()), ("NATS_CREDENTIALS_FILE", path.display().to_string())]
}

/// The relay is let in with the first settings, and refused with all the others without showing their secrets.
fn only_the_first(settings: &[(Settings, &str)]) {
    published_once(&settings[0].0);
    for (wrong, secret) in &settings[1..] {
        let text = bus_is_refused(wrong, "authorization violation");
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password() {
    let server = NatsServer::start_with("authorization { user: relay, password: \"r1ght @pw\" }").await.unwrap();
    only_the_first(&[
        (url(&server, "relay:r1ght%20%40pw"), ""),
        (url(&server, &format!("relay:{WRONG}")), WRONG),
        (url(&server, WRONG), WRONG),
        (vec![("NATS_URL", server.url())], WRONG),
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token() {
    let server = NatsServer::start_with("authorization { token: r1ght }").await.unwrap();
    only_the_first(&[(url(&server, "r1ght"), ""), (url(&server, WRONG), WRONG)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nkey() {
    let (right, wrong) = (KeyPair::new_user(), KeyPair::new_user());
    let rule = format!("authorization {{ users: [{{ nkey: {} }}] }}", right.public_key());
    let server = NatsServer::start_with(&rule).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (right.seed().unwrap(), wrong.seed().unwrap());
    only_the_first(&[
        (file(&server, folder.path(), "right", &format!("{right}\n")), ""),
        (file(&server, folder.path(), "wrong", &wrong), &wrong),
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credentials_file() {
    let operator = NatsOperator::new().unwrap();
    let server = NatsServer::start_with(&operator.configuration()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let right = operator.credentials(None).unwrap();
    let stranger = NatsOperator::new().unwrap().credentials(None).unwrap();
    let expired = operator.credentials(Some(1_700_000_001)).unwrap();
    let seed = |text: &str| text.lines().find(|line| line.starts_with("SU")).unwrap().to_owned();
    only_the_first(&[
        (file(&server, folder.path(), "right", &right), ""),
        (file(&server, folder.path(), "stranger", &stranger), &seed(&stranger)),
        (file(&server, folder.path(), "expired", &expired), &seed(&expired)),
    ]);
}
