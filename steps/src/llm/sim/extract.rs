//! Extractive text: the sentences of a text that say most about it, in their own order.

use crate::json;
use serde_json::Value;
use std::{borrow::Cow, collections::HashMap};

/// So many sentences make a summary…
const SENTENCES: usize = 4;
/// …of at most so many characters, unless the first is longer.
const CHARACTERS: usize = 700;
/// Shorter sentences are headings and fragments; longer ones are tables and lists that no full stop ends.
const WORDS: std::ops::RangeInclusive<usize> = 5..=60;

const STOP_WORDS: [&str; 64] = [
    "about", "after", "also", "been", "before", "being", "between", "both", "but", "can", "could", "does", "each", "for", "from", "had",
    "has", "have", "here", "into", "its", "itself", "may", "more", "most", "must", "not", "only", "other", "our", "over", "shall",
    "should", "some", "such", "than", "that", "the", "their", "them", "then", "there", "these", "they", "this", "those", "under", "upon",
    "was", "were", "what", "when", "where", "which", "while", "who", "will", "with", "would", "you", "your", "and", "are", "any",
];

/// A prompt's text as prose: where most of it is a JSON document, the texts in that document.
pub(super) fn readable(text: &str) -> Cow<'_, str> {
    let Some(start) = text.find(['{', '[']) else { return Cow::Borrowed(text) };
    let mended = json::mend_surrogates(&text[start..]);
    let mut documents = serde_json::Deserializer::from_str(&mended).into_iter::<Value>();
    let Some(Ok(value)) = documents.next() else { return Cow::Borrowed(text) };
    if documents.byte_offset() * 2 < text.len() {
        return Cow::Borrowed(text);
    }
    let mut prose = String::new();
    collect(&value, "", &mut prose);
    Cow::Owned(prose)
}

/// Sentences go as they are; shorter values keep their keys, so that they can be found by name.
fn collect(value: &Value, key: &str, prose: &mut String) {
    match value {
        Value::String(text) if key.is_empty() || text.len() > 60 => prose.push_str(&format!("{text}\n\n")),
        Value::String(text) => prose.push_str(&format!("{key}: {text}\n")),
        Value::Number(number) if !key.is_empty() => prose.push_str(&format!("{key}: {number}\n")),
        Value::Array(items) => items.iter().for_each(|item| collect(item, "", prose)),
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| collect(value, key, prose));
            prose.push('\n');
        }
        _ => {}
    }
}

/// The text's best sentences within `limit` characters, joined; at least something for any text with words.
pub(super) fn summary(text: &str, limit: usize) -> String {
    let best = best(text, SENTENCES, CHARACTERS.min(limit));
    if best.is_empty() { text.split_whitespace().take(40).collect::<Vec<_>>().join(" ") } else { best.join(" ") }
}

/// Up to `count` of the text's best sentences that fit into `limit` characters together, in the order of the text.
pub(super) fn best(text: &str, count: usize, limit: usize) -> Vec<String> {
    let sentences = sentences(text);
    let mut frequency = HashMap::<String, u32>::new();
    for word in sentences.iter().flat_map(|s| words(s)) {
        *frequency.entry(word).or_default() += 1;
    }
    let mut order: Vec<(f64, usize)> =
        sentences.iter().enumerate().map(|(at, sentence)| (score(sentence, at, sentences.len(), &frequency), at)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut chosen: Vec<usize> = Vec::new();
    let mut used = 0;
    for (_, at) in order {
        let length = sentences[at].chars().count() + 1;
        let repeats = chosen.iter().any(|other| sentences[*other] == sentences[at]);
        if chosen.len() < count && used + length <= limit.saturating_add(1) && !repeats {
            used += length;
            chosen.push(at);
        }
    }
    chosen.sort_unstable();
    chosen.into_iter().map(|at| sentences[at].clone()).collect()
}

/// Frequent words count by their logarithm, so that one theme does not take all; long sentences gain little by their length; the
/// beginning of a text says more than its middle.
fn score(sentence: &str, at: usize, of: usize, frequency: &HashMap<String, u32>) -> f64 {
    let words = words(sentence);
    if words.is_empty() {
        return 0.0;
    }
    let weight: f64 = words.iter().map(|word| f64::from(*frequency.get(word).unwrap_or(&1)).ln_1p()).sum();
    let early = 1.0 + 0.2 * (1.0 - at as f64 / of as f64);
    weight / (words.len() as f64).powf(0.7) * early
}

fn words(sentence: &str) -> Vec<String> {
    let words = sentence.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().count() > 2).map(str::to_lowercase);
    words.filter(|word| !STOP_WORDS.contains(&word.as_str())).collect()
}

