-- One event, PENDING, due at once by the column's default.
INSERT INTO outbox_events (id, topic, event_type, payload, carrier, event_key, headers)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
