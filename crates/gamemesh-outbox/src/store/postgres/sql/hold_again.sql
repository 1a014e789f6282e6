-- Locks those of the events in $1 that nobody else holds and that wait still, so that what became of them is written once more.
SELECT event.ctid AS place, event.id
FROM outbox_events AS event
WHERE event.id = ANY ($1::uuid[]) AND event.status = 'PENDING'
FOR UPDATE OF event SKIP LOCKED
