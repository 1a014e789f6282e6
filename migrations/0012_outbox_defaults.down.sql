-- Takes 0012 back. The defaults stay, which are those of 0003 and 0004.

DROP TRIGGER IF EXISTS outbox_fill ON outbox_events;
DROP FUNCTION IF EXISTS outbox_fill();
