-- What this relay needs beyond 0004. Additive: the earlier relay, and INSERTs that name only the old columns, keep
-- working beside it.

-- When a row may be claimed. A failed row waits here, outside the head of the queue, so that it delays nobody else.
-- The default is evaluated once for existing rows: the table is not rewritten.
ALTER TABLE outbox_events ADD COLUMN IF NOT EXISTS available_at TIMESTAMPTZ NOT NULL DEFAULT now();

-- The backlog keeps its order, and none of it waits for a time to come.
UPDATE outbox_events SET available_at = least(created_at, now()) WHERE status = 'PENDING';

-- What the event is about, for consumers that partition by it; and message headers, an object of strings.
ALTER TABLE outbox_events ADD COLUMN IF NOT EXISTS event_key TEXT NULL;
ALTER TABLE outbox_events ADD COLUMN IF NOT EXISTS headers JSONB NOT NULL DEFAULT '{}';

-- The claim walks idx_outbox_due, pruning idx_outbox_published. idx_outbox_pending stays for the earlier relay.
CREATE INDEX IF NOT EXISTS idx_outbox_due ON outbox_events (available_at) WHERE status = 'PENDING';
CREATE INDEX IF NOT EXISTS idx_outbox_published ON outbox_events (published_at) WHERE status = 'PUBLISHED';

-- A UUIDv7 (RFC 9562): 48 bits of milliseconds, version 7 with 12 bits of the fraction, variant and 62 random bits.
-- New ids land side by side in the index. PostgreSQL has its own only since 18.
CREATE OR REPLACE FUNCTION outbox_uuid_v7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$
    SELECT encode(
        substring(int8send(at.us / 1000) FROM 3)
            || int2send((28672 + at.us % 1000 * 4096 / 1000)::smallint)
            || substring(uuid_send(gen_random_uuid()) FROM 9),
        'hex')::uuid
    FROM (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS us) AS at
$$;

ALTER TABLE outbox_events ALTER COLUMN id SET DEFAULT outbox_uuid_v7();

-- For producers in any language: SELECT outbox_publish('events.player', 'registered', '{"name":"Ada"}'), inside their
-- own transaction. Refuses here, where the author sees it, what no relay could send. The search path is pinned, so that
-- a caller with another one still writes to this outbox.
CREATE OR REPLACE FUNCTION outbox_publish(
    topic        text,
    event_type   text,
    payload      jsonb,
    event_key    text DEFAULT NULL,
    headers      jsonb DEFAULT '{}',
    carrier      jsonb DEFAULT '{}',
    id           uuid DEFAULT NULL,
    available_at timestamptz DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $$
BEGIN
    IF coalesce(topic, '') = '' THEN
        RAISE EXCEPTION 'outbox_publish: topic must not be empty'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name a topic, for example events.player.';
    ELSIF payload IS NULL THEN
        RAISE EXCEPTION 'outbox_publish: payload must not be NULL'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass JSON; the JSON value null is allowed.';
    ELSIF jsonb_path_exists(coalesce(headers, '{}'), 'strict $ ? (@.type() != "object")')
        OR jsonb_path_exists(coalesce(headers, '{}'), 'lax $.* ? (@.type() != "string")')
    THEN
        RAISE EXCEPTION 'outbox_publish: headers must be a JSON object of strings'
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF jsonb_typeof(coalesce(carrier, '{}')) <> 'object' THEN
        RAISE EXCEPTION 'outbox_publish: carrier must be a JSON object'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    id := coalesce(id, outbox_uuid_v7());
    INSERT INTO outbox_events (id, topic, event_type, payload, event_key, headers, carrier, available_at)
    VALUES (id, topic, coalesce(event_type, ''), payload, event_key, coalesce(headers, '{}'),
            coalesce(carrier, '{}'), coalesce(available_at, now()));
    RETURN id;
END
$$;
