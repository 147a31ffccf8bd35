//! What every operation takes first: who calls, and whether the parameters are those that the operation has. A filter that is misspelled would
//! otherwise do nothing, and nobody would notice.

use super::{routes::Routes, wrong};
use crate::{Caller, problem::Said};
use krowoc_engine::Scope;
use poem::{FromRequest, PathPattern, Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaSecurityScheme, Registry},
};
use std::sync::Arc;

/// A call of an operation.
pub struct Call(Caller);

impl Call {
    /// What the operation is confined to.
    pub fn scope(&self) -> &Scope {
        self.0.scope()
    }
}

const SCHEME: &str = "token";
/// Headers that would count as absent where they can't be read: a start that is not idempotent though its caller believes it.
const ONCE: [&str; 2] = ["Idempotency-Key", "Last-Event-ID"];

impl<'a> ApiExtractor<'a> for Call {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        let scheme = MetaSecurityScheme {
            ty: "http",
            description: Some(
                "The token that the first start shows once, that `KROWOC_API_TOKEN` names, or that `krowoc token renew` makes.",
            ),
            name: None,
            key_in: None,
            scheme: Some("bearer"),
            bearer_format: None,
            flows: None,
            openid_connect_url: None,
        };
        registry.create_security_scheme(SCHEME, scheme);
    }

    fn security_schemes() -> Vec<&'static str> {
        vec![SCHEME]
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let caller = <Caller as FromRequest>::from_request(request, body).await?;
        let known = request.data::<Arc<Routes>>().zip(request.data::<PathPattern>());
        let (routes, pattern) = known.ok_or_else(|| Said::fault().cause("an operation outside the routes"))?;
        for name in ONCE {
            let mut values = request.headers().get_all(name).iter();
            let readable = values.next().is_none_or(|value| value.to_str().is_ok());
            if !readable || values.next().is_some() {
                return Err(wrong(name, "it is to be given once, in printable ASCII").into());
            }
        }
        let given: Vec<(String, String)> = request.params().map_err(|error| wrong("query", error))?;
        routes.check_query(&pattern.0, request.method(), given.iter().map(|(name, _)| name.as_str()))?;
        Ok(Self(caller))
    }
}
