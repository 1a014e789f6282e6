-- Takes 0010 back: only relays from before it can claim then, by the functions of 0008 and 0009. Those stay without a search
-- path of their own.

DROP FUNCTION IF EXISTS outbox_claim(bigint, bigint, bigint, text[], text[], uuid[], timestamptz, uuid, boolean);
DROP FUNCTION IF EXISTS outbox_wait_for_due(bigint, bigint, bigint, timestamptz, uuid, text[], text[], uuid[]);
