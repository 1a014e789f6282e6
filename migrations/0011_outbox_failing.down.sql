-- Takes 0011 back: outbox_publish() is the one of 0005 again, which knows fewer rules.

DROP INDEX IF EXISTS idx_outbox_failing;

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

DROP FUNCTION IF EXISTS outbox_invalid(text, text, jsonb, text, jsonb);
DROP FUNCTION IF EXISTS outbox_quoted(text);
