-- Puts the letters in ?1, a JSON array of ids, back into the queue. The error goes with the attempts, into the audit: a row
-- that waits says nothing that is no longer true of it.
UPDATE outbox_events
SET status = 'PENDING',
    attempt_count = 0,
    last_error = '',
    available_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
WHERE status = 'FAILED' AND id IN (SELECT value FROM json_each(?1))
