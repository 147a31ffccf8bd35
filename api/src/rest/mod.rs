//! REST under `/api/v1`, with its OpenAPI document and a docs page. A handler reads its parameters, calls the command or query that the
//! command line calls too, and shows the view; it decides nothing.

mod answer;
mod body;
mod call;
mod dead_letters;
mod events;
mod page;
mod parameters;
mod queues;
mod routes;
mod runs;
mod start;
mod stream;
mod workflows;

pub use body::Body;

use crate::{Api, problem::Said};
use poem::{Endpoint, EndpointExt, IntoEndpoint, IntoResponse, Response, RouteMethod, endpoint::make_sync, http::header};
use poem_openapi::{LicenseObject, OpenApiService, Tags};
use routes::Routes;
use serde_json::Value;
use std::sync::Arc;

/// Where it is served.
pub const PREFIX: &str = "/api/v1";

/// The groups of operations.
#[derive(Tags)]
enum Group {
    /// Workflows and their versions: checked, registered, looked at.
    Workflows,
    /// Runs: started, watched, cancelled, looked into.
    Runs,
    /// Steps that failed for good: looked at, redriven, discarded.
    #[oai(rename = "Dead letters")]
    DeadLetters,
    /// What waits for workers.
    Queues,
}

type Operations = (workflows::Workflows, runs::Runs, events::Events, dead_letters::DeadLetters, queues::Queues);

fn service() -> OpenApiService<Operations, ()> {
    let operations = (workflows::Workflows, runs::Runs, events::Events, dead_letters::DeadLetters, queues::Queues);
    OpenApiService::new(operations, "Krowoc", env!("CARGO_PKG_VERSION"))
        .description(
            "Durable workflows for LLM pipelines, on PostgreSQL. Every operation is the command line's; what goes wrong is a problem document \
             (RFC 9457) with a stable `code`. The guide is docs/api.md.",
        )
        .license(LicenseObject::new("MIT OR Apache-2.0"))
        .server(PREFIX)
}

/// What requests consist of: nothing but what the document names is taken (`deny_unknown_fields`), which poem-openapi can't say.
const TAKEN: [&str; 6] = ["BatchRequest", "BatchedStart", "DiscardRequest", "RedriveRequest", "StartRequest", "WorkflowSource"];

/// What requests look like: readers learn from it, and schemathesis asks it first.
const EXAMPLES: [(&str, &str); 3] = [
    ("StartRequest", r#"{"workflow": "summarize-note", "input": {"note": "Call Ada. Book the room."}}"#),
    ("BatchRequest", r#"{"runs": [{"workflow": "summarize-note", "input": {"note": "Call Ada."}, "idempotency_key": "note-7"}]}"#),
    ("WorkflowSource", r#"{"workflow": "krowoc: v1\nname: hello\nsteps:\n  greet: {transform: {text: Hello}}\n"}"#),
];

/// The OpenAPI document.
pub fn document() -> String {
    let text = service().spec();
    let Ok(mut document) = serde_json::from_str::<Value>(&text) else { return text };
    for name in TAKEN {
        document["components"]["schemas"][name]["additionalProperties"] = Value::Bool(false);
    }
    for (name, example) in EXAMPLES {
        document["components"]["schemas"][name]["example"] = serde_json::from_str(example).unwrap_or_default();
    }
    format!("{document:#}\n")
}

/// The operations, to be nested at [`PREFIX`] behind a guard.
pub(crate) fn operations(api: Api) -> impl Endpoint<Output = Response> {
    let routes = Arc::new(Routes::of(&document()));
    let known = routes.clone();
    service().into_endpoint().data(api).data(routes).map_to_response().around(move |endpoint, request| {
        let known = known.clone();
        async move { endpoint.call(request).await.map_err(|error| known.with_methods(error)) }
    })
}

/// The document, which is open.
pub(crate) fn document_endpoint() -> RouteMethod {
    let json = document();
    poem::get(make_sync(move |_| {
        json.clone().with_content_type("application/json").with_header(header::CACHE_CONTROL, "no-cache").into_response()
    }))
}

/// Its page, which is open too.
pub(crate) fn docs_endpoint() -> RouteMethod {
    let html = service().swagger_ui_html();
    // Everything is in the page itself: it needs nothing from elsewhere, and is not allowed to.
    let policy = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src 'self' data:; \
                  connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";
    poem::get(make_sync(move |_| {
        html.clone()
            .with_content_type("text/html; charset=utf-8")
            .with_header(header::CONTENT_SECURITY_POLICY, policy)
            .with_header(header::CACHE_CONTROL, "no-cache")
            .into_response()
    }))
}

/// What a handler gives back: an answer, or a refusal for one of the reasons in `WHY`.
type Answer<T, const WHY: u8> = Result<T, answer::Refused<WHY>>;

/// A parameter that is not what it has to be.
fn wrong(name: &str, why: impl std::fmt::Display) -> Said {
    Said::new(crate::problem::Code::InvalidParameter, format!("`{name}`: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of JSON keeps the last of two keys.
    #[test]
    fn no_two_groups_serve_the_same_path() {
        let document = service().spec();
        let paths: Vec<&str> = document.lines().filter(|line| line.starts_with("    \"/")).collect();
        let distinct: std::collections::BTreeSet<_> = paths.iter().collect();
        assert_eq!(paths.len(), distinct.len(), "{paths:#?}");
        let parsed: Value = serde_json::from_str(&document).expect("JSON");
        assert_eq!(parsed["paths"].as_object().map(serde_json::Map::len), Some(paths.len()));
    }

    #[test]
    fn what_is_taken_and_nothing_more_is_in_the_document() {
        let document: Value = serde_json::from_str(&document()).expect("JSON");
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        for name in TAKEN {
            assert_eq!((&schemas[name]["type"], &schemas[name]["additionalProperties"]), (&"object".into(), &false.into()), "{name}");
        }
    }

    #[test]
    fn every_example_is_taken() {
        let example = |name| EXAMPLES.iter().find(|(of, _)| *of == name).map(|(_, example)| *example).expect("an example");
        serde_json::from_str::<start::StartRequest>(example("StartRequest")).expect("a start");
        serde_json::from_str::<start::BatchRequest>(example("BatchRequest")).expect("a batch");
        serde_json::from_str::<workflows::WorkflowSource>(example("WorkflowSource")).expect("a source");
    }

    #[test]
    fn every_operation_has_an_id_needs_the_token_and_says_what_may_go_wrong() {
        let document: Value = serde_json::from_str(&document()).expect("JSON");
        for (path, operations) in document["paths"].as_object().expect("paths") {
            for (method, operation) in operations.as_object().expect("operations") {
                assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{method} {path}");
                assert!(operation["security"][0]["token"].is_array(), "{method} {path}");
                let answers = operation["responses"].as_object().expect("responses");
                for status in ["401", "500", "503"] {
                    let problem = &answers[status]["content"]["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(problem, "#/components/schemas/Problem", "{method} {path} {status}");
                }
            }
        }
    }
}
