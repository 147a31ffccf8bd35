//! The error class of a status, and of a request that never got one (docs/language.md).

use super::{client::chain, guard::Refused};
use krowoc_engine::{ErrorClass, executor::StepError};
use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};

/// The class of an unwelcome status. The body tells an overloaded 503 from a broken one.
pub(crate) fn class_of(status: StatusCode, headers: &HeaderMap, body: &str) -> ErrorClass {
    match status.as_u16() {
        401 | 403 | 407 => ErrorClass::Auth,
        402 => ErrorClass::QuotaExhausted,
        429 => ErrorClass::RateLimited,
        529 => ErrorClass::Overloaded,
        503 if headers.contains_key(RETRY_AFTER) || says_overloaded(body) => ErrorClass::Overloaded,
        408 | 409 | 500..=599 => ErrorClass::ServerError,
        413 => ErrorClass::TooLarge,
        _ => ErrorClass::InvalidRequest,
    }
}

fn says_overloaded(body: &str) -> bool {
    let body = body.to_ascii_lowercase();
    ["overload", "capacity", "slow down", "slow_down", "busy", "too many requests"].iter().any(|word| body.contains(word))
}

/// A request to a place that brought no whole answer: refused by the guard, timed out, or cut.
pub(crate) fn transport(error: reqwest::Error, place: &str) -> StepError {
    if error.is_builder() {
        return unsendable(error);
    }
    let error = error.without_url();
    if let Some(refused) = cause::<Refused>(&error) {
        return StepError::new(ErrorClass::InvalidRequest, refused.to_string());
    }
    let (class, what) = if error.is_connect() {
        (ErrorClass::Network, format!("no connection to {place}"))
    } else if error.is_timeout() {
        (ErrorClass::Timeout, format!("no answer from {place} in time"))
    } else {
        (ErrorClass::Network, format!("the connection to {place} broke before the answer was complete"))
    };
    StepError::new(class, format!("{what}: {}", chain(&error)))
}

/// A request that is none.
pub(crate) fn unsendable(error: reqwest::Error) -> StepError {
    StepError::new(ErrorClass::InvalidRequest, format!("the request can't be sent: {}", chain(&error.without_url())))
}

fn cause<E: std::error::Error + 'static>(error: &dyn std::error::Error) -> Option<&E> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_class() {
        use ErrorClass::*;
        for (status, body, class) in [
            (400, "", InvalidRequest),
            (401, "", Auth),
            (402, "", QuotaExhausted),
            (403, "", Auth),
            (404, "", InvalidRequest),
            (408, "", ServerError),
            (409, "", ServerError),
            (413, "", TooLarge),
            (422, "", InvalidRequest),
            (429, "", RateLimited),
            (500, "", ServerError),
            (502, "overloaded", ServerError),
            (503, "", ServerError),
            (503, "The engine is currently overloaded", Overloaded),
            (529, "", Overloaded),
        ] {
            let status = StatusCode::from_u16(status).expect("status");
            assert_eq!(class_of(status, &HeaderMap::new(), body), class, "{status} {body}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "1".parse().expect("header"));
        assert_eq!(class_of(StatusCode::SERVICE_UNAVAILABLE, &headers, ""), Overloaded);
    }
}
