//! Facts in, findings out.

use std::net::IpAddr;
use std::time::Duration;

use super::checks::{
    CLOCK, CONNECTION, DURABILITY, ENCODING, FLEET, HEADROOM, HELD, HORIZON, INDEXES, LOCKS, POOLER, PRIVILEGES,
    PRODUCERS_COMMITS, SCHEMA, SLOTS, TLS, VACUUM, VERSION, WRITABLE,
};
use super::collect::{Fleet, Index, Peer, Pooler, Privileges, Server, Slot, Table, TableLock};
use crate::diagnosis::Finding;
use crate::span::span;
use crate::store::postgres::holder::Holder;
use crate::store::postgres::holding::Holding;
use crate::store::postgres::schema::UTF8;
use crate::store::schema::MigrationState;

const MIGRATE: &str = "outbox-relay migrate up";
/// The oldest version that has what our statements name.
const VERSION_MIN: i32 = 130_000;
/// The oldest version that the tests run on.
const VERSION_TESTED: i32 = 150_000;
/// Skew that a person looking at two logs would notice.
const SKEW_SECONDS_MAX: f64 = 2.0;
/// Dead rows that no claim notices, however few live ones there are.
const DEAD_ROWS_MIN: i64 = 10_000;
/// WAL that a slot may keep while its reader is away for a moment.
const WAL_BYTES_MAX: i64 = 1024 * 1024 * 1024;

/// The indexes, what creates each, and whether nothing works without it.
const EXPECTED: [(&str, &str, bool); 5] = [
    ("idx_outbox_due", "(available_at, id) WHERE status = 'PENDING'", true),
    ("idx_outbox_pending", "(created_at) WHERE status = 'PENDING'", false),
    ("idx_outbox_failing", "(available_at, id) WHERE status = 'PENDING' AND attempt_count >= 3", false),
    ("idx_outbox_failed", "(created_at) WHERE status = 'FAILED'", false),
    ("idx_outbox_published", "(published_at) WHERE status = 'PUBLISHED'", false),
];

pub(super) fn connection(server: &Server) -> Finding {
    CONNECTION.ok(format!("connected from {}", server.client.as_deref().unwrap_or("a local socket")))
}

pub(super) fn version(server: &Server) -> Finding {
    let found = format!("PostgreSQL {}", server.version);
    match server.version_number {
        ..VERSION_MIN => VERSION.error(found, "upgrade the server to PostgreSQL 15 or newer"),
        VERSION_MIN..VERSION_TESTED => VERSION.warning(
            format!("{found}, older than what the relay is tested with"),
            "upgrade the server to PostgreSQL 15 or newer",
        ),
        _ => VERSION.ok(found),
    }
}

pub(super) fn pooler(pooler: &Pooler) -> Finding {
    let [first, second, again] = pooler.backends;
    if let Some(refused) = &pooler.refused {
        let fix = "in pgbouncer.ini: pool_mode = transaction, then RELOAD; in its console";
        return POOLER.error(format!("a transaction of several statements is refused: {refused}"), fix);
    }
    if first == second || first != again {
        return POOLER
            .ok("a pooler in transaction mode: two open connections shared a backend, which the relay allows for");
    }
    if pooler.older > 0.0 {
        let age = span(pooler.older);
        return POOLER.ok(format!(
            "probably a pooler in session mode: backend {first} is {age} older than this connection; every worker keeps \
             a server connection of it"
        ));
    }
    POOLER.ok("none was noticed: each connection has a fresh backend of its own (a session-mode pooler that is idle \
               looks the same)")
}

pub(super) fn tls(server: &Server) -> Finding {
    let here = match &server.client {
        None => true,
        Some(client) => client.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    };
    match (server.tls, here) {
        (true, _) => TLS.ok("encrypted"),
        (false, true) => TLS.ok("not encrypted, but nothing leaves the database's machine"),
        (false, false) => TLS.warning(
            "not encrypted",
            "add sslmode=verify-full to the connection string (and sslrootcert=/path/ca.pem)",
        ),
    }
}

