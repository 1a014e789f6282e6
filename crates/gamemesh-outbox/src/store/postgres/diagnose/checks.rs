use crate::diagnosis::checks;

checks! {
    CONNECTION = "postgres.connection", "whether the database answers", "no event leaves the outbox";
    VERSION = "postgres.version", "the server's version",
        "statements of the relay or its migrations may fail, and fixes no longer reach the server";
    POOLER = "postgres.pooler", "whether a pooler such as PgBouncer is in between, and in which mode",
        "in statement mode no claim is possible; a pool that is smaller than the workers makes them wait for each other";
    TLS = "postgres.tls", "whether the connection is encrypted",
        "whoever can read the network reads payloads and, with some methods, the password";
    SCHEMA = "postgres.schema", "whether this version can use the schema",
        "the relay does not start, or a feature is missing";
    ENCODING = "postgres.encoding", "whether the database can hold every character",
        "events and errors with other characters cannot be written";
    INDEXES = "postgres.indexes", "whether every index of the migrations is there and valid",
        "claims, counts and pruning read the whole table and slow down as it grows";
    PRIVILEGES = "postgres.privileges", "whether the relay's role may do what it has to",
        "claims or marks fail: nothing is delivered, or the same events again and again";
    DURABILITY = "postgres.durability", "fsync and full_page_writes",
        "a crash of the machine can lose or corrupt the database, committed events included";
    PRODUCERS_COMMITS = "postgres.synchronous_commit", "the default of synchronous_commit, which producers inherit",
        "a crash loses the last commits after the relay published their events: consumers know of what never happened";
    WRITABLE = "postgres.writable", "whether this is the primary, and transactions may write by default",
        "no claim and no mark is possible";
    HEADROOM = "postgres.connections", "free connections against what one relay opens (its workers and four)",
        "a relay or a producer that starts next is refused";
    CLOCK = "postgres.clock", "the database's clock against this machine's",
        "times in logs and traces do not fit together, and producers that choose available_at themselves miss it";
    LOCKS = "postgres.locks", "locks on outbox_events that nothing can be claimed or marked beside",
        "no event leaves the outbox while they last, and neither can producers write";
    HELD = "postgres.held", "events that are due and that another transaction holds",
        "every claim passes them over, and they leave only when that transaction ends";
    FLEET = "postgres.fleet", "sessions of the earlier relay on this table",
        "what it takes arrives without headers, key and Nats-Msg-Id and before its available_at, and every failure is an attempt";
    HORIZON = "postgres.vacuum_horizon", "long transactions and prepared ones, which keep dead rows alive",
        "vacuum removes nothing that is younger: each claim wades through more dead rows, and the disk fills";
    SLOTS = "postgres.replication_slots", "replication slots that nobody reads",
        "the server keeps all WAL since then, until its disk is full and it stops";
    FAILING = "postgres.failing", "events that failed three times or more and are tried again",
        "nobody receives them, and without OUTBOX_MAX_ATTEMPTS no dead letter says so";
    DUE_LATER = "postgres.due_later", "events that nobody has tried yet and that are due only later",
        "they wait for a time that was a mistake: a clock that was ahead, a wrong year";
    VACUUM = "postgres.vacuum", "dead rows of outbox_events, and when it was last vacuumed",
        "claims read dead rows before they find live ones, and the table grows without end";
}
