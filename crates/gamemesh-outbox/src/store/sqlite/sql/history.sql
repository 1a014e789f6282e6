-- What people did to one event, newest first.
SELECT id, CAST(at AS BLOB) AS at, actor, action, CAST(event_id AS BLOB) AS event_id,
    CAST(request_id AS BLOB) AS request_id, reason, before, after
FROM outbox_audit
WHERE event_id = ?1
ORDER BY id DESC
LIMIT 100
