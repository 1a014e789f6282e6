-- Takes 0002 back: the statistics, with their rows.

DROP TABLE IF EXISTS player_stats;
