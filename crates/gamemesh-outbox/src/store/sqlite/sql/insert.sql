-- One event, PENDING; due at once where it names no time, as by the column's default.
INSERT INTO outbox_events (id, topic, event_type, payload, carrier, event_key, headers, available_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(?8, 'now')))
