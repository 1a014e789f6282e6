-- Takes the table, if it is there, in the strongest way that any step does, before the first of them. A step that has a weaker
-- lock and waits for a stronger one (0003 indexes, 0004 alters) waits for a relay that has locked rows and waits to mark them: one
-- of the two would be ended. Relays are at work meanwhile.
DO $$
BEGIN
    IF to_regclass('outbox_events') IS NOT NULL THEN
        LOCK TABLE outbox_events IN ACCESS EXCLUSIVE MODE;
    END IF;
END
$$
