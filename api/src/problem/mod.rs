//! What the API says when something goes wrong: RFC 9457 problem documents with stable codes, and the same as extensions of GraphQL errors.
//! This is the one place that turns an [`Error`] into either; what a driver or a bug says goes to the log and never into an answer.

use crate::{correlation::CorrelationId, views::LocatedProblem};
use krowoc_engine::Error;
use poem::{
    IntoResponse, Response,
    error::ResponseError,
    http::{HeaderValue, StatusCode, Uri, header},
};
use poem_openapi::Object;
use serde::Serialize;
use std::fmt;

mod store;

/// The media type of a problem document.
pub const CONTENT_TYPE: &str = "application/problem+json";
/// Where the codes are explained; a code's heading is its anchor.
const PAGE: &str = "https://github.com/krowoc/krowoc/blob/main/docs/api.md";
/// When to come back, where nobody knows better.
const SOON_S: u32 = 1;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:ident, $title:literal;)+) => {
        /// What went wrong, for programs. The names are stable; docs/api.md lists them.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Code {
            $($(#[$doc])* $variant),+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in `code`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// The status of an answer that says so.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$variant => StatusCode::$status),+
                }
            }

            /// The same for people, in a few words.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title),+
                }
            }
        }
    };
}

codes! {
    /// The request can't be understood.
    BadRequest = "bad_request", BAD_REQUEST, "The request can't be understood";
    /// A parameter of path, query or header is not what it has to be.
    InvalidParameter = "invalid_parameter", BAD_REQUEST, "A parameter is not what it has to be";
    /// The body is not JSON, or not of the shape that the operation takes.
    InvalidJson = "invalid_json", BAD_REQUEST, "The body is not the JSON that is expected";
    /// A cursor is none that a page gave, or of another list.
    InvalidCursor = "invalid_cursor", BAD_REQUEST, "The cursor is not from this list";
    /// The token is missing or wrong.
    Unauthorized = "unauthorized", UNAUTHORIZED, "A valid token is needed";
    /// The request names a host that this server is not.
    WrongHost = "wrong_host", MISDIRECTED_REQUEST, "This server does not answer for that host";
    /// The thing named is not there.
    NotFound = "not_found", NOT_FOUND, "There is no such thing";
    /// Nothing is served at this path.
    NoSuchRoute = "no_such_route", NOT_FOUND, "Nothing is served here";
    /// The path is served, but not for this method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// The request did not arrive in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request took too long to arrive";
    /// The thing is not in a state that allows this.
    Conflict = "conflict", CONFLICT, "The state of things does not allow it";
    /// The body is larger than is accepted.
    TooLarge = "too_large", PAYLOAD_TOO_LARGE, "The request is too large";
    /// The body is of a type that is not accepted.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The body's type is not accepted";
    /// What was sent is understood and not valid; `problems` has every reason.
    Invalid = "invalid", UNPROCESSABLE_ENTITY, "What was sent is not valid";
    /// A fault of the server.
    Internal = "internal", INTERNAL_SERVER_ERROR, "A fault of the server";
    /// The database is away.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The database can't be reached";
    /// The database has another schema than this server.
    WrongSchema = "wrong_schema", SERVICE_UNAVAILABLE, "The database has another schema";
    /// The server has as many requests as it takes.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too many requests at once";
}

impl Code {
    /// The URI that identifies the type of problem; it leads to the documentation.
    pub fn uri(self) -> String {
        format!("{PAGE}#{}", self.name())
    }
}

/// A problem document (RFC 9457).
#[derive(Clone, Debug, Serialize, Object)]
#[oai(skip_serializing_if_is_none, skip_serializing_if_is_empty)]
pub struct Problem {
    /// Identifies the type of problem and leads to its documentation.
    #[serde(rename = "type")]
    #[oai(rename = "type")]
    pub uri: String,
    /// The type in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The type for programs; stable.
    pub code: String,
    /// What happened, where, and what to do next.
    pub detail: String,
    /// The path of the request.
    pub instance: String,
    /// Under which the server's log has the request; the answer's `X-Request-Id`.
    pub correlation_id: String,
    /// Every problem of what was sent, where it was not valid.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[oai(default)]
    pub problems: Vec<LocatedProblem>,
}