pub(super) fn fleet(fleet: &Fleet) -> Finding {
    let hidden = match fleet.hidden {
        0 => String::new(),
        sessions => format!(
            "; {sessions} sessions of other roles are hidden from this one, and may be any (GRANT pg_monitor TO the role shows them)"
        ),
    };
    if fleet.earlier.is_empty() {
        return FLEET.ok(format!("no session was seen that works as the earlier relay does{hidden}"));
    }
    let who = fleet.earlier.iter().map(|peer| {
        let Peer { pid, role, application, client } = peer;
        format!("pid {pid}, role {role}, application {application:?}, from {client}")
    });
    FLEET.warning(
        format!("claims or counts as the earlier relay does: {}{hidden}", who.collect::<Vec<_>>().join("; ")),
        "replace its replicas (docs/moving-over.md); until then its share of the events arrives without headers, event_key and \
         Nats-Msg-Id, and available_at does not hold it back",
    )
}

pub(super) fn encoding(server: &Server) -> Finding {
    match server.encoding.as_str() {
        UTF8 => ENCODING.ok(UTF8),
        encoding => ENCODING.warning(
            format!("server_encoding is {encoding}"),
            "dump it, and restore it into a database made with: CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0",
        ),
    }
}

pub(super) fn migrations(states: &[MigrationState]) -> Finding {
    let missing: Vec<String> =
        states.iter().filter(|state| !state.applied).map(|state| format!("{:04}", state.migration.version)).collect();
    if missing.is_empty() {
        let newest = states.iter().map(|state| state.migration.version).max().unwrap_or_default();
        return SCHEMA.ok(format!("version {newest:04}"));
    }
    SCHEMA.warning(format!("usable, but not recorded as applied: {}", missing.join(", ")), MIGRATE)
}

pub(super) fn unusable_schema(problem: &str) -> Finding {
    let (problem, hint) = problem.split_once("; hint: ").unwrap_or((problem, MIGRATE));
    SCHEMA.error(problem, hint.trim_start_matches("run "))
}

pub(super) fn indexes(found: &[Index]) -> Finding {
    let mut problems = Vec::new();
    let mut fixes = Vec::new();
    let mut needed = false;
    for (name, definition, is_needed) in EXPECTED {
        match found.iter().find(|index| index.name == name) {
            Some(index) if index.usable => continue,
            Some(_) => {
                problems.push(format!("{name} is not valid"));
                fixes.push(format!("REINDEX INDEX CONCURRENTLY {name};"));
            }
            None => {
                problems.push(format!("{name} is missing"));
                fixes.push(format!("CREATE INDEX CONCURRENTLY {name} ON outbox_events {definition};"));
            }
        }
        needed |= is_needed;
    }
    if !found.iter().any(|index| index.primary && index.usable) {
        problems.push("the primary key is missing".to_owned());
        fixes.push("ALTER TABLE outbox_events ADD PRIMARY KEY (id);".to_owned());
        needed = true;
    }
    match (problems.is_empty(), needed) {
        (true, _) => INDEXES.ok("all there and valid"),
        (false, true) => INDEXES.error(problems.join("; "), fixes.join("\n")),
        (false, false) => INDEXES.warning(problems.join("; "), fixes.join("\n")),
    }
}

