//! Accounts and transfers between them, in PostgreSQL.
//!
//! sqlx is used as anywhere else: a pool that connects when it is first needed. It stays with the instance from one call
//! to the next, has one connection, since an instance has one call at a time, and replaces it when the server
//! has closed it.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "accounts",
    generate_all,
});

use std::cell::OnceCell;
use std::env;
use std::time::Duration;

use bank::ledger::types::LedgerError;
use exports::bank::ledger::accounts::Guest;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::runtime::{Builder, Runtime};

const SCHEMA: &str = include_str!("schema.sql");

struct Ledger;

export!(Ledger);

/// What an instance keeps: the pool's tasks belong to the runtime.
struct Database {
    runtime: Runtime,
    pool: PgPool,
}

thread_local! {
    static DATABASE: OnceCell<Database> = const { OnceCell::new() };
}

impl Database {
    /// Connects to what `DATABASE_URL` names, when the first query is made. `DATABASE_CA` is the authority of its
    /// certificate as PEM, where that is not one of the web's.
    fn open() -> Result<Self, LedgerError> {
        let url = env::var("DATABASE_URL").map_err(|_| {
            LedgerError::Unavailable("the environment has no DATABASE_URL".to_owned())
        })?;
        let mut server: PgConnectOptions = url.parse()?;
        if let Ok(authority) = env::var("DATABASE_CA") {
            server = server.ssl_root_cert_from_pem(authority.into_bytes());
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| LedgerError::Unavailable(error.to_string()))?;
        let options = PgPoolOptions::new()
            .max_connections(1)
            // Less than the service's `timeout`, so that callers get the reason.
            .acquire_timeout(Duration::from_secs(3))
            .after_connect(|connection, _| {
                Box::pin(async move {
                    // Statements that are sent together are one transaction.
                    sqlx::raw_sql(SCHEMA).execute(connection).await.map(drop)
                })
            });
        // The pool starts a task of its own.
        let pool = runtime.block_on(async { options.connect_lazy_with(server) });
        Ok(Self { runtime, pool })
    }
}

/// Runs a query with the instance's pool.
fn with<T>(work: impl AsyncFnOnce(&PgPool) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
    DATABASE.with(|kept| {
        let database = match kept.get() {
            Some(database) => database,
            None => {
                let opened = Database::open()?;
                kept.get_or_init(|| opened)
            }
        };
        database.runtime.block_on(work(&database.pool))
    })
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl Guest for Ledger {
    fn open(name: String, cents: i64) -> Result<(), LedgerError> {
        if cents < 0 {
            return Err(LedgerError::InvalidAmount);
        }
        with(async |pool| {
            let query = "insert into account (name, cents) values ($1, $2) on conflict do nothing";
            let done = sqlx::query(query)
                .bind(&name)
                .bind(cents)
                .execute(pool)
                .await?;
            match done.rows_affected() {
                0 => Err(LedgerError::Exists(name)),
                _ => Ok(()),
            }
        })
    }

    fn balance(name: String) -> Result<i64, LedgerError> {
        with(async |pool| {
            let query = sqlx::query_scalar("select cents from account where name = $1");
            let cents = query.bind(&name).fetch_optional(pool).await?;
            cents.ok_or(LedgerError::UnknownAccount(name))
        })
    }

    fn transfer(sender: String, receiver: String, cents: i64) -> Result<i64, LedgerError> {
        if cents <= 0 {
            return Err(LedgerError::InvalidAmount);
        }
        with(async |pool| {
            // Dropped without a commit, it is rolled back.
            let mut all = pool.begin().await?;
            // Both rows are locked, in one order for everybody.
            let names: Vec<String> = sqlx::query_scalar(
                "select name from account where name in ($1, $2) order by name for update",
            )
            .bind(&sender)
            .bind(&receiver)
            .fetch_all(&mut *all)
            .await?;
            for name in [&sender, &receiver] {
                if !names.contains(name) {
                    return Err(LedgerError::UnknownAccount(name.clone()));
                }
            }
            let query = "update account set cents = cents - $2 where name = $1 and cents >= $2";
            let taken = sqlx::query(query).bind(&sender).bind(cents);
            if taken.execute(&mut *all).await?.rows_affected() == 0 {
                return Err(LedgerError::InsufficientFunds);
            }
            let query = "update account set cents = cents + $2 where name = $1";
            let given = sqlx::query(query).bind(&receiver).bind(cents);
            given.execute(&mut *all).await?;
            let query =
                "insert into transfer (sender, receiver, cents) values ($1, $2, $3) returning id";
            let id = sqlx::query_scalar(query)
                .bind(&sender)
                .bind(&receiver)
                .bind(cents)
                .fetch_one(&mut *all)
                .await?;
            all.commit().await?;
            Ok(id)
        })
    }
}