/// What may be said of an error, and what only the log is told.
#[derive(Clone, Debug)]
pub struct Said {
    /// What went wrong.
    pub code: Code,
    /// What happened, where, and what to do next.
    pub detail: String,
    /// Every problem of what was sent.
    pub problems: Vec<LocatedProblem>,
    /// Of a 405: the methods that are.
    pub allow: Option<String>,
    /// For the log only.
    pub(crate) cause: Option<String>,
}

impl Said {
    /// Says this.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), problems: vec![], allow: None, cause: None }
    }

    /// With what only the log is told.
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// What is said of an error of the engine.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::NotFound { .. } => Self::new(Code::NotFound, error.to_string()),
            Error::Conflict(detail) => Self::new(Code::Conflict, detail),
            Error::Invalid(problems) => {
                Self { problems: problems.iter().map(Into::into).collect(), ..Self::new(Code::Invalid, error.to_string()) }
            }
            Error::Schema(detail) => Self::new(Code::WrongSchema, detail),
            Error::Store(driver) => store::said(driver).cause(error),
            Error::LeaseLost | Error::Internal(_) => Self::fault().cause(error),
        }
    }

    /// What is said of a fault of ours.
    pub(crate) fn fault() -> Self {
        Self::new(Code::Internal, "the server met a fault of its own; its log says more under the correlation id")
    }

    /// Tells the log what the answer leaves out. To be called where the answer is made.
    pub fn log(&self) {
        if let Some(cause) = &self.cause {
            match self.code.status().is_server_error() {
                true => tracing::error!(code = self.code.name(), cause, "a request failed"),
                false => tracing::debug!(code = self.code.name(), cause, "a request was refused"),
            }
        }
    }

    /// The document.
    pub fn document(self, id: &CorrelationId, instance: &Uri) -> Problem {
        Problem {
            uri: self.code.uri(),
            title: self.code.title().into(),
            status: self.code.status().as_u16(),
            code: self.code.name().into(),
            detail: self.detail,
            instance: instance.path().into(),
            correlation_id: id.as_str().into(),
            problems: self.problems,
        }
    }

    /// The answer.
    pub fn response(self, id: &CorrelationId, instance: &Uri) -> Response {
        self.log();
        let (code, allow) = (self.code, self.allow.clone());
        let document = self.document(id, instance);
        // Strings and numbers only: it can't fail.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = body.with_content_type(CONTENT_TYPE).with_status(code.status()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match code {
            Code::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"krowoc\""));
            }
            Code::Unavailable | Code::Overloaded => {
                headers.insert(header::RETRY_AFTER, SOON_S.into());
            }
            _ => {}
        }
        if let Some(allow) = allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }

    /// The same as extensions of a GraphQL error; [`Said::log`] is the caller's to call.
    pub fn extensions(&self, id: &CorrelationId) -> async_graphql::ErrorExtensionValues {
        let mut extensions = async_graphql::ErrorExtensionValues::default();
        extensions.set("code", self.code.name());
        extensions.set("correlationId", id.as_str());
        if let Ok(problems) = async_graphql::to_value(&self.problems)
            && !self.problems.is_empty()
        {
            extensions.set("problems", problems);
        }
        extensions
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Said {}

impl ResponseError for Said {
    fn status(&self) -> StatusCode {
        self.code.status()
    }
}

impl From<Error> for Said {
    fn from(error: Error) -> Self {
        Self::of(&error)
    }
}

impl From<sqlx::Error> for Said {
    fn from(error: sqlx::Error) -> Self {
        Self::of(&error.into())
    }
}

/// What is said of an error that poem or a handler has raised.
pub(crate) fn of_poem(error: &poem::Error) -> Said {
    use poem::error as raised;
    use poem_openapi::error as openapi;
    if let Some(said) = error.downcast_ref::<Said>() {
        return said.clone();
    }
    if error.is::<raised::NotFoundError>() {
        return Said::new(Code::NoSuchRoute, "nothing is served at this path; /api/v1/docs shows what there is");
    }
    if let Some(openapi::ParsePathError { name, reason }) = error.downcast_ref() {
        return parameter(name, reason);
    }
    if let Some(openapi::ParseParamError { name, reason }) = error.downcast_ref() {
        return parameter(name, reason);
    }
    let detail = error.to_string();
    match error.status() {
        StatusCode::BAD_REQUEST => Said::new(Code::BadRequest, detail),
        StatusCode::NOT_FOUND => Said::new(Code::NotFound, detail),
        // Where the document knows better, the error has passed there and says so itself.
        StatusCode::METHOD_NOT_ALLOWED => {
            let said = Said::new(Code::MethodNotAllowed, "the path is served for GET, HEAD, and not for this method");
            Said { allow: Some("GET, HEAD".into()), ..said }
        }
        StatusCode::REQUEST_TIMEOUT => Said::new(Code::RequestTimeout, detail),
        StatusCode::PAYLOAD_TOO_LARGE => Said::new(Code::TooLarge, detail),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Said::new(Code::UnsupportedMediaType, detail),
        status if status.is_client_error() => Said::new(Code::BadRequest, detail),
        _ => Said::fault().cause(detail),
    }
}

fn parameter(name: &str, reason: &str) -> Said {
    Said::new(Code::InvalidParameter, format!("`{name}`: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use krowoc_engine::definition;
    use std::collections::HashSet;

    #[test]
    fn every_code_has_a_name_of_its_own_and_its_place_in_the_guide() {
        let page = include_str!("../../../docs/api.md");
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let (name, status) = (code.name(), code.status().as_u16());
            let place = page.split_once(&format!("\n### {name}\n")).map(|(_, rest)| rest.split("\n### ").next().unwrap_or(rest));
            let text = place.unwrap_or_else(|| panic!("docs/api.md does not explain {name}"));
            assert!(text.contains(&status.to_string()), "docs/api.md does not give the status {status} of {name}");
        }
    }

    #[test]
    fn what_a_driver_or_a_bug_says_is_in_no_answer() {
        let secret = "user `ada` at 10.0.0.7";
        let errors = [
            Error::Internal(secret.into()),
            Error::Store(sqlx::Error::Protocol(secret.into())),
            Error::Store(sqlx::Error::Io(std::io::Error::other(secret))),
        ];
        let codes = errors.iter().map(|error| {
            let said = Said::of(error);
            assert!(said.cause.as_deref().is_some_and(|cause| cause.contains(secret)), "the log is told");
            let code = said.code;
            let document = said.document(&CorrelationId::made(), &Uri::from_static("/x?token=y"));
            assert_eq!(document.instance, "/x", "queries may hold what is nobody's business");
            assert!(!serde_json::to_string(&document).expect("written").contains("ada"));
            code
        });
        assert_eq!(codes.collect::<Vec<_>>(), [Code::Internal, Code::Internal, Code::Unavailable]);
    }

    #[test]
    fn every_problem_of_what_was_sent_is_listed_for_rest_and_graphql() {
        let span = definition::Span { line: 3, column: 5, offset: 20, length: 1 };
        let problem = definition::Problem { span: Some(span), ..definition::Problem::new("unknown_key", "/stps", "unknown key") };
        let said = Said::of(&Error::Invalid(vec![problem.help("did you mean `steps`?")]));
        let id = CorrelationId::made();
        let extensions = serde_json::to_value(said.extensions(&id)).expect("written");
        assert_eq!((extensions["code"].as_str(), extensions["correlationId"].as_str()), (Some("invalid"), Some(id.as_str())));
        let document = serde_json::to_value(said.document(&id, &Uri::from_static("/api/v1/workflows"))).expect("written");
        assert_eq!(extensions["problems"], document["problems"]);
        let expected = serde_json::json!([{"code": "unknown_key", "message": "unknown key", "pointer": "/stps", "help": "did you mean `steps`?", "line": 3, "column": 5}]);
        assert_eq!(document["problems"], expected);
        assert_eq!((document["status"].as_u64(), document["code"].as_str()), (Some(422), Some("invalid")));
    }
}
