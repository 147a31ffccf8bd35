//! The items of a map: the list that it goes over, and their keys.

use super::{
    attempt::{done, expression},
    gather,
    pace::Pace,
};
use crate::{
    commands::complete_attempts::{Expansion, Outcome},
    definition::{Bindings, Budget, MapPlan, Step, Template},
    error::ErrorClass,
    executor::StepError,
    payload::Payload,
};
use serde_json::Value;
use std::collections::HashSet;

/// How many items a map may have.
const MAX_ITEMS: usize = 1_000_000;

pub(super) async fn expand(step: &Step, plan: &MapPlan, bindings: &Bindings) -> Result<Outcome, StepError> {
    let unfit = |message: String| StepError::new(ErrorClass::Expression, message);
    let items = match plan.over.render(bindings).map_err(expression)? {
        Value::Array(items) => items,
        other => return Err(unfit(format!("`over` must be a list, not {}", kind_of(&other)))),
    };
    if items.len() > MAX_ITEMS {
        return Err(StepError::new(ErrorClass::TooLarge, format!("a map may have {MAX_ITEMS} items, this one has {}", items.len())));
    }
    if items.is_empty() {
        let output = if plan.collect.is_some() { serde_json::json!([]) } else { gather::counted(0, 0) };
        return done(step, output);
    }
    let items: Vec<String> = items.iter().map(Value::to_string).collect();
    let keys = match &plan.key {
        Some(key) => Some(keys(&plan.item, key, &items, bindings).await?),
        None => None,
    };
    Ok(Outcome::Expanded(Expansion { items, keys }))
}

/// Each item's key, as a JSON string; two items with one key are an error that names both.
async fn keys(name: &str, key: &Template, items: &[String], bindings: &Bindings) -> Result<Vec<String>, StepError> {
    let mut budget = Budget::for_items(items.len());
    let mut pace = Pace::new();
    let mut seen = HashSet::with_capacity(items.len());
    let mut keys = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        pace.rest().await;
        let mut bindings = bindings.clone();
        bindings.item(name, Payload::from_json_text(item.as_str()));
        let rendered = key.render_within(&bindings, &mut budget);
        let key = match rendered.map_err(|error| expression(error.of(format_args!("the key of item {at}"))))? {
            Value::String(text) => text,
            Value::Number(n) => n.to_string(),
            other => {
                return Err(StepError::new(ErrorClass::Expression, format!("the key of item {at} must be text or a number, not {other}")));
            }
        };
        if !seen.insert(key.clone()) {
            return Err(StepError::new(ErrorClass::Expression, format!("two items have the key `{key}`, one of them item {at}")));
        }
        keys.push(Value::String(key).to_string());
    }
    Ok(keys)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    };

    fn template(source: &str) -> Template {
        Template::compile(&json!(source), "/key").expect("a template")
    }

    #[tokio::test]
    async fn many_keys_leave_the_thread_to_others_meanwhile() {
        let heard = Arc::new(AtomicBool::new(false));
        let other = heard.clone();
        // On the only thread there is: it runs where the loop lets it.
        tokio::spawn(async move { other.store(true, Relaxed) });
        let items: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
        let keys = keys("n", &template("${{ 'k' ~ n }}"), &items, &Bindings::default()).await.expect("keys");
        assert_eq!((keys.len(), keys[7].as_str()), (20_000, "\"k7\""));
        assert!(heard.load(Relaxed));
    }

    #[tokio::test]
    async fn a_key_that_would_take_for_ever_fails_and_is_named() {
        let items = ["1".to_owned(), "1000000".to_owned()];
        let error = keys("n", &template("${{ range(n) | list | length }}"), &items, &Bindings::default()).await.expect_err("too dear");
        assert_eq!(error.class, ErrorClass::Expression);
        assert!(error.message.starts_with("the key of item 1: ") && error.message.contains("too much work"), "{error}");
    }
}
