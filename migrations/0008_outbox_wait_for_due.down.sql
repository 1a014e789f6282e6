-- Takes 0008 back: relays look again once in each poll interval.

DROP FUNCTION IF EXISTS outbox_wait_for_due(bigint, bigint, bigint, timestamptz, uuid, text[], text[]);
