//! What applies to a step that does not say otherwise: the file's `defaults`, then the engine's own (docs/language.md).

use super::pointer;
use serde_json::{Map, Value, json};

/// Three attempts, 1 s doubling to 60 s, full jitter; only what may pass by itself is tried again. What calls nothing outside comes to
/// the same each time, so it has one attempt.
fn retry(attempts: u16) -> Value {
    json!({
        "attempts": attempts,
        "backoff": {"kind": "exponential", "initial": "1s", "max": "60s", "jitter": "full"},
        "errors": ["timeout", "network", "overloaded", "server_error", "schema_invalid"],
        "on_lost": "retry"
    })
}

/// Nothing outside may hold a step for ever. Ten minutes is past what hosted models take for their longest answers.
const ATTEMPT_TIMEOUT: &str = "10m";
/// Where steps go that name no queue.
const QUEUE: &str = "default";

/// Starts each step's configuration from the file's `defaults` for its kind: the step's own keys win.
pub(super) fn merge_kinds(definition: &mut Value) {
    let shared: Map<String, Value> = match definition.get("defaults") {
        Some(Value::Object(all)) => {
            all.iter().filter(|(key, value)| !matches!(key.as_str(), "timeout" | "retry") && value.is_object()).map(own).collect()
        }
        _ => return,
    };
    if let (false, Some(Value::Object(steps))) = (shared.is_empty(), definition.get_mut("steps")) {
        merge_frame(steps, &shared);
    }
}

fn own((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

fn merge_frame(steps: &mut Map<String, Value>, shared: &Map<String, Value>) {
    for step in steps.values_mut().filter_map(Value::as_object_mut) {
        for (kind, start) in shared {
            if let (Some(Value::Object(config)), Value::Object(start)) = (step.get_mut(kind), start) {
                for (key, value) in start.iter().filter(|(key, _)| !config.contains_key(*key)).map(own).collect::<Vec<_>>() {
                    config.insert(key, value);
                }
            }
        }
        if let Some(Value::Object(body)) = step.get_mut("map").and_then(|m| m.get_mut("steps")) {
            merge_frame(body, shared);
        }
    }
}

/// Writes into a step what it leaves out.
pub(super) fn fill(step: &mut Map<String, Value>, kind: &str, calls_out: bool, shared: &Value) {
    step.entry("join").or_insert_with(|| "all_succeeded".into());
    step.entry("allow_failure").or_insert(false.into());
    step.entry("queue").or_insert_with(|| QUEUE.into());
    if kind == "map" {
        if let Some(Value::Object(map)) = step.get_mut("map") {
            map.entry("as").or_insert_with(|| "item".into());
            map.entry("tolerate").or_insert(0.into());
        }
        return;
    }
    if kind == "wait" {
        return;
    }
    let applies = |key: &str| if calls_out { shared.get(key) } else { None };
    let (attempts, timeout) = if calls_out { (3, json!({"attempt": ATTEMPT_TIMEOUT})) } else { (1, json!({})) };
    for (key, start) in [("retry", retry(attempts)), ("timeout", timeout)] {
        let mut whole = start;
        for layer in [applies(key), step.get(key)].into_iter().flatten() {
            overlay(&mut whole, layer);
        }
        step.insert(key.into(), whole);
    }
}

/// Puts a layer over a value: mappings member by member, anything else replaces what was there.
fn overlay(below: &mut Value, layer: &Value) {
    match (below, layer) {
        (Value::Object(below), Value::Object(layer)) => {
            for (key, value) in layer {
                overlay(below.entry(key.as_str()).or_insert(Value::Null), value);
            }
        }
        (below, layer) => *below = layer.clone(),
    }
}

/// Where a pointer into the effective definition stands in the file: in the step itself, or in `defaults`.
pub(super) fn origin(file: &Value, at: &str) -> String {
    if pointer::exists(file, at) {
        return at.into();
    }
    let cuts = at.match_indices('/').map(|(i, _)| i).skip(1);
    for cut in cuts {
        let (step, rest) = at.split_at(cut);
        if pointer::exists(file, step) && step.starts_with("/steps/") {
            let shared = format!("/defaults{rest}");
            if rest.matches('/').count() > 1 && pointer::exists(file, &shared) {
                return shared;
            }
        }
    }
    at.into()
}
