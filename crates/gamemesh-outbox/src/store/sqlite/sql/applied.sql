SELECT version FROM outbox_migrations WHERE success ORDER BY version
