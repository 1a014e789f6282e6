-- Lets the events in $1 wait ($3, microseconds by the database's clock) and keeps why ($2): what becomes of them could not be
-- written. Nothing is counted.
UPDATE outbox_events AS event
SET available_at = statement_timestamp() + withheld.wait_us * interval '1 microsecond',
    last_error = withheld.reason
FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS withheld (id, reason, wait_us)
WHERE event.id = withheld.id AND event.status = 'PENDING'
