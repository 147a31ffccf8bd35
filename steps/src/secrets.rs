//! What one exchange must not show: servers echo what they were sent, in errors and in answers. Text is masked first and cut
//! afterwards, since a cut through a credential would hide it from the mask and show most of it.

use crate::{
    Secret, json,
    secret::{MASK, SHORTEST},
};
use serde_json::Value;

/// The credentials of an exchange.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets(Vec<Secret>);

impl FromIterator<Secret> for Secrets {
    fn from_iter<T: IntoIterator<Item = Secret>>(secrets: T) -> Self {
        Self(secrets.into_iter().collect())
    }
}

impl Secrets {
    /// `text` without them.
    pub(crate) fn mask(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| secret.mask(&text))
    }

    /// A value without them, in names and strings. Numbers keep their type, which later steps rely on.
    pub(crate) fn mask_json(&self, value: &mut Value) {
        if self.0.is_empty() {
            return;
        }
        match value {
            Value::String(text) => *text = self.mask(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_json(item)),
            Value::Object(map) => {
                *map = std::mem::take(map).into_iter().map(|(name, value)| (self.mask(&name), value)).collect();
                map.values_mut().for_each(|value| self.mask_json(value));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// The first characters of `text`, without them.
    pub(crate) fn excerpt(&self, text: &str, characters: usize) -> String {
        json::excerpt(&self.without_tail(self.mask(text)), characters)
    }

    /// A text that was cut on its way may end with the greater part of a secret.
    fn without_tail(&self, mut text: String) -> String {
        for secret in self.0.iter().map(Secret::expose) {
            let mut starts = secret.char_indices().rev().map(|(end, _)| &secret[..end]).take_while(|start| start.len() >= SHORTEST);
            if let Some(start) = starts.find(|start| text.ends_with(start)) {
                text.truncate(text.len() - start.len());
                text.push_str(MASK);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secrets() -> Secrets {
        [Secret::new("Bearer tok/0123456789"), Secret::new("tok/0123456789")].into_iter().collect()
    }

    #[test]
    fn a_secret_across_the_cut_of_an_excerpt_is_masked() {
        for before in 480..=500 {
            let excerpt = secrets().excerpt(&format!("{}tok/0123456789 and more", "x".repeat(before)), 500);
            assert!(!excerpt.contains("tok"), "{excerpt}");
        }
        assert_eq!(secrets().excerpt("refused: Bearer tok/01234567", 500), "refused: ***", "the server cut it");
        assert_eq!(secrets().excerpt("refused: tok/012", 500), "refused: tok/012", "too little of it to be one");
    }

    #[test]
    fn names_and_strings_of_json_are_masked_however_deep_and_numbers_stay() {
        let mut value = json!({"a": [{"tok/0123456789": "is Bearer tok/0123456789."}], "inner": r#"{"t":"tok\/0123456789"}"#, "n": 7});
        secrets().mask_json(&mut value);
        assert_eq!(value, json!({"a": [{"***": "is ***."}], "inner": r#"{"t":"***"}"#, "n": 7}));
    }
}
