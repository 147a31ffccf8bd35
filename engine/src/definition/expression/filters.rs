//! The filters that minijinja lacks, and those of its own that would write values as Python does.

use super::{
    language::invalid,
    limits::{MAX_DEPTH, weigh},
    value::{Room, append_text, to_json},
};
use minijinja::{Environment, Error, State, Value, value::Kwargs};

/// Adds them.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter("json", json);
    environment.add_filter("tojson", json);
    environment.add_filter("string", string);
    environment.add_filter("join", join);
    environment.add_filter("from_json", from_json);
    environment.add_filter("chunks", |state: &State, text: &str, size: usize| {
        // Finding a cut takes longer than an instruction does; the text itself was charged when it was handed in.
        let parts = chunks(text, size, || state.consume_fuel(4))?;
        Ok::<_, Error>(Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>()))
    });
    environment.add_filter("words", |text: &str| text.split_whitespace().count());
    environment.add_filter("slug", slug);
}

/// One for the call, and one for each 64 bytes, as minijinja counts.
fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(1 + bytes as u64 / 64)
}

/// Compact JSON, not made safe for HTML.
fn json(state: &State, value: &Value) -> Result<String, Error> {
    let text = to_json(value, &mut Room::new()).map_err(invalid)?.to_string();
    pay(state, text.len())?;
    Ok(text)
}

/// As in a text: strings as they are, other values as JSON.
fn string(state: &State, value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    append_text(&mut text, value, &mut Room::new()).map_err(invalid)?;
    pay(state, text.len())?;
    Ok(text)
}

/// `~`
pub(super) fn concat(state: &State, left: &Value, right: &Value) -> Result<String, Error> {
    let mut room = Room::new();
    let mut text = String::new();
    append_text(&mut text, left, &mut room).map_err(invalid)?;
    append_text(&mut text, right, &mut room).map_err(invalid)?;
    pay(state, text.len())?;
    Ok(text)
}

/// The items of a list as text, with `joiner` between them.
fn join(state: &State, list: &Value, joiner: Option<&str>, kwargs: Kwargs) -> Result<String, Error> {
    let attribute: Option<&str> = kwargs.get("attribute")?;
    kwargs.assert_all_used()?;
    let mut room = Room::new();
    let mut text = String::new();
    let items = list.try_iter().map_err(|_| invalid(format!("`join` needs a list, this is {}", super::value::type_name(list))))?;
    for (number, item) in items.enumerate() {
        // Visited and turned into text.
        state.consume_fuel(2)?;
        if number > 0
            && let Some(joiner) = joiner
        {
            room.take(joiner.len()).map_err(invalid)?;
            text.push_str(joiner);
        }
        let item = match attribute {
            Some(path) => path.split('.').try_fold(item, |value, key| value.get_item(&key_of(key)))?,
            None => item,
        };
        append_text(&mut text, &item, &mut room).map_err(|why| invalid(format!("`join`, item {number}: {why}")))?;
    }
    pay(state, text.len())?;
    Ok(text)
}

fn key_of(key: &str) -> Value {
    key.parse::<u32>().map_or_else(|_| Value::from(key), Value::from)
}

/// Parses JSON text.
fn from_json(state: &State, text: &str) -> Result<Value, Error> {
    pay(state, text.len())?;
    let value: Value = serde_json::from_str(text).map_err(|e| invalid(format!("`from_json`: this is no JSON: {e}")))?;
    weigh(state, &value).map_err(|_| invalid(format!("`from_json`: the value is too large or nested more than {MAX_DEPTH} deep")))?;
    Ok(value)
}

/// Lower case, with everything but letters and digits turned to single hyphens.
fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// Cuts a text into parts of at most `size` characters: at the end of a paragraph where one is in the last three quarters of the
/// part, or else of a line, a sentence, a word, or else in the middle. White space at the cuts is dropped; an empty text has no parts.
/// `charge` is called for each part.
fn chunks(text: &str, size: usize, mut charge: impl FnMut() -> Result<(), Error>) -> Result<Vec<&str>, Error> {
    if size == 0 {
        return Err(invalid("`chunks` needs a size of at least 1".into()));
    }
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        charge()?;
        let Some((end, _)) = rest.char_indices().nth(size) else {
            parts.push(rest);
            break;
        };
        let cut = cut(&rest[..end], &rest[end..]);
        parts.push(rest[..cut].trim_end());
        rest = rest[cut..].trim_start();
    }
    Ok(parts)
}

/// Where to end a part that may hold `window`, with `after` behind it.
fn cut(window: &str, after: &str) -> usize {
    let floor = window.len() / 4;
    let late = |at: Option<usize>| at.filter(|at| *at > floor);
    let ends_sentence = |(at, c): &(usize, char)| {
        c.is_whitespace()
            && window[..*at].trim_end_matches(['"', '\'', ')', '”', '’', '»']).ends_with(['.', '!', '?', '…', '。', '！', '？'])
    };
    let sentence = || window.char_indices().rfind(ends_sentence).map(|(at, _)| at);
    let word = || if after.starts_with(char::is_whitespace) { Some(window.len()) } else { window.rfind(char::is_whitespace) };
    late(window.rfind("\n\n"))
        .or_else(|| late(window.rfind('\n')))
        .or_else(|| late(sentence()))
        .or_else(|| word().filter(|at| *at > 0))
        .unwrap_or(window.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_cut_where_a_reader_would() {
        for (text, size, parts) in [
            ("", 10, vec![]),
            ("  \n ", 10, vec![]),
            ("short", 10, vec!["short"]),
            ("one two three", 8, vec!["one two", "three"]),
            ("one two", 3, vec!["one", "two"]),
            ("abcdefgh", 3, vec!["abc", "def", "gh"]),
            ("First one. Second one. Third", 24, vec!["First one. Second one.", "Third"]),
            ("He said \"no.\" And left now", 20, vec!["He said \"no.\"", "And left now"]),
            ("para one\n\npara two. more", 20, vec!["para one", "para two. more"]),
            ("line one\nline two is", 12, vec!["line one", "line two is"]),
            ("äöü äöü", 4, vec!["äöü", "äöü"]),
        ] {
            assert_eq!(chunks(text, size, || Ok(())).expect("parts"), parts, "{text:?} {size}");
        }
        assert!(chunks("a", 0, || Ok(())).is_err());
    }

    #[test]
    fn slugs_are_lower_case_words_with_hyphens() {
        for (text, expected) in [("Hello, World!", "hello-world"), ("  a--b ", "a-b"), ("Ärger 2", "ärger-2"), ("!!", "")] {
            assert_eq!(slug(text), expected);
        }
    }

    proptest! {
        #[test]
        fn chunks_fit_and_lose_only_white_space(text in "[a-z .!?\n\"äß漢]{0,200}", size in 1usize..40) {
            let parts = chunks(&text, size, || Ok(())).expect("parts");
            let bare = |s: &str| s.split_whitespace().collect::<String>();
            prop_assert_eq!(bare(&parts.concat()), bare(&text));
            for part in parts {
                prop_assert!(!part.is_empty() && part.chars().count() <= size);
            }
        }
    }
}