/// Sentences of a text: paragraphs end them, and `.`, `!`, `?` before a space and no lower-case letter.
pub(super) fn sentences(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for paragraph in paragraphs(text) {
        let mut start = 0;
        let mut characters = paragraph.char_indices().peekable();
        while let Some((at, c)) = characters.next() {
            let end = at + c.len_utf8();
            let mut after = paragraph[end..].chars();
            let ends = matches!(c, '.' | '!' | '?')
                && after.next().is_none_or(char::is_whitespace)
                && after.next().is_none_or(|c| !c.is_lowercase())
                && !is_abbreviation(&paragraph[start..end]);
            if ends || characters.peek().is_none() {
                let sentence = paragraph[start..end].trim();
                let complete = sentence.ends_with(['.', '!', '?', '"', '”', ')']);
                // A text that was cut in pieces begins in the middle of a sentence.
                let begins = !sentence.starts_with(char::is_lowercase);
                if begins && complete && WORDS.contains(&sentence.split(' ').count()) {
                    found.push(sentence.to_owned());
                }
                start = end;
            }
        }
    }
    found
}

fn is_abbreviation(text: &str) -> bool {
    let last = text.rsplit(' ').next().unwrap_or_default();
    matches!(last, "e.g." | "i.e." | "Mr." | "Mrs." | "Ms." | "Dr." | "No." | "Nr." | "St." | "vs." | "Inc." | "Ltd." | "Co." | "cf.")
        || (last.len() == 2 && last.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Blocks between empty lines, each on one line; list items stand alone.
fn paragraphs(text: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        let line = line.trim();
        let item = line.starts_with(['-', '*', '#', '|']);
        if line.is_empty() || item || blocks.last().is_some_and(|b| b.starts_with('#')) {
            blocks.push(String::new());
        }
        if let Some(block) = blocks.last_mut() {
            if !block.is_empty() {
                block.push(' ');
            }
            let mut words = line.trim_start_matches(['-', '*', ' ']).split_whitespace();
            if let Some(first) = words.next() {
                block.push_str(first);
            }
            for word in words {
                block.push(' ');
                block.push_str(word);
            }
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Summarize:\n\n# Heading\nThe licence protects the freedom of all users of the software. Copies of the software may be \
        sold, e.g. on a disk, or given away.\n\nIt rained on Tuesday in the north of Scotland. The users of the software keep the freedom \
        to change the software, and the licence says so.\n- Every copy of the software must carry the licence.\n- short one.";

    #[test]
    fn sentences_are_whole_and_headings_are_none() {
        let found = sentences(TEXT);
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found[1].starts_with("Copies") && found[1].ends_with("away."));
        assert!(found[4].starts_with("Every copy"));
    }

    #[test]
    fn the_sentences_about_the_texts_theme_are_chosen_in_their_order() {
        let chosen = best(TEXT, 2, 1_000);
        assert_eq!(chosen.len(), 2);
        assert!(chosen.iter().all(|s| s.contains("software")), "{chosen:#?}");
        let at = |s: &String| TEXT.find(&s[..10]).expect("a sentence of the text");
        assert!(at(&chosen[0]) < at(&chosen[1]));
        assert!(!summary(TEXT, 1_000).contains("rained"));
    }

    #[test]
    fn a_summary_keeps_its_limit_and_is_never_empty_for_words() {
        assert!(summary(TEXT, 80).len() <= 80);
        assert_eq!(summary("two words", 1_000), "two words");
        assert_eq!(summary("", 1_000), "");
    }

    #[test]
    fn a_json_document_in_the_prompt_reads_as_prose() {
        let text = format!("Join:\n{}", serde_json::json!([{"text": "One.\nTwo three four five six.", "model": "m"}]));
        assert_eq!(readable(&text), "text: One.\nTwo three four five six.\nmodel: m\n\n");
        assert_eq!(readable("a {b} c"), "a {b} c");
    }
}