pub(super) fn privileges(privileges: &Privileges) -> Finding {
    let Privileges { role, missing, without_policy, conditional_policies } = privileges;
    let named = identifier(role);
    let grants = missing.iter().map(|privilege| format!("GRANT {privilege} TO {named};"));
    let policies = without_policy.iter().map(|command| {
        format!("CREATE POLICY outbox_relay_{command} ON outbox_events FOR {command} TO {named} USING (true);")
    });
    let fixes: Vec<String> = grants.chain(policies).collect();
    if fixes.is_empty() && !conditional_policies.is_empty() {
        return PRIVILEGES.warning(
            format!(
                "role {role} sees events only where these policies of row security let it, and what they hide is neither claimed \
                 nor counted: {}",
                conditional_policies.join(", ")
            ),
            format!("CREATE POLICY outbox_relay ON outbox_events TO {named} USING (true) WITH CHECK (true);"),
        );
    }
    if fixes.is_empty() {
        return PRIVILEGES.ok(format!("role {role} may do what the relay does"));
    }
    let policy = |command| format!("a policy for {command} on outbox_events, whose row security hides every event");
    let lacks: Vec<String> = missing.iter().cloned().chain(without_policy.iter().map(policy)).collect();
    PRIVILEGES.error(format!("role {role} lacks {}", lacks.join(", ")), fixes.join("\n"))
}

pub(super) fn durability(server: &Server) -> Finding {
    let off = [("fsync", server.fsync), ("full_page_writes", server.full_page_writes)];
    let off: Vec<&str> = off.into_iter().filter(|(_, on)| !on).map(|(name, _)| name).collect();
    if off.is_empty() {
        return DURABILITY.ok("fsync and full_page_writes are on");
    }
    let fixes: Vec<String> = off.iter().map(|name| format!("ALTER SYSTEM SET {name} = on;")).collect();
    DURABILITY.error(format!("{} off", off.join(" and ")), format!("{}\nSELECT pg_reload_conf();", fixes.join("\n")))
}

pub(super) fn producers_commits(server: &Server) -> Finding {
    match server.synchronous_commit.as_str() {
        "off" => PRODUCERS_COMMITS.warning(
            "synchronous_commit is off for this role; so it may be for producers",
            "ALTER SYSTEM SET synchronous_commit = on;\nSELECT pg_reload_conf();",
        ),
        value => PRODUCERS_COMMITS.ok(format!("{value} (the relay chooses its own by OUTBOX_SYNCHRONOUS_COMMIT)")),
    }
}

pub(super) fn writable(server: &Server) -> Finding {
    if server.standby {
        return WRITABLE.error(
            "this server is a standby",
            "name the primary in the connection string; with several hosts add target_session_attrs=read-write",
        );
    }
    if server.read_only {
        return WRITABLE.error(
            "default_transaction_read_only is on",
            "SET default_transaction_read_only = off;\nALTER ROLE CURRENT_USER SET default_transaction_read_only = off;",
        );
    }
    WRITABLE.ok("a primary, and transactions may write")
}

pub(super) fn headroom(server: &Server, needed: u32) -> Finding {
    let Server { connections_max: max, connections_used: used, .. } = server;
    let found = format!("{used} of {max} connections are used; a relay opens up to {needed}");
    if max - used >= i64::from(needed) {
        return HEADROOM.ok(found);
    }
    HEADROOM.warning(
        found,
        "lower OUTBOX_WORKERS, put PgBouncer in transaction mode in between, or raise max_connections (needs a restart)",
    )
}

/// `skew` is by how many seconds the server is ahead, and how far off that may be.
pub(super) fn clock((skew, uncertain): (f64, f64)) -> Finding {
    let found = format!(
        "the database's clock is {} {} of this machine's (give or take {})",
        span(skew.abs()),
        if skew < 0.0 { "behind" } else { "ahead" },
        span(uncertain),
    );
    match skew.abs() - uncertain > SKEW_SECONDS_MAX {
        true => CLOCK.warning(
            found,
            "run a time service (chrony, systemd-timesyncd) on both machines: `chronyc tracking` or `timedatectl`",
        ),
        false => CLOCK.ok(found),
    }
}

pub(super) fn horizon(holders: &[Holder], longer_than: Duration) -> Vec<Finding> {
    if holders.is_empty() {
        return vec![HORIZON.ok(format!("no transaction is older than {}", span(longer_than.as_secs_f64())))];
    }
    holders.iter().map(holder).collect()
}

