//! Which server migrations are made on, and that sqlx, which made them for earlier releases, reads them as its own.

use gamemesh_outbox::store::postgres::{MIGRATIONS, PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::{Migration, Schema};
use outbox_testkit::servers::PostgresServer;
use sqlx::migrate::{Migration as Step, MigrationType, Migrator};
use sqlx::{PgPool, SqlSafeStr};

use crate::postgres::{migrations_from, taken_back_to};

#[tokio::test]
async fn migrations_are_made_on_the_host_that_takes_writes() {
    let primary = PostgresServer::start().await.unwrap();
    let database = primary.database().await;
    let standby = primary.standby().await.unwrap();
    let (ports, name) = (format!("{},{}", standby.port(), primary.port()), database.name());
    let hosts = format!("host=127.0.0.1,127.0.0.1 port={ports} user=postgres dbname={name} sslmode=disable");
    let store = |dsn: &str| PostgresStore::new(PostgresConfig::from_dsn(dsn).unwrap()).unwrap();

    let read_write = store(&format!("{hosts} target_session_attrs=read-write"));
    assert_eq!(read_write.migrate_up().await.unwrap(), migrations_from(3));
    assert_eq!(read_write.migrate_down(8).await.unwrap(), taken_back_to(8));
    // The first host is a standby, of no use here, whatever the string leaves open.
    assert_eq!(store(&hosts).migrate_up().await.unwrap(), migrations_from(9));
}

#[tokio::test]
async fn a_database_may_be_migrated_by_sqlx_and_by_the_store_in_turns() {
    let database = PostgresServer::shared().database().await;
    let store = PostgresStore::new(PostgresConfig::from_dsn(&database.dsn()).unwrap()).unwrap();
    let pool = PgPool::connect(&database.url()).await.unwrap();
    let mut sqlx = Migrator::with_migrations(MIGRATIONS.iter().flat_map(steps).collect());
    sqlx.dangerous_set_table_name("outbox_migrations");

    sqlx.run_to(5, &pool).await.unwrap();
    assert_eq!(store.migrate_up().await.unwrap(), migrations_from(6));
    sqlx.run(&pool).await.expect("the same checksums");
    sqlx.undo(&pool, 7).await.unwrap();
    assert_eq!(store.migrate_down(4).await.unwrap(), [7, 6, 5]);
    sqlx.run(&pool).await.unwrap();
    assert_eq!(store.migrate_up().await.unwrap(), [0; 0]);
    assert_eq!(store.migrate_down(0).await.unwrap(), taken_back_to(2));
    assert_eq!(store.migrate_up().await.unwrap(), migrations_from(3));
    sqlx.run(&pool).await.expect("the same table");
    assert!(store.migration_status().await.unwrap().iter().all(|state| state.applied));

    let damage = "UPDATE outbox_migrations SET checksum = '' WHERE version = 5";
    sqlx::query(damage).execute(&pool).await.unwrap();
    let error = store.migrate_up().await.unwrap_err();
    assert_eq!(error.to_string(), "migration 0005_outbox_due_keys_headers differs from the one that was applied");
}

fn steps(migration: &Migration) -> [Step; 2] {
    let step = |direction, sql: &'static str| {
        Step::new(migration.version, migration.name.into(), direction, sql.into_sql_str(), false)
    };
    [step(MigrationType::ReversibleUp, migration.up), step(MigrationType::ReversibleDown, migration.down)]
}
