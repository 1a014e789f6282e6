-- Lets the events in $1 wait ($2, microseconds by the database's clock). Nobody knows what became of them, so nothing
-- is counted.
UPDATE outbox_events AS event
SET available_at = statement_timestamp() + deferred.wait_us * interval '1 microsecond'
FROM unnest($1::uuid[], $2::bigint[]) AS deferred (id, wait_us)
WHERE event.id = deferred.id AND event.status = 'PENDING'
