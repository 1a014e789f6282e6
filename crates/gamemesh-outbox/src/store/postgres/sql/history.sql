-- Lists what people did to one event, newest first.
SELECT id, at, actor, action, event_id, request_id, reason, before::text AS before, after::text AS after
FROM outbox_audit
WHERE event_id = $1::uuid
ORDER BY id DESC
LIMIT 100
