-- Takes 0003 back: the outbox, with every event in it, published or not.

DROP TABLE IF EXISTS outbox_events;
