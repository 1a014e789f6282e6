-- What the statements of this folder name and the table does not have; every column, when there is no table.
SELECT value
FROM json_each(
    '["id", "event_type", "topic", "payload", "carrier", "status", "created_at", "published_at", "attempt_count",
      "last_error", "available_at", "event_key", "headers"]'
)
WHERE value NOT IN (SELECT name FROM pragma_table_info('outbox_events'))
