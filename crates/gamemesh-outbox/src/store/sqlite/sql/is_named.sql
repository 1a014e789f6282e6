-- A letter with one of the ids ?1, a JSON array, or any where that is NULL.
(?1 IS NULL OR id IN (SELECT value FROM json_each(?1)))
