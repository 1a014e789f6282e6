//! The statements. Each says in its file why it is as it is; a test prepares them all. Where one says `{name}`, it goes on as
//! in the file of that name.

use std::sync::LazyLock;

use crate::store::compose::compose;

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) const $name: &str = include_str!($file);)*
    };
}

macro_rules! composed {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: LazyLock<String> = LazyLock::new(|| compose(include_str!($file), &FRAGMENTS));)*
    };
}

/// What the statements about dead letters have in common: which are meant, and which a request holds.
const FRAGMENTS: [(&str, &str); 3] = [
    ("held", include_str!("held.sql")),
    ("is_about", include_str!("is_about.sql")),
    ("is_within", include_str!("is_within.sql")),
];

composed! {
    DEAD_LETTER_COUNT = "dead_letter_count.sql";
    DEAD_LETTER_GROUPS = "dead_letter_groups.sql";
    DEAD_LETTERS = "dead_letters.sql";
    DISCARD = "discard.sql";
    REQUEUE = "requeue.sql";
}

statements! {
    BACKLOG = "backlog.sql";
    CHARGE = "charge.sql";
    CLAIM = "claim.sql";
    COLUMNS = "columns.sql";
    DEFER = "defer.sql";
    DELETE_PUBLISHED = "delete_published.sql";
    HISTORY = "history.sql";
    LOCK_DUE = "lock_due.sql";
    MARK_PUBLISHED = "mark_published.sql";
    MIGRATION_APPLIED = "migration_applied.sql";
    MIGRATION_REVERTED = "migration_reverted.sql";
    MIGRATIONS = "migrations.sql";
    MIGRATIONS_TABLE = "migrations_table.sql";
    OVERVIEW = "overview.sql";
    PRUNE = "prune.sql";
    READ_ONE = "read_one.sql";
    SHOW = "show.sql";
    RELAYS = "relays.sql";
    TOPICS = "topics.sql";
    WAIT_FOR_DUE = "wait_for_due.sql";
}

#[cfg(feature = "doctor")]
statements! {
    DIAGNOSE_CONNECTION = "diagnose_connection.sql";
    DIAGNOSE_HORIZON = "diagnose_horizon.sql";
    DIAGNOSE_INDEXES = "diagnose_indexes.sql";
    DIAGNOSE_PRIVILEGES = "diagnose_privileges.sql";
    DIAGNOSE_SERVER = "diagnose_server.sql";
    DIAGNOSE_SLOTS = "diagnose_slots.sql";
    DIAGNOSE_TABLE = "diagnose_table.sql";
}
