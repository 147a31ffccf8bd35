//! Dead letters.

use super::{
    Answer, Body, Group,
    answer::{BAD, BODY, INVALID, MISSING},
    call::Call,
    page::{List, Page},
    parameters,
};
use crate::{
    Api,
    views::{DeadLetter, DeadLetterDetail, DeadLetterReport, DeadLetterState, ErrorClass},
};
use krowoc_engine::{
    RunId,
    commands::{discard, redrive},
    definition::Problem,
    queries::dead_letters::{self, LetterFilter},
};
use poem::web::Data;
use poem_openapi::{
    Object, OpenApi,
    param::{Path, Query},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Letters that are redriven or discarded together.
const MOST: usize = 1000;

pub struct DeadLetters;

/// Dead letters that are to go back to work.
#[derive(Deserialize, Object)]
#[serde(deny_unknown_fields)]
pub struct RedriveRequest {
    /// Their ids, up to 1,000.
    #[oai(validator(min_items = 1, max_items = 1000))]
    ids: Vec<Uuid>,
}

/// Dead letters that are to stay as they are.
#[derive(Deserialize, Object)]
#[serde(deny_unknown_fields)]
pub struct DiscardRequest {
    /// Their ids, up to 1,000.
    #[oai(validator(min_items = 1, max_items = 1000))]
    ids: Vec<Uuid>,
    /// Why; it is kept with them.
    #[oai(validator(min_length = 1, max_length = 1000, pattern = r"^[^\x00]*\S[^\x00]*$"))]
    reason: String,
}

/// What came of each dead letter, in the order of the request.
#[derive(Serialize, Object)]
pub struct DeadLetterReports {
    /// One for each.
    items: Vec<DeadLetterReport>,
}

#[OpenApi(prefix_path = "/dead-letters", tag = "Group::DeadLetters")]
impl DeadLetters {
    /// List dead letters, newest first
    #[oai(path = "/", method = "get", operation_id = "listDeadLetters")]
    #[expect(clippy::too_many_arguments, reason = "each is a parameter of the request")]
    async fn list(
        &self,
        call: Call,
        api: Data<&Api>,
        /// Standing here.
        state: Query<Option<DeadLetterState>>,
        /// Of this workflow.
        #[oai(validator(pattern = r"^[^\x00]*$"))]
        workflow: Query<Option<String>>,
        /// Of this run.
        run: Query<Option<Uuid>>,
        /// Failed with this class.
        class: Query<Option<ErrorClass>>,
        /// `next` of the page before.
        cursor: Query<Option<String>>,
        /// At most so many.
        #[oai(default = "parameters::page", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u16>,
    ) -> Answer<Body<Page<DeadLetter>>, BAD> {
        let filter = LetterFilter {
            state: state.0.map(Into::into),
            workflow: parameters::name_if("workflow", workflow.0)?,
            run: run.0.map(RunId),
            class: class.0.map(Into::into),
        };
        let list = List::new("dead_letters", &(filter.state, &filter.workflow, filter.run, filter.class));
        let after = cursor.0.map(|cursor| list.place::<Uuid>(&cursor)).transpose()?;
        let conn = &mut *api.conn().await?;
        let letters = dead_letters::list(conn, call.scope(), &filter, after, i64::from(limit.0) + 1).await?;
        Ok(Body(Page::of(letters, limit.0, &list, |letter| letter.id)))
    }

    /// Show a dead letter: the error, the input, every attempt
    #[oai(path = "/:id", method = "get", operation_id = "getDeadLetter")]
    async fn show(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The dead letter's id.
        id: Path<Uuid>,
    ) -> Answer<Body<DeadLetterDetail>, { BAD | MISSING }> {
        Ok(Body(dead_letters::show(&mut *api.conn().await?, call.scope(), id.0).await?.into()))
    }

    /// Send steps back to work: same run, same version; nothing that succeeded runs again
    ///
    /// Redriving twice does nothing more, so that the request may be repeated. Each letter has an outcome of its own.
    #[oai(path = "/redrive", method = "post", operation_id = "redriveDeadLetters")]
    async fn redrive(
        &self,
        call: Call,
        api: Data<&Api>,
        request: Body<RedriveRequest>,
    ) -> Answer<Body<DeadLetterReports>, { BAD | BODY | INVALID }> {
        check(&request.0.ids)?;
        let versions = &api.engine().registry().versions;
        let redriven = redrive(&mut *api.conn().await?, versions, call.scope(), &request.0.ids).await?;
        Ok(Body(DeadLetterReports { items: redriven.into_iter().map(Into::into).collect() }))
    }

    /// Leave steps as they are, for a reason that is kept
    ///
    /// Discarding twice does nothing more, and keeps the first reason. Each letter has an outcome of its own.
    #[oai(path = "/discard", method = "post", operation_id = "discardDeadLetters")]
    async fn discard(
        &self,
        call: Call,
        api: Data<&Api>,
        request: Body<DiscardRequest>,
    ) -> Answer<Body<DeadLetterReports>, { BAD | BODY | INVALID }> {
        let DiscardRequest { ids, reason } = request.0;
        check(&ids)?;
        if reason.contains('\0') || reason.chars().count() > 1000 {
            let problem = Problem::new("reason", "/reason", "a reason has 1 to 1,000 characters and no U+0000");
            return Err(krowoc_engine::Error::Invalid(vec![problem]).into());
        }
        let discarded = discard(&mut *api.conn().await?, call.scope(), &ids, &reason).await?;
        Ok(Body(DeadLetterReports { items: discarded.into_iter().map(Into::into).collect() }))
    }
}

fn check(ids: &[Uuid]) -> Result<(), krowoc_engine::Error> {
    match ids.len() {
        1..=MOST => Ok(()),
        _ => Err(krowoc_engine::Error::Invalid(vec![Problem::new("ids", "/ids", format!("1 to {MOST} ids are taken at once"))])),
    }
}
