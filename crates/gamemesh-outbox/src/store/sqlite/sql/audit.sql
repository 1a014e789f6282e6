-- Writes down that ?1 did ?2 by request ?3, because of ?4, to the events in ?6: a JSON array of [id, what was there
-- before]. ?5 is what is there since.
INSERT INTO outbox_audit (actor, action, request_id, reason, event_id, before, after)
SELECT ?1, ?2, ?3, ?4, value ->> 0, value ->> 1, ?5
FROM json_each(?6)