fn holder(holder: &Holder) -> Finding {
    let mut fix = holder.end();
    if holder.prepared.is_none() {
        fix += "\nALTER SYSTEM SET idle_in_transaction_session_timeout = '5min';\nSELECT pg_reload_conf();";
    }
    HORIZON.warning(holder.who(), fix)
}

pub(super) fn locks(locks: &[TableLock]) -> Vec<Finding> {
    if locks.is_empty() {
        return vec![LOCKS.ok("there are none")];
    }
    let finding = |lock: &TableLock| {
        let does = if lock.granted { "holds" } else { "waits, and everybody else behind it, for" };
        LOCKS.error(
            format!("somebody {does} a lock on the table ({}): {}", lock.mode, lock.holder.who()),
            lock.holder.end(),
        )
    };
    locks.iter().map(finding).collect()
}

pub(super) fn held(found: &[Holding]) -> Vec<Finding> {
    if found.is_empty() {
        return vec![HELD.ok("no event that is due is held by anybody but relays")];
    }
    let finding = |holding: &Holding| HELD.warning(format!("somebody {}", holding.what()), holding.holder.end());
    found.iter().map(finding).collect()
}

pub(super) fn slots(slots: &[Slot]) -> Vec<Finding> {
    let findings: Vec<Finding> = slots.iter().filter_map(slot).collect();
    match (findings.is_empty(), slots.len()) {
        (false, _) => findings,
        (true, 0) => vec![SLOTS.ok("there are none")],
        (true, count) => vec![SLOTS.ok(format!("{count}, and all are read"))],
    }
}

fn slot(slot: &Slot) -> Option<Finding> {
    let bytes = slot.wal_bytes.unwrap_or_default();
    if slot.active && bytes < WAL_BYTES_MAX {
        return None;
    }
    let state = if slot.active { "slow" } else { "read by nobody" };
    let rows = slot.transactions.map_or(String::new(), |count| format!(" and the dead rows of {count} transactions"));
    let found =
        format!("{} slot {:?} is {state} and keeps {} MiB of WAL{rows}", slot.kind, slot.name, bytes / 1024 / 1024);
    let name = slot.name.replace('\'', "''");
    let fix = match slot.active {
        true => "look why its reader is slow: SELECT * FROM pg_stat_replication;".to_owned(),
        false => {
            format!("start its reader again, or, if it has none any more:\nSELECT pg_drop_replication_slot('{name}');")
        }
    };
    Some(SLOTS.warning(found, fix))
}

pub(super) fn vacuum(table: Option<Table>, autovacuum: bool) -> Finding {
    let Some(table) = table else { return VACUUM.ok("there is no table yet") };
    let vacuumed = table.vacuumed_ago.map_or("never vacuumed".to_owned(), |ago| format!("vacuumed {} ago", span(ago)));
    let found = format!("{} live and {} dead rows, {vacuumed}", table.live, table.dead);
    if !autovacuum {
        return VACUUM.warning(
            format!("autovacuum is off for the whole server; {found}"),
            "ALTER SYSTEM SET autovacuum = on;\nSELECT pg_reload_conf();",
        );
    }
    if table.autovacuum_disabled {
        return VACUUM.warning(
            format!("autovacuum is off for the table; {found}"),
            "ALTER TABLE outbox_events RESET (autovacuum_enabled);",
        );
    }
    if table.dead > DEAD_ROWS_MIN.max(table.live) {
        return VACUUM.warning(
            found,
            "VACUUM (VERBOSE, ANALYZE) outbox_events;\nALTER TABLE outbox_events SET (autovacuum_vacuum_scale_factor = 0.02, \
             autovacuum_vacuum_cost_delay = 0);",
        );
    }
    VACUUM.ok(found)
}

