-- Looks once whether an event is due, in a transaction of its own: nobody holds a lock or an open transaction while it waits
-- for the next look. Migrations 0008 and 0010 say how, of a wait that is over after its first look.
--
-- A row that is found is locked until this statement ends. That lock has nothing to lose in a crash, so nobody waits for the
-- disk. Each look has to have a snapshot of its own, whatever the database's defaults are.
SELECT due_at,
       clock_timestamp() AS looked_at,
       current_setting('transaction_isolation') = 'read committed' AS in_read_committed,
       set_config('synchronous_commit', 'off', true) AS lock_may_be_lost
FROM outbox_wait_for_due(
    0, 0, $1::bigint, $2::timestamptz, $3::uuid, $4::text[], $5::text[], $6::uuid[]
)
