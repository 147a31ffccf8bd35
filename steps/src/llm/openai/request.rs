//! The request on the wire.

use super::{Dialect, strict};
use crate::llm::{config::own_option, model::Request};
use krowoc_engine::{ErrorClass, executor::StepError};
use serde_json::{Map, Value, json};

/// What is sent, and what must be undone in the answer.
pub(super) struct Wire {
    /// The body.
    pub(super) json: Vec<u8>,
    /// The schema was wrapped in `{"value": …}`, since the wire format takes only objects.
    pub(super) wrapped: bool,
}

/// The body of a request. `options` win over what the step says, except for what is the step's own.
pub(super) fn body(request: &Request, dialect: Dialect) -> Result<Wire, StepError> {
    if let Some(own) = own_option(&request.options) {
        return Err(StepError::new(ErrorClass::InvalidRequest, format!("`{own}` can't be set by `options`")));
    }
    let mut body = Map::new();
    body.insert("model".into(), request.model.clone().into());
    body.insert("messages".into(), request.messages.iter().map(|m| json!(m)).collect());
    let mut put = |name: &str, value: Option<Value>| value.and_then(|value| body.insert(name.into(), value));
    put("temperature", request.temperature.map(Value::from));
    put("top_p", request.top_p.map(Value::from));
    put("seed", request.seed.map(Value::from));
    put("stop", (!request.stop.is_empty()).then(|| json!(request.stop)));
    let limits = ["max_tokens", "max_completion_tokens"];
    if !limits.iter().any(|name| request.options.contains_key(*name)) {
        let name = if dialect == Dialect::OpenAi { limits[1] } else { limits[0] };
        put(name, request.max_output_tokens.map(Value::from));
    }
    let mut wrapped = false;
    if let Some(schema) = request.output_schema.as_deref().filter(|_| !request.options.contains_key("response_format")) {
        let format = strict::format(schema);
        wrapped = format.wrapped;
        put("response_format", Some(format.json));
    }
    body.extend(request.options.iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(Wire { json: Value::Object(body).to_string().into_bytes(), wrapped })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::config::{Message, Role};
    use std::sync::Arc;

    fn request() -> Request {
        Request {
            model: "gpt-4.1".into(),
            messages: vec![Message { role: Role::User, content: "hi".into() }],
            temperature: Some(0.5),
            max_output_tokens: Some(9),
            top_p: None,
            seed: Some(3),
            stop: vec!["END".into()],
            output_schema: None,
            options: Map::new(),
        }
    }

    fn sent(request: &Request, dialect: Dialect) -> Value {
        serde_json::from_slice(&body(request, dialect).expect("a body").json).expect("JSON")
    }

    #[test]
    fn only_what_the_step_says_is_sent() {
        let expected = json!({
            "model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}], "temperature": 0.5, "seed": 3, "stop": ["END"],
            "max_completion_tokens": 9,
        });
        assert_eq!(sent(&request(), Dialect::OpenAi), expected);
        assert_eq!(sent(&request(), Dialect::Compatible)["max_tokens"], 9);
    }

    #[test]
    fn options_win_except_over_what_is_the_steps_own() {
        let mut request = request();
        request.output_schema = Some(Arc::new(json!({"type": "object"})));
        let options = json!({"temperature": 1, "max_tokens": 5, "response_format": {"type": "json_object"}, "x": [1]});
        request.options = serde_json::from_value(options).expect("a map");
        let body_sent = sent(&request, Dialect::OpenAi);
        assert_eq!(body_sent["temperature"], 1);
        assert_eq!((&body_sent["max_tokens"], body_sent.get("max_completion_tokens")), (&json!(5), None));
        assert_eq!(body_sent["response_format"], json!({"type": "json_object"}));
        assert_eq!(body_sent["x"], json!([1]));
        request.options.insert("stream".into(), true.into());
        assert_eq!(body(&request, Dialect::OpenAi).err().expect("stream is the step's own").class, ErrorClass::InvalidRequest);
    }
}
