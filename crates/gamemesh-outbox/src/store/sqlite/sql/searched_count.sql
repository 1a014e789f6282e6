-- How many letters with one of the ids ?1 there are, up to ?2.
SELECT count(*) FROM (SELECT 1 FROM outbox_events WHERE status = 'FAILED' AND {is_named} LIMIT ?2)
