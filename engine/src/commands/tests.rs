//! A command that changes nothing holds nothing either, on a connection that nobody uses after it.

use super::*;
use crate::{
    drain::{Act, Drain},
    error::{Error, ErrorClass},
    id::RunId,
    payload::Payload,
};
use sqlx::PgConnection;
use std::time::Duration;

/// Is the session of a connection in a transaction? Asked over another.
struct Look {
    session: i32,
    conn: PgConnection,
}

impl Look {
    async fn at(d: &mut Drain) -> Self {
        let session = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut d.conn).await.expect("a number");
        Self { session, conn: d.connect().await }
    }

    async fn is_idle(&mut self, after: &str) {
        let sql = "SELECT state FROM pg_stat_activity WHERE pid = $1";
        let state: String = sqlx::query_scalar(sql).bind(self.session).fetch_one(&mut self.conn).await.expect("a state");
        assert_eq!(state, "idle", "after {after}");
    }
}

/// Guard: `leave`.
#[tokio::test]
async fn a_command_that_changes_nothing_leaves_no_transaction() {
    let mut d = Drain::new().await;
    let mut look = Look::at(&mut d).await;
    d.will("bad", [Act::Fail(ErrorClass::Refused)]);
    let (run, version) = d.start("  bad: {t: 1}\n  other: {wait: {for: 1h}}\n").await;
    d.drain().await;
    let letter = sqlx::query_scalar("SELECT id FROM krowoc.dead_letter").fetch_one(&mut d.conn).await.expect("a letter");
    let done = redrive(&mut d.conn, &d.versions, &d.scope, &[letter]).await.expect("redriven");
    assert!(matches!(done[0].outcome, Redrive::Redriven), "{done:?}");
    let again = redrive(&mut d.conn, &d.versions, &d.scope, &[letter]).await.expect("nothing to do");
    assert!(matches!(again[0].outcome, Redrive::AlreadyRedriven), "{again:?}");
    look.is_idle("a second redrive").await;

    cancel_run(&mut d.conn, &d.scope, run).await.expect("cancelled");
    cancel_run(&mut d.conn, &d.scope, run).await.expect("cancelled already");
    look.is_idle("a second cancel").await;
    let unknown = cancel_run(&mut d.conn, &d.scope, RunId::new()).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })), "{unknown:?}");
    look.is_idle("a cancel of no run").await;

    let request = |input: i32| StartRun {
        version: version.id,
        input: Payload::from(&serde_json::json!({ "n": input })),
        idempotency_key: Some("key".into()),
        priority: 0,
        trigger: "test".into(),
    };
    start_runs(&mut d.conn, &d.scope, &d.versions, &[request(1)], None).await.expect("started");
    let taken = start_runs(&mut d.conn, &d.scope, &d.versions, &[request(2)], None).await;
    assert!(matches!(taken, Err(Error::Conflict(_))), "{taken:?}");
    look.is_idle("a start whose key was taken").await;

    prune(&mut d.conn, &d.scope, Duration::from_secs(3600), 10).await.expect("nothing to remove");
    look.is_idle("retention with nothing to remove").await;
    d.done().await;
}
