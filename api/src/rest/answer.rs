//! Refusals, and how the document speaks of them: each operation names the reasons it may have.

use crate::problem::{self, Problem, Said};
use poem_openapi::{
    ApiResponse,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::Type,
};

/// 400: a parameter or a body that can't be understood.
pub const BAD: u8 = 1;
/// 404: what is named is not there.
pub const MISSING: u8 = 2;
/// 409: the state of things does not allow it.
pub const CONFLICT: u8 = 4;
/// 408, 413 and 415: what may be wrong with a body, whatever is in it.
pub const BODY: u8 = 8;
/// 422: what was sent is understood and not valid.
pub const INVALID: u8 = 16;

/// Why a request was refused. 401, 500 and 503 are always possible.
pub struct Refused<const WHY: u8>(Said);

impl<const WHY: u8, E: Into<Said>> From<E> for Refused<WHY> {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl<const WHY: u8> From<Refused<WHY>> for poem::Error {
    fn from(refused: Refused<WHY>) -> Self {
        refused.0.into()
    }
}

impl<const WHY: u8> ApiResponse for Refused<WHY> {
    fn meta() -> MetaResponses {
        let reasons: [(u8, &[(u16, &'static str)]); 6] = [
            (BAD, &[(400, "A parameter or the body can't be understood.")]),
            (0, &[(401, "The token is missing or wrong.")]),
            (MISSING, &[(404, "What is named is not there.")]),
            (CONFLICT, &[(409, "The state of things does not allow it; nothing was changed.")]),
            (
                BODY,
                &[
                    (408, "The body did not arrive in time."),
                    (413, "The body is too large."),
                    (415, "The body is of a type that is not accepted."),
                ],
            ),
            (INVALID, &[(422, "What was sent is not valid; nothing was changed.")]),
        ];
        let always = [(500, "A fault of the server."), (503, "The database is away, or too many requests are under way.")];
        let named = reasons.into_iter().filter(|(why, _)| WHY & why == *why).flat_map(|(_, answers)| answers.iter().copied());
        MetaResponses { responses: named.chain(always).map(|(status, description)| response(status, description)).collect() }
    }

    fn register(registry: &mut Registry) {
        Problem::register(registry);
    }
}

fn response(status: u16, description: &'static str) -> MetaResponse {
    MetaResponse {
        description,
        status: Some(status),
        status_range: None,
        content: vec![MetaMediaType { content_type: problem::CONTENT_TYPE, schema: Problem::schema_ref() }],
        headers: vec![],
    }
}
