use crate::program::run;

#[test]
fn every_command_says_what_it_does() {
    let commands: [(&str, &[&str]); 17] = [
        ("help", &["--help"]),
        ("help_run", &["run", "--help"]),
        ("help_demo", &["demo", "--help"]),
        ("help_emit", &["emit", "--help"]),
        ("help_dead_letters", &["dead-letters", "--help"]),
        ("help_dead_letters_list", &["dead-letters", "list", "--help"]),
        ("help_dead_letters_show", &["dead-letters", "show", "--help"]),
        ("help_dead_letters_requeue", &["dead-letters", "requeue", "--help"]),
        ("help_dead_letters_discard", &["dead-letters", "discard", "--help"]),
        ("help_status", &["status", "--help"]),
        ("help_doctor", &["doctor", "--help"]),
        ("help_bench", &["bench", "--help"]),
        ("help_migrate", &["migrate", "--help"]),
        ("help_migrate_up", &["migrate", "up", "--help"]),
        ("help_migrate_down", &["migrate", "down", "--help"]),
        ("help_migrate_status", &["migrate", "status", "--help"]),
        ("help_migrate_print", &["migrate", "print", "--help"]),
    ];
    for (name, arguments) in commands {
        let output = run(arguments, &[]);
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}");
        insta::assert_snapshot!(name, String::from_utf8(output.stdout).unwrap());
    }
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [&["rnu"][..], &["emit"], &["migrate"], &["migrate", "down"], &["emit", "--topic", "events.a"]] {
        assert_eq!(run(arguments, &[]).status.code(), Some(2), "{arguments:?}");
    }
}
