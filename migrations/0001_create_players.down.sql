-- Takes 0001 back: the example service's players, with their rows.

DROP TABLE IF EXISTS players;
