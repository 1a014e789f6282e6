-- Takes 0009 back: only relays from before it can claim then.

DROP FUNCTION IF EXISTS outbox_claim(bigint, bigint, bigint, text[], text[], timestamptz, uuid, boolean);
