//! The content hash of a workflow version.

use super::PromptVersion;
use serde_json::Value;
use std::collections::BTreeMap;

/// blake3 over definition and prompts, the members of every mapping sorted by name.
pub(super) fn digest(definition: &Value, prompts: &BTreeMap<String, PromptVersion>) -> Result<[u8; 32], serde_json::Error> {
    let mut text = String::from("{\"definition\":");
    write(definition, &mut text);
    text.push_str(",\"prompts\":");
    write(&serde_json::to_value(prompts)?, &mut text);
    text.push('}');
    Ok(*blake3::hash(text.as_bytes()).as_bytes())
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (i, (name, value)) in members.into_iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write(value, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.to_string()),
    }
}
