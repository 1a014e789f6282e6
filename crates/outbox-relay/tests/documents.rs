//! What documents, compose and manifests tell people to type, held against the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use outbox_testkit::servers::PostgresServer;

use crate::program::{run, transcript};

#[test]
fn every_command_in_a_document_exists() {
    let mut commands: BTreeSet<Vec<String>> = BTreeSet::new();
    for path in documents() {
        commands.extend(commands_in(&read(&path)));
    }
    assert!(commands.contains(&vec!["migrate".to_owned(), "up".to_owned()]), "{commands:?}");
    let wrong: Vec<&Vec<String>> = commands.iter().filter(|command| !exists(command)).collect();
    assert!(wrong.is_empty(), "no such commands: {wrong:?}");

    assert_eq!(commands_in("`outbox-relay migrate sideways`"), [["migrate", "sideways"]]);
    assert!(!exists(&["migrate".to_owned(), "sideways".to_owned()]));
}

#[test]
fn every_setting_in_a_document_exists() {
    let mut known = settings();
    // Those of the simulation and of the model are their tests' own.
    for file in [
        "outbox-testkit/tests/simulation/seeds.rs",
        "outbox-testkit/tests/simulation/bugs/mod.rs",
        "gamemesh-outbox/src/store/postgres/model/mod.rs",
    ] {
        known.extend(variables_in(&read(&root().join("crates").join(file))));
    }
    let mut problems = Vec::new();
    for path in documents() {
        let named = variables_in(&read(&path));
        let wrong = named.into_iter().filter(|name| !known.contains(name));
        problems.extend(wrong.map(|name| format!("{}: {name}", path.display())));
    }
    assert!(problems.is_empty(), "no such settings:\n{}", problems.join("\n"));
    assert_eq!(variables_in("set `OUTBOX_BATCHSIZE` or"), ["OUTBOX_BATCHSIZE"]);
}

/// Lists the subcommands that code in a document gives to the program.
fn commands_in(text: &str) -> Vec<Vec<String>> {
    // The language of the code block, inside of one.
    let mut block: Option<&str> = None;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = block.is_none().then_some(language);
            continue;
        }
        let spans: Vec<&str> = match block {
            Some("sh") => vec![line],
            Some(_) => Vec::new(),
            None => line.split('`').skip(1).step_by(2).collect(),
        };
        for span in spans {
            let words: Vec<&str> = span.split_whitespace().collect();
            for (place, _) in words.iter().enumerate().filter(|(_, word)| **word == "outbox-relay") {
                let is_name =
                    |word: &&&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
                let command: Vec<String> =
                    words[place + 1..].iter().take_while(is_name).take(2).map(|word| (*word).to_owned()).collect();
                found.extend((!command.is_empty()).then_some(command));
            }
        }
    }
    found
}

fn exists(command: &[String]) -> bool {
    let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
    run(&arguments, &[]).status.success()
}

fn variables_in(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    let ours = words.filter(|word| word.len() > "OUTBOX_".len() && word.starts_with("OUTBOX_"));
    ours.filter(|word| !word.starts_with("OUTBOX_TEST_")).map(str::to_owned).collect()
}

/// Lists every environment variable that the program reads, as its reference has them; another test keeps that current.
pub(crate) fn settings() -> BTreeSet<String> {
    let page = read(&root().join("docs/configuration.md"));
    let mut names = BTreeSet::from(["OUTBOX_CONFIG".to_owned()]);
    for section in page.split("\n### `").skip(1) {
        let name = section.split('`').next().unwrap();
        names.insert(name.to_owned());
        if section.contains("*secret*") {
            names.insert(format!("{name}_FILE"));
        }
    }
    names
}

/// Lists what people read to run the program.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            } else if name.ends_with(".md") || name.ends_with(".yaml") || name.ends_with(".yml") {
                found.push(path);
            }
        }
    }
    found
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_built_beforehand_are_taken_over_by_the_migration() {
    let database = PostgresServer::shared().database().await;
    let sql = database.client().await;
    for migration in ["0003_create_outbox_events", "0004_outbox_dead_letter"] {
        sql.batch_execute(&read(&root().join(format!("migrations/{migration}.up.sql")))).await.unwrap();
    }
    let rows = "INSERT INTO outbox_events (id, event_type, topic, payload) VALUES (gen_random_uuid(), 'x', 'a.b', '1')";
    sql.batch_execute(rows).await.unwrap();
    let page = read(&root().join("docs/operations.md"));
    let block = page.split_once("<!-- A test runs this block").unwrap().1.split_once("```sql\n").unwrap().1;
    for statement in block.split_once("```").unwrap().0.split_terminator(";\n") {
        sql.batch_execute(statement).await.unwrap();
    }
    let built = "SELECT count(*), sum(oid::bigint)::bigint FROM pg_class
                 WHERE relname IN ('idx_outbox_dead_letters', 'idx_outbox_due', 'idx_outbox_failing', 'idx_outbox_published')";
    let before = sql.query_one(built, &[]).await.unwrap();
    let migrated = run(&["migrate", "up"], &[("POSTGRES_DSN", &database.dsn())]);
    assert!(migrated.status.success(), "{}", transcript(&migrated));
    let after = sql.query_one(built, &[]).await.unwrap();
    assert_eq!(before.get::<_, i64>(0), 4);
    assert_eq!(before.get::<_, i64>(1), after.get::<_, i64>(1), "they were built again");
    sql.batch_execute("SELECT outbox_publish('a.b', 'x', '1')").await.unwrap();
}
