//! What to do about an error, where the error itself can't know the command line.

use krowoc_engine::Error;

/// The next step for whoever sees this error.
pub fn next_step(error: &anyhow::Error) -> Option<&'static str> {
    match error.chain().find_map(|cause| cause.downcast_ref::<Error>())? {
        Error::NotFound { what: "run", .. } => Some("`krowoc runs list` shows the runs there are"),
        Error::NotFound { what: "dead letter", .. } => Some("`krowoc dlq list --state all` shows the dead letters there are"),
        Error::NotFound { what: "workflow" | "workflow version", .. } => Some("`krowoc apply FILE` registers a workflow"),
        Error::Store(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed) => {
            Some("The connection to PostgreSQL was lost: see whether it runs, then try again; nothing that was recorded is lost")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn what_is_not_there_names_the_list_to_look_in() {
        let error = Err::<(), _>(Error::not_found("run", 7)).context("showing it").expect_err("an error");
        assert!(next_step(&error).is_some_and(|advice| advice.contains("krowoc runs list")));
        assert_eq!(next_step(&anyhow::anyhow!("else")), None);
    }
}
