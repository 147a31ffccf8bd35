//! One id for each request, from the caller or made here: every log line that the request causes carries it, and so do the answer and its
//! problem document. Here a request is logged, once, and here whatever went wrong becomes an answer; bodies, queries and tokens are never
//! logged.

use crate::problem::{Said, of_poem};
use futures::FutureExt;
use poem::{
    Endpoint, FromRequest, IntoResponse, Middleware, PathPattern, Request, RequestBody, Response, Result,
    http::{HeaderName, HeaderValue},
};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};
use tracing::{Instrument, Level};
use uuid::Uuid;

/// The header that carries it, both ways.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longer ones are not taken: they would be in every log line.
const LONGEST: usize = 128;

/// Names a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CorrelationId(Arc<str>);

impl CorrelationId {
    /// A fresh one.
    pub fn made() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    /// As text: printable ASCII without spaces.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The caller's, if it is sound; one that could break a log line or fill it is passed over.
    fn of(request: &Request) -> Self {
        let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
        let sound = given.filter(|text| (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()));
        sound.map_or_else(Self::made, |text| Self(text.into()))
    }
}

impl<'a> FromRequest<'a> for CorrelationId {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        Ok(request.data::<Self>().cloned().unwrap_or_else(Self::made))
    }
}

/// The middleware. It is the outermost one, so that what the others refuse is answered and logged like the rest.
pub struct Correlation;

impl<E: Endpoint> Middleware<E> for Correlation {
    type Output = Correlated<E>;

    fn transform(&self, inner: E) -> Correlated<E> {
        Correlated(inner)
    }
}

/// What [`Correlation`] makes of an endpoint: one that always answers.
pub struct Correlated<E>(E);

impl<E: Endpoint> Endpoint for Correlated<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let begun = Instant::now();
        let id = CorrelationId::of(&request);
        request.set_data(id.clone());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        // At the highest level, so that no filter that lets a line pass takes its id away.
        let span = tracing::error_span!("request", correlation_id = id.as_str());
        async {
            let answer = AssertUnwindSafe(self.0.call(request)).catch_unwind().await;
            let mut response = match answer {
                Ok(Ok(answer)) => answer.into_response(),
                // An upgrade or a redirect that poem raises as an error is an answer like any other.
                Ok(Err(error)) if error.is_from_response() => error.into_response(),
                Ok(Err(error)) => {
                    let mut response = of_poem(&error).response(&id, &uri);
                    if let Some(pattern) = error.data::<PathPattern>() {
                        response.set_data(pattern.clone());
                    }
                    response
                }
                Err(panic) => Said::fault().cause(said(&*panic)).response(&id, &uri),
            };
            if let Ok(value) = HeaderValue::from_str(id.as_str()) {
                response.headers_mut().insert(HEADER, value);
            }
            let route = response.data::<PathPattern>().map_or("-", |pattern| &pattern.0);
            log(&method, route, response.status().as_u16(), begun);
            Ok(response)
        }
        .instrument(span)
        .await
    }
}

/// Probes and scrapes come all the time and say nothing, so that they are logged one level lower.
fn log(method: &poem::http::Method, route: &str, status: u16, begun: Instant) {
    let ms = begun.elapsed().as_secs_f64() * 1000.0;
    let ms = (ms * 10.0).round() / 10.0;
    match route.starts_with("/health/") || route == "/metrics" {
        true => tracing::event!(Level::DEBUG, %method, route, status, ms, "served"),
        false => tracing::event!(Level::INFO, %method, route, status, ms, "served"),
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_else(|| "of no text".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use poem::{EndpointExt, Route, endpoint::make_sync, handler, http::StatusCode, test::TestClient};
    use std::{io, sync::Mutex};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Log {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("UTF-8")
        }
    }

    #[handler]
    fn broken() -> Result<()> {
        Err(Said::from(krowoc_engine::Error::Internal("the moon is full".into())).into())
    }

    fn client() -> TestClient<impl Endpoint> {
        let panics = make_sync(|_| -> () { panic!("out of cheese") });
        TestClient::new(Route::new().at("/broken/:id", poem::get(broken)).at("/panics", poem::get(panics)).with(Correlation))
    }

    #[tokio::test]
    async fn an_id_is_in_the_answer_in_the_problem_and_in_every_log_line() {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_max_level(Level::INFO).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let answer = client().get("/broken/7?token=secret").header(HEADER, "abc-123").header("authorization", "Bearer secret").send().await;
        answer.assert_status(StatusCode::INTERNAL_SERVER_ERROR);
        answer.assert_header(HEADER, "abc-123");
        answer.assert_header("content-type", crate::problem::CONTENT_TYPE);
        let problem: serde_json::Value = answer.json().await.value().deserialize();
        assert_eq!(problem["correlation_id"], "abc-123");
        let log = log.text();
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(log.lines().all(|line| line.contains("abc-123")), "{log}");
        assert!(log.contains("the moon is full") && log.contains("/broken/:id") && !log.contains("secret"), "{log}");
    }

    #[tokio::test]
    async fn an_id_that_could_break_a_line_or_fill_it_is_replaced() {
        for given in ["a b", "a\u{e9}", "", &"x".repeat(LONGEST + 1)] {
            let answer = client().get("/broken/7").header(HEADER, given).send().await;
            let id = answer.0.headers().get(HEADER).and_then(|id| id.to_str().ok()).expect("an id").to_owned();
            assert!(id.parse::<Uuid>().is_ok(), "{given:?} became {id}");
        }
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_a_problem_too() {
        let answer = client().get("/panics").send().await;
        answer.assert_status(StatusCode::INTERNAL_SERVER_ERROR);
        let problem: serde_json::Value = answer.json().await.value().deserialize();
        assert_eq!(problem["code"], "internal");
        assert!(!problem.to_string().contains("cheese"));
    }
}
