//! A stream of a run's events to one reader. The reader pulls: a page is read when the reader has taken the one before, with a connection
//! that goes back at once, so that one who reads slowly or not at all keeps nothing but its place.

use crate::{
    Api,
    problem::Said,
    views::Event,
    watch::{Place, Watched},
};
use futures::stream;
use krowoc_engine::{Result, RunId, Scope, queries::events, version::Version};
use poem::{
    IntoResponse, Response,
    http::{HeaderValue, header},
    web::sse::{Event as Message, SSE},
};
use poem_openapi::{
    ApiResponse, Object,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::Type,
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Events that are read together.
const PAGE: i64 = 100;
/// How often a stream without events says that it lives: within what proxies grant a silent connection.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
/// The events with which a run ends.
const ENDS: [&str; 3] = ["run_succeeded", "run_failed", "run_cancelled"];
/// After how long a reader whose stream broke off should come back.
const AGAIN_AFTER_MS: u64 = 1000;

/// The answer.
pub struct Stream(SSE);

/// A message of the stream.
#[derive(Object)]
pub struct StreamedEvent {
    /// The event's number: the `Last-Event-ID` with which a reader goes on after it.
    pub id: String,
    /// The event's kind.
    pub event: String,
    /// The event as JSON, of the same shape as on a page of events.
    pub data: String,
}

/// Looks whether there is such a run, and begins.
pub(super) async fn open(api: Api, scope: Scope, run: RunId, after: i32) -> Result<Stream, Said> {
    let place = api.watch().place()?;
    let version = api.version_of(&mut *api.conn().await?, &scope, run).await?;
    let watched = api.watch().run(run);
    let reader = Reader { api, scope, run, version, after, page: VecDeque::new(), over: false, watched, _place: place };
    let begin = stream::once(async { Message::retry(AGAIN_AFTER_MS) });
    let events = stream::unfold(reader, |mut reader| async move { reader.next().await.map(|event| (message(&event), reader)) });
    Ok(Stream(SSE::new(stream::StreamExt::chain(begin, events)).keep_alive(ALIVE_EVERY)))
}

fn message(event: &Event) -> Message {
    // Strings, numbers and JSON that was read from JSON: it can't fail.
    let data = serde_json::to_string(event).unwrap_or_default();
    Message::message(data).id(event.seq.to_string()).event_type(event.kind.clone())
}

struct Reader {
    api: Api,
    scope: Scope,
    run: RunId,
    version: Arc<Version>,
    after: i32,
    page: VecDeque<Event>,
    /// The last page was read, and the run had ended.
    over: bool,
    watched: Watched,
    _place: Place,
}

impl Reader {
    /// The next event; none after the run's end, or when it can't be read: the reader comes back and goes on where it was.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.page.pop_front() {
                self.after = event.seq;
                return Some(event);
            }
            if self.over {
                return None;
            }
            // Before the look: what happens between the look and the wait is not missed.
            self.watched.mark();
            match self.look().await {
                Ok(page) if page.is_empty() && !self.over => self.watched.moved().await?,
                Ok(page) => self.page = page,
                Err(error) => {
                    tracing::warn!(run = %self.run, %error, "a stream of events breaks off");
                    return None;
                }
            }
        }
    }

    async fn look(&mut self) -> Result<VecDeque<Event>> {
        let conn = &mut *self.api.engine().pool().acquire().await?;
        let found = events::events(conn, &self.scope, self.run, &self.version.dag, self.after, PAGE).await?;
        // Only where it may be so: a run that was opened again has gone on after an end.
        self.over = match found.last() {
            Some(event) if !ENDS.contains(&event.kind.as_str()) => false,
            last => self.has_ended(conn, last.map_or(self.after, |event| event.seq)).await?,
        };
        Ok(found.into_iter().map(Into::into).collect())
    }

    /// Will there be no more after this number?
    async fn has_ended(&self, conn: &mut sqlx::PgConnection, after: i32) -> Result<bool> {
        let heads = events::heads(conn, &[self.run]).await?;
        Ok(heads.first().is_none_or(|(_, head)| head.ended && head.seq <= after))
    }
}

impl IntoResponse for Stream {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Proxies of nginx's kind would hold messages back.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

impl ApiResponse for Stream {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The events, as they happen.",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType { content_type: "text/event-stream", schema: StreamedEvent::schema_ref() }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        StreamedEvent::register(registry);
    }
}
