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

/// What statements have in common. Of dead letters: which are looked through, which are meant, and which a request holds. Of a
/// role: what row security hides from it, and by which policies.
const FRAGMENTS: [(&str, &str); 6] = [
    ("newest", include_str!("newest.sql")),
    ("held", include_str!("held.sql")),
    ("is_about", include_str!("is_about.sql")),
    ("is_within", include_str!("is_within.sql")),
    ("without_policy", include_str!("without_policy.sql")),
    ("own_policies", include_str!("own_policies.sql")),
];

composed! {
    COLUMNS = "columns.sql";
    DEAD_LETTER_COUNT = "dead_letter_count.sql";
    DEAD_LETTER_GROUPS = "dead_letter_groups.sql";
    DEAD_LETTERS = "dead_letters.sql";
    DISCARD = "discard.sql";
    REQUEUE = "requeue.sql";
}

statements! {
    BACKLOG = "backlog.sql";
    CAME_BACK = "came_back.sql";
    CHARGE = "charge.sql";
    CLAIM = "claim.sql";
    DEFER = "defer.sql";
    DELETE_PUBLISHED = "delete_published.sql";
    FAILING_TOPICS = "failing_topics.sql";
    FROZEN_FUNCTIONS = "frozen_functions.sql";
    HISTORY = "history.sql";
    HOLD_AGAIN = "hold_again.sql";
    HOLDING_DUE = "holding_due.sql";
    LOCK_DUE = "lock_due.sql";
    LOCK_FOR_MIGRATIONS = "lock_for_migrations.sql";
    LOOK_FOR_DUE = "look_for_due.sql";
    MARK_PUBLISHED = "mark_published.sql";
    MIGRATION_APPLIED = "migration_applied.sql";
    MIGRATION_REVERTED = "migration_reverted.sql";
    MIGRATIONS = "migrations.sql";
    MIGRATIONS_TABLE = "migrations_table.sql";
    OVERVIEW = "overview.sql";
    PRUNABLE = "prunable.sql";
    PRUNE = "prune.sql";
    READ_ONE = "read_one.sql";
    SESSION = "session.sql";
    SHOW = "show.sql";
    RELAYS = "relays.sql";
    ROUTES = "routes.sql";
    TOPICS = "topics.sql";
    WITHHOLD = "withhold.sql";
}

#[cfg(feature = "doctor")]
composed! {
    DIAGNOSE_PRIVILEGES = "diagnose_privileges.sql";
}

#[cfg(feature = "doctor")]
statements! {
    DIAGNOSE_CONNECTION = "diagnose_connection.sql";
    DIAGNOSE_FLEET = "diagnose_fleet.sql";
    DIAGNOSE_HORIZON = "diagnose_horizon.sql";
    DIAGNOSE_INDEXES = "diagnose_indexes.sql";
    DIAGNOSE_LOCKS = "diagnose_locks.sql";
    DIAGNOSE_SERVER = "diagnose_server.sql";
    DIAGNOSE_SLOTS = "diagnose_slots.sql";
    DIAGNOSE_TABLE = "diagnose_table.sql";
}