/// Quotes a name for SQL.
fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Severity::{Error, Ok, Warning};

    fn server() -> Server {
        Server {
            version: "17.2".into(),
            version_number: 170_002,
            standby: false,
            fsync: true,
            full_page_writes: true,
            synchronous_commit: "on".into(),
            read_only: false,
            autovacuum: true,
            connections_max: 97,
            connections_used: 10,
            client: Some("10.0.0.7".into()),
            tls: true,
            encoding: UTF8.into(),
        }
    }

    #[test]
    fn every_property_of_a_server_has_a_judgement() {
        type Judge = fn(&Server) -> Finding;
        type Change = fn(&mut Server);
        let table: [(Judge, Change, _); 20] = [
            (version, |_| {}, Ok),
            (version, |server| server.version_number = 140_011, Warning),
            (version, |server| server.version_number = 120_022, Error),
            (tls, |_| {}, Ok),
            (tls, |server| server.tls = false, Warning),
            (tls, |server| (server.tls, server.client) = (false, Some("127.0.0.1".into())), Ok),
            (tls, |server| (server.tls, server.client) = (false, None), Ok),
            (encoding, |_| {}, Ok),
            (encoding, |server| server.encoding = "LATIN1".into(), Warning),
            (durability, |_| {}, Ok),
            (durability, |server| server.fsync = false, Error),
            (durability, |server| server.full_page_writes = false, Error),
            (producers_commits, |_| {}, Ok),
            (producers_commits, |server| server.synchronous_commit = "off".into(), Warning),
            (writable, |_| {}, Ok),
            (writable, |server| server.standby = true, Error),
            (writable, |server| server.read_only = true, Error),
            (|server| headroom(server, 6), |_| {}, Ok),
            (|server| headroom(server, 6), |server| server.connections_used = 91, Ok),
            (|server| headroom(server, 6), |server| server.connections_used = 92, Warning),
        ];
        for (judge, change, severity) in table {
            let mut server = server();
            change(&mut server);
            let finding = judge(&server);
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert_eq!(finding.fix.is_empty(), severity == Ok, "{finding:?}");
        }
    }

    #[test]
    fn a_pooler_is_known_by_shared_backends() {
        let table = [
            ([7, 8, 7], -0.01, None, Ok, "none was noticed"),
            ([7, 7, 9], -0.01, None, Ok, "transaction mode"),
            ([7, 8, 9], -0.01, None, Ok, "transaction mode"),
            ([7, 8, 7], 30.0, None, Ok, "probably a pooler in session mode"),
            ([7, 7, 7], 0.0, Some("transaction blocks not allowed"), Error, "refused"),
        ];
        for (backends, older, refused, severity, text) in table {
            let finding = pooler(&Pooler { backends, older, refused: refused.map(str::to_owned) });
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.found.contains(text), "{finding:?}");
        }
    }

    fn index(name: &str, usable: bool) -> Index {
        Index { name: name.into(), usable, primary: name == "outbox_events_pkey" }
    }

    #[test]
    fn an_index_that_claims_walk_is_needed_and_the_others_are_wanted() {
        let mut all = vec![index("outbox_events_pkey", true)];
        all.extend(EXPECTED.map(|(name, ..)| index(name, true)));
        assert_eq!(indexes(&all).severity, Ok);
        for (at, severity) in [(0, Error), (1, Error), (2, Warning), (3, Warning), (4, Warning), (5, Warning)] {
            let mut without = all.clone();
            let missing = without.remove(at).name;
            let finding = indexes(&without);
            assert_eq!(finding.severity, severity, "{missing}");
            assert!(at == 0 || finding.fix.contains(&format!("CREATE INDEX CONCURRENTLY {missing}")), "{finding:?}");
        }
        let mut invalid = all.clone();
        invalid[1].usable = false;
        assert_eq!(indexes(&invalid).fix, "REINDEX INDEX CONCURRENTLY idx_outbox_due;");
    }

    #[test]
    fn a_missing_privilege_comes_with_its_grant() {
        let missing =
            vec!["SELECT ON outbox_events".to_owned(), "UPDATE (status, available_at) ON outbox_events".to_owned()];
        let finding = privileges(&Privileges {
            role: "the \"relay\"".into(),
            missing,
            without_policy: vec!["UPDATE".into()],
            conditional_policies: vec![],
        });
        assert_eq!(finding.severity, Error);
        assert!(finding.found.contains("a policy for UPDATE on outbox_events"), "{finding:?}");
        assert!(
            finding.fix.ends_with(
                "GRANT UPDATE (status, available_at) ON outbox_events TO \"the \"\"relay\"\"\";\n\
                 CREATE POLICY outbox_relay_UPDATE ON outbox_events FOR UPDATE TO \"the \"\"relay\"\"\" USING (true);"
            ),
            "{finding:?}"
        );
    }

    #[test]
    fn a_skew_counts_only_beyond_its_uncertainty() {
        for (skew, uncertain, severity) in
            [(0.1, 0.01, Ok), (-1.9, 0.0, Ok), (2.5, 0.1, Warning), (-3600.0, 0.1, Warning), (3.0, 1.5, Ok)]
        {
            assert_eq!(clock((skew, uncertain)).severity, severity, "{skew} +- {uncertain}");
        }
    }

    #[test]
    fn whoever_holds_the_horizon_is_named_without_any_literal() {
        let backend = Holder {
            pid: Some(4711),
            role: "shop".into(),
            application: "report".into(),
            state: "idle in transaction".into(),
            age: Some(7300.0),
            transactions: Some(12),
            query: "ALTER ROLE relay\n PASSWORD 'hunter2'".into(),
            prepared: None,
        };
        let found = &horizon(std::slice::from_ref(&backend), Duration::from_secs(60))[0];
        assert_eq!(found.severity, Warning);
        for part in
            ["pid 4711", "role shop", "\"report\"", "idle in transaction", "2 h 1 min", "ALTER ROLE relay PASSWORD..."]
        {
            assert!(found.found.contains(part), "{part}: {}", found.found);
        }
        assert!(!found.found.contains("hunter2") && found.fix.contains("pg_terminate_backend(4711)"));

        let prepared = Holder { pid: None, prepared: Some("it's".into()), ..backend };
        assert!(holder(&prepared).fix.contains("ROLLBACK PREPARED 'it''s';"));
        assert_eq!(horizon(&[], Duration::from_secs(60))[0].severity, Ok);
    }

    #[test]
    fn a_slot_that_nobody_reads_is_a_risk() {
        let read =
            Slot { name: "s".into(), kind: "logical".into(), active: true, wal_bytes: Some(5), transactions: None };
        assert_eq!(slots(&[])[0].severity, Ok);
        assert_eq!(slots(std::slice::from_ref(&read))[0].severity, Ok);
        let slow = Slot { wal_bytes: Some(WAL_BYTES_MAX), ..read.clone() };
        assert!(slots(&[slow])[0].found.contains("slow"));
        let left = Slot { active: false, ..read.clone() };
        let findings = slots(&[read, left]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].fix.contains("pg_drop_replication_slot('s')"));
    }

    #[test]
    fn dead_rows_count_when_they_outnumber_the_living() {
        let table = Table { live: 50_000, dead: 50_000, vacuumed_ago: Some(30.0), autovacuum_disabled: false };
        assert_eq!(vacuum(Some(table), true).severity, Ok);
        assert_eq!(vacuum(Some(Table { dead: 50_001, ..table }), true).severity, Warning);
        assert_eq!(vacuum(Some(Table { live: 0, dead: 10_000, ..table }), true).severity, Ok);
        assert_eq!(vacuum(Some(Table { autovacuum_disabled: true, ..table }), true).severity, Warning);
        assert_eq!(vacuum(Some(table), false).severity, Warning);
        assert_eq!(vacuum(None, true).severity, Ok);
    }
}
