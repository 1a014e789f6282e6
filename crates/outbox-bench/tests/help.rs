use std::process::Command;

use outbox_testkit::transcript;

use crate::program::{relay, run};

#[test]
fn every_benchmark_says_what_it_does() {
    let commands: [(&str, &[&str]); 4] = [
        ("help", &["--help"]),
        ("help_drain", &["drain", "--help"]),
        ("help_latency", &["latency", "--help"]),
        ("help_insert", &["insert", "--help"]),
    ];
    for (name, arguments) in commands {
        let output = run(arguments, &[]);
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}");
        insta::assert_snapshot!(name, String::from_utf8(output.stdout).unwrap());
    }
}

#[test]
fn the_relay_finds_it() {
    let found = Command::new(relay()).args(["bench", "drain", "--help"]).env_clear().output().unwrap();
    assert!(found.status.success(), "{}", transcript(&found));
    assert_eq!(found.stdout, run(&["drain", "--help"], &[]).stdout);
}
