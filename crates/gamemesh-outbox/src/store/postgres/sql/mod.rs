//! The statements. Each says in its file why it is as it is; a test prepares them all.

macro_rules! statements {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) const $name: &str = include_str!($file);)*
    };
}

statements! {
    BACKLOG = "backlog.sql";
    CHARGE = "charge.sql";
    CLAIM = "claim.sql";
    COLUMNS = "columns.sql";
    DEAD_LETTER_COUNT = "dead_letter_count.sql";
    DEAD_LETTER_GROUPS = "dead_letter_groups.sql";
    DEAD_LETTERS = "dead_letters.sql";
    DEFER = "defer.sql";
    DELETE_PUBLISHED = "delete_published.sql";
    DISCARD = "discard.sql";
    HISTORY = "history.sql";
    DIAGNOSE_CONNECTION = "diagnose_connection.sql";
    DIAGNOSE_HORIZON = "diagnose_horizon.sql";
    DIAGNOSE_INDEXES = "diagnose_indexes.sql";
    DIAGNOSE_PRIVILEGES = "diagnose_privileges.sql";
    DIAGNOSE_SERVER = "diagnose_server.sql";
    DIAGNOSE_SLOTS = "diagnose_slots.sql";
    DIAGNOSE_TABLE = "diagnose_table.sql";
    LOCK_DUE = "lock_due.sql";
    MARK_PUBLISHED = "mark_published.sql";
    MIGRATION_APPLIED = "migration_applied.sql";
    MIGRATION_REVERTED = "migration_reverted.sql";
    MIGRATIONS = "migrations.sql";
    MIGRATIONS_TABLE = "migrations_table.sql";
    OVERVIEW = "overview.sql";
    PRUNE = "prune.sql";
    READ_ONE = "read_one.sql";
    REQUEUE = "requeue.sql";
    SHOW = "show.sql";
    RELAYS = "relays.sql";
    TOPICS = "topics.sql";
    WAIT_FOR_DUE = "wait_for_due.sql";
}
