//! Any JSON, as it was given or produced: inputs, outputs, definitions.

use async_graphql::{InputValueError, InputValueResult, Name, Scalar, ScalarType, Value as GraphqlValue, indexmap::IndexMap};
use krowoc_engine::Payload;
use poem_openapi::{
    registry::{MetaSchema, MetaSchemaRef},
    types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, value::RawValue};
use std::borrow::Cow;

/// The key under which both serde_json and async-graphql pass JSON text on as it is.
const RAW: &str = "$serde_json::private::RawValue";

/// A JSON document of any kind.
///
/// It goes in and out as text, so that numbers of any size, `\u0000` and the order of keys stay as they are. A `Value` would lose them;
/// that is why answers are written by serde ([`Body`](crate::rest::Body)) and not by way of poem-openapi's values.
#[derive(Clone, PartialEq, Debug)]
pub struct Json(pub Payload);

impl From<Payload> for Json {
    fn from(payload: Payload) -> Self {
        Self(payload)
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        Self(value.into())
    }
}

impl Serialize for Json {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Payload::from_outside(raw.get()).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Type for Json {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        "any".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema::ANY))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

/// poem-openapi asks for it where it derives an object; requests are read by serde, which loses nothing.
impl ParseFromJSON for Json {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        Payload::of(&value.unwrap_or_default()).map(Self).map_err(ParseError::custom)
    }
}

/// As above: for defaults and examples in the document.
impl ToJSON for Json {
    fn to_json(&self) -> Option<Value> {
        self.0.parse().ok()
    }
}

/// Any JSON.
#[Scalar(name = "JSON")]
impl ScalarType for Json {
    fn parse(value: GraphqlValue) -> InputValueResult<Self> {
        let text = serde_json::to_string(&value).map_err(InputValueError::custom)?;
        Payload::from_outside(text).map(Self).map_err(InputValueError::custom)
    }

    fn to_value(&self) -> GraphqlValue {
        GraphqlValue::Object(IndexMap::from([(Name::new(RAW), GraphqlValue::String(self.0.as_str().to_owned()))]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Serialize;

    const ODD: &str = r#"{"z":1e400,"a":123456789012345678901234567890,"nul":"\u0000","f":1.0,"$serde_json::private::RawValue":"no"}"#;

    #[derive(Serialize, Deserialize)]
    struct Holder {
        json: Json,
    }

    #[test]
    fn text_stays_as_it_is_through_serde() {
        let text = format!(r#"{{"json":{ODD}}}"#);
        let holder: Holder = serde_json::from_str(&text).expect("read");
        assert_eq!(holder.json.0.as_str(), ODD);
        assert_eq!(serde_json::to_string(&holder).expect("written"), text);
    }

    #[test]
    fn text_stays_as_it_is_in_a_graphql_answer() {
        let value = Json(Payload::from_json_text(ODD)).to_value();
        let answer = async_graphql::Response::new(GraphqlValue::Object(IndexMap::from([(Name::new("json"), value)])));
        assert_eq!(serde_json::to_string(&answer).expect("written"), format!(r#"{{"data":{{"json":{ODD}}}}}"#));
    }
}
