-- Inserts any number of events in one round trip. Only what the application decides is named: states, times and
-- counters are the table's own business, and its defaults are the same for every producer. An event that names no time is due
-- at once, as by the column's default.
INSERT INTO outbox_events (id, topic, event_type, payload, carrier, event_key, headers, available_at)
SELECT event.id, event.topic, event.event_type, event.payload::jsonb, event.carrier::jsonb, event.event_key,
       event.headers::jsonb, coalesce('epoch'::timestamptz + event.due_us * interval '1 microsecond', now())
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[])
    AS event (id, topic, event_type, payload, carrier, event_key, headers, due_us)
