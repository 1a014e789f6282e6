-- Waits until an event is due, for at most $1 milliseconds; migration 0008 says how.
SELECT due_at, start_look_us
FROM outbox_wait_for_due($1::bigint, $2::bigint, $3::bigint, $4::timestamptz, $5::uuid, $6::text[], $7::text[])
