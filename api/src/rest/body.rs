//! Bodies, both ways, by serde: JSON inside them stays the text it is (see [`Json`](crate::views::Json)).

use crate::problem::{Code, Said};
use poem::{IntoResponse, Request, RequestBody, Response, Result, error::ReadBodyError, http::header};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ApiResponse, ExtractParamOptions,
    payload::Payload,
    registry::{MetaMediaType, MetaRequest, MetaResponse, MetaResponses, MetaSchemaRef, Registry},
    types::Type,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{io, time::Duration};

/// A body that takes longer to arrive is given up: its connection and its place among the requests are needed.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

/// A JSON body.
pub struct Body<T>(pub T);

impl<T: Type> Payload for Body<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn check_content_type(content_type: &str) -> bool {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(Self::CONTENT_TYPE)
    }

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Serialize + Send> IntoResponse for Body<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => bytes.with_content_type("application/json").with_header(header::CACHE_CONTROL, "no-store").into_response(),
            Err(error) => poem::Error::from(Said::fault().cause(error)).into_response(),
        }
    }
}

impl<T: Type + Serialize> ApiResponse for Body<T> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType { content_type: Self::CONTENT_TYPE, schema: T::schema_ref() }],
                headers: vec![],
            }],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<'a, T: Type + DeserializeOwned> ApiExtractor<'a> for Body<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content = MetaMediaType { content_type: Self::CONTENT_TYPE, schema: T::schema_ref() };
        Some(MetaRequest { description: None, content: vec![content], required: true })
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        if !request.content_type().is_some_and(Self::check_content_type) {
            return Err(Said::new(Code::UnsupportedMediaType, "the body must be of the type application/json").into());
        }
        let bytes = read(body).await?;
        let read = serde_json::from_slice(&bytes).map_err(|error| Said::new(Code::InvalidJson, error.to_string()))?;
        Ok(Self(read))
    }
}

async fn read(body: &mut RequestBody) -> Result<Vec<u8>, Said> {
    let body = body.take().map_err(|error| Said::fault().cause(error))?;
    match tokio::time::timeout(ARRIVES_WITHIN, body.into_vec()).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(ReadBodyError::Io(error))) if error.kind() == io::ErrorKind::FileTooLarge => {
            Err(Said::new(Code::TooLarge, error.to_string()))
        }
        Ok(Err(error)) => Err(Said::new(Code::BadRequest, format!("the body could not be read: {error}"))),
        Err(_) => Err(Said::new(Code::RequestTimeout, format!("the body did not arrive within {} s", ARRIVES_WITHIN.as_secs()))),
    }
}
