//! A run's events: a page after a cursor, or a stream that goes on until the run has ended.

use super::{
    Answer, Body, Group,
    answer::{BAD, MISSING},
    call::Call,
    parameters,
    stream::{self, Stream},
    wrong,
};
use crate::{Api, views::Event};
use krowoc_engine::{RunId, queries::events};
use poem::web::Data;
use poem_openapi::{
    Object, OpenApi,
    param::{Header, Path, Query},
};
use serde::Serialize;
use uuid::Uuid;

pub struct Events;

/// Events of a run, in their order.
#[derive(Serialize, Object)]
pub struct EventPage {
    /// Those that are on this page.
    items: Vec<Event>,
    /// Ask for those after this number next. The run may not have any more yet.
    after: i32,
    /// There are more already.
    more: bool,
}

#[OpenApi(prefix_path = "/runs", tag = "Group::Runs")]
impl Events {
    /// Show a run's events after a number
    ///
    /// They are numbered from 1 without gaps, so that a reader goes on where it was, whatever happened in between.
    #[oai(path = "/:id/events", method = "get", operation_id = "listEvents")]
    async fn page(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The run's id.
        id: Path<Uuid>,
        /// The number of the last event that is known; 0 for all.
        #[oai(default, validator(minimum(value = "0"), maximum(value = "2147483647")))]
        after: Query<i32>,
        /// At most so many.
        #[oai(default = "parameters::page", validator(minimum(value = "1"), maximum(value = "1000")))]
        limit: Query<u16>,
    ) -> Answer<Body<EventPage>, { BAD | MISSING }> {
        let (run, conn) = (RunId(id.0), &mut *api.conn().await?);
        let version = api.version_of(conn, call.scope(), run).await?;
        let mut found = events::events(conn, call.scope(), run, &version.dag, after.0, i64::from(limit.0) + 1).await?;
        let more = found.len() > usize::from(limit.0);
        found.truncate(limit.0.into());
        let after = found.last().map_or(after.0, |event| event.seq);
        Ok(Body(EventPage { items: found.into_iter().map(Into::into).collect(), after, more }))
    }

    /// Follow a run's events as they happen (server-sent events)
    ///
    /// Each message's `id` is the event's number, its `event` the kind, its `data` the event as JSON. A reader that comes back with
    /// `Last-Event-ID`, as browsers do by themselves, goes on where it was. The stream ends after the event with which the run ends, or when
    /// the server stops; comments keep it alive in between.
    #[oai(path = "/:id/events/stream", method = "get", operation_id = "streamEvents")]
    async fn stream(
        &self,
        call: Call,
        api: Data<&Api>,
        /// The run's id.
        id: Path<Uuid>,
        /// The number of the last event that is known; 0 for all.
        #[oai(default, validator(minimum(value = "0"), maximum(value = "2147483647")))]
        after: Query<i32>,
        /// The `id` of the last message that came; it goes before `after`.
        #[oai(name = "Last-Event-ID", validator(pattern = "^[0-9]{1,9}$"))]
        last: Header<Option<String>>,
    ) -> Answer<Stream, { BAD | MISSING }> {
        let after = match last.0 {
            Some(text) => text.parse().ok().filter(|n| *n >= 0).ok_or_else(|| wrong("Last-Event-ID", "it is no event's number"))?,
            None => after.0,
        };
        Ok(stream::open(api.0.clone(), call.scope().clone(), RunId(id.0), after).await?)
    }
}
