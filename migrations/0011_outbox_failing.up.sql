-- What keeps failing is found without a walk over the backlog: PENDING events with three charged attempts or more. An event
-- that is published at its first try never gets in here. The library's FAILING_ATTEMPTS is the same number; a test compares.
--
-- On a large table build the index beforehand without a lock, see docs/operations.md.
CREATE INDEX IF NOT EXISTS idx_outbox_failing ON outbox_events (available_at, id)
    WHERE status = 'PENDING' AND attempt_count >= 3;

-- What keeps failing would better have been refused where its author sees it. These are the rules of the library's validate.rs,
-- in the same words and the same order; a test compares them.

-- A name as an error shows it: the first 80 bytes, and nothing that a terminal would act upon or an eye would miss.
CREATE OR REPLACE FUNCTION outbox_quoted(name text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT '"' || coalesce(string_agg(
        CASE
            WHEN letter IN ('\', '"', '''') THEN '\' || letter
            WHEN letter = E'\t' THEN '\t'
            WHEN letter = E'\n' THEN '\n'
            WHEN letter = E'\r' THEN '\r'
            WHEN letter COLLATE "C" ~ '[ -~]' THEN letter
            ELSE '\u{' || to_hex(ascii(letter)) || '}'
        END, '' ORDER BY place), '') || CASE
            WHEN octet_length(name) <= 80 THEN '"'
            -- An ellipsis, where the database can hold one; written so that no planner makes it where it cannot.
            WHEN getdatabaseencoding() = 'UTF8' THEN chr(8230 + 0 * octet_length(name)) || '"'
            ELSE '..."'
        END
    FROM string_to_table(left(name, (
        SELECT max(length) FROM generate_series(0, 80) AS length WHERE octet_length(left(name, length)) <= 80
    )), NULL) WITH ORDINALITY AS shown (letter, place)
$$;

-- Why no relay would publish such an event; NULL if one would. A relay's OUTBOX_TOPIC_PREFIXES may still be narrower, and its
-- OUTBOX_PAYLOAD_BYTES_MAX another than the one that is assumed here: outbox.payload_bytes_max, or 8 MiB.
CREATE OR REPLACE FUNCTION outbox_invalid(
    topic      text,
    event_type text,
    payload    jsonb,
    event_key  text,
    headers    jsonb
) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path FROM CURRENT
AS $$
DECLARE
    blank       constant text := '[ \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]';
    payload_max constant bigint := coalesce(nullif(current_setting('outbox.payload_bytes_max', true), ''), '8388608');
    what        text;
    name        text;
    problem     text;
    amount      bigint;
BEGIN
    IF octet_length(event_key) > 4096 THEN
        RETURN 'event key too large: expected at most 4096 bytes';
    END IF;

    FOR what, name IN VALUES ('topic', coalesce(topic, '')), ('event type', nullif(event_type, '')) LOOP
        problem := CASE
            WHEN octet_length(name) > 255 THEN 'at most 255 bytes'
            WHEN '.' || name || '.' LIKE '%..%' THEN 'tokens separated by single dots'
            -- From ! to ~, without * and >.
            WHEN name COLLATE "C" !~ '^[!-)+-=?-~]*$' THEN 'printable ASCII without spaces, `*` and `>`'
            WHEN what = 'topic' AND (name LIKE '$%' OR split_part(name, '.', 1) IN ('_INBOX', '_R_'))
                THEN 'a name outside the bus''s control subjects'
        END;
        IF problem IS NOT NULL THEN
            RETURN format('invalid %s: expected %s, got %s', what, problem, outbox_quoted(name));
        END IF;
    END LOOP;

    SELECT count(*) INTO amount FROM jsonb_object_keys(headers);
    IF amount > 64 THEN
        RETURN format('expected at most 64 headers, got %s', amount);
    END IF;
    SELECT header.key, checked.problem INTO name, problem
    FROM jsonb_each_text(headers) AS header
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN header.key COLLATE "C" !~ '^[0-9A-Za-z!#$%&''*+.^_`|~-]+$'
                THEN 'expected a name of letters, digits and !#$%&''*+-.^_`|~'
            WHEN octet_length(header.key) + octet_length(header.value) > 4096
                THEN 'expected at most 4096 bytes of name and value'
            WHEN header.value ~ '[\u0001-\u001f\u007f-\u009f]' THEN 'expected a value without control characters'
            WHEN header.value ~ ('^' || blank || '|' || blank || '$') THEN 'expected a value without spaces around it'
            WHEN header.key ILIKE 'nats-%' THEN 'names that begin with Nats- belong to the bus'
        END AS problem
    ) AS checked
    WHERE checked.problem IS NOT NULL
    ORDER BY header.key COLLATE "C"
    LIMIT 1;
    IF FOUND THEN
        RETURN format('invalid header %s: %s', outbox_quoted(name), problem);
    END IF;

    amount := octet_length(payload::text);
    IF amount > payload_max THEN
        RETURN format('payload too large: expected at most %s bytes, got %s', payload_max, amount);
    END IF;
    RETURN NULL;
END
$$;

-- As 0005 has it, and refuses what outbox_invalid() finds. For those who must not, SET outbox.validate = off: for a transaction,
-- a session, a role or a database.
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
DECLARE
    invalid text;
BEGIN
    IF payload IS NULL THEN
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

    IF coalesce(nullif(current_setting('outbox.validate', true), ''), 'on')::boolean THEN
        invalid := CASE
            WHEN available_at = 'infinity' THEN 'available_at must be a time that comes, got infinity'
            ELSE outbox_invalid(topic, event_type, payload, event_key, coalesce(headers, '{}'))
        END;
        IF invalid IS NOT NULL THEN
            RAISE EXCEPTION 'outbox_publish: %', invalid
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'No relay would publish such an event. SET outbox.validate = off writes it all the same.';
        END IF;
    ELSIF coalesce(topic, '') = '' THEN
        RAISE EXCEPTION 'outbox_publish: topic must not be empty'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name a topic, for example events.player.';
    END IF;

    id := coalesce(id, outbox_uuid_v7());
    INSERT INTO outbox_events (id, topic, event_type, payload, event_key, headers, carrier, available_at)
    VALUES (id, topic, coalesce(event_type, ''), payload, event_key, coalesce(headers, '{}'),
            coalesce(carrier, '{}'), coalesce(available_at, now()));
    RETURN id;
END
$$;
