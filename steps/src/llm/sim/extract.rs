//! Extractive text: the sentences of a text that say most about it, in their own order.

use super::material::material;
use crate::json;
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
};

/// So many sentences make a summary…
const SENTENCES: usize = 4;
/// …of at most so many characters, unless the first is longer.
const CHARACTERS: usize = 700;
/// Shorter sentences are headings and fragments; longer ones are tables and lists that no full stop ends.
const WORDS: RangeInclusive<usize> = 5..=60;
/// Where there are no others.
const SHORT: RangeInclusive<usize> = 2..=4;

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
    let sentences = candidates(text);
    let (mut chosen, mut used) = (Vec::new(), 0);
    for at in ranked(&sentences) {
        let length = sentences[at].chars().count() + 1;
        if chosen.len() < SENTENCES && used + length <= CHARACTERS.min(limit).saturating_add(1) {
            used += length;
            chosen.push(at);
        }
    }
    chosen.sort_unstable();
    let chosen: Vec<&str> = chosen.into_iter().map(|at| sentences[at].as_str()).collect();
    if chosen.is_empty() { material(text).split_whitespace().take(40).collect::<Vec<_>>().join(" ") } else { chosen.join(" ") }
}

/// The sentence of the text that comes at that place when they are ordered by how much they say.
pub(super) fn nth_best(text: &str, nth: usize) -> Option<String> {
    let mut sentences = candidates(text);
    let at = *ranked(&sentences).get(nth)?;
    Some(sentences.swap_remove(at))
}

/// The sentences of a text's material; a note has none but short ones.
fn candidates(text: &str) -> Vec<String> {
    let text = material(text);
    let found = sentences(text, WORDS);
    if found.is_empty() { sentences(text, SHORT) } else { found }
}

/// The places of the sentences, those that say most first, none twice.
fn ranked(sentences: &[String]) -> Vec<usize> {
    let mut frequency = HashMap::<String, u32>::new();
    for word in sentences.iter().flat_map(|s| words(s)) {
        *frequency.entry(word).or_default() += 1;
    }
    let mut order: Vec<(f64, usize)> =
        sentences.iter().enumerate().map(|(at, sentence)| (score(sentence, at, sentences.len(), &frequency), at)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut seen = HashSet::new();
    order.into_iter().map(|(_, at)| at).filter(|at| seen.insert(sentences[*at].as_str())).collect()
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

/// Sentences of so many words: paragraphs end them, and `.`, `!`, `?` before a space and no lower-case letter.
fn sentences(text: &str, words: RangeInclusive<usize>) -> Vec<String> {
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
                if begins && complete && words.contains(&sentence.split(' ').count()) {
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
        let found = sentences(TEXT, WORDS);
        assert_eq!(found.len(), 5, "{found:#?}");
        assert!(found[1].starts_with("Copies") && found[1].ends_with("away."));
        assert!(found[4].starts_with("Every copy"));
    }

    #[test]
    fn the_sentences_about_the_texts_theme_are_chosen_in_their_order() {
        let best = [0, 1].map(|nth| nth_best(TEXT, nth).expect("a sentence"));
        assert!(best[0] != best[1] && best.iter().all(|s| s.contains("software")), "{best:#?}");
        assert_eq!(nth_best(TEXT, 5), None, "there are five");
        let summary = summary(TEXT, 1_000);
        let places: Vec<usize> = sentences(TEXT, WORDS).iter().filter_map(|s| summary.find(s.as_str())).collect();
        assert!(places.len() == SENTENCES && places.is_sorted() && !summary.contains("rained"), "{summary}");
    }

    #[test]
    fn a_prompts_instructions_are_not_summarized() {
        let prompt = "Summarize the note below in one sentence, and list what has to be done, one entry for each thing.\n\n";
        assert_eq!(summary(&format!("{prompt}Call Ada. Book the room."), 1_000), "Call Ada. Book the room.");
        assert_eq!(summary(&format!("{prompt}milk, bread"), 1_000), "milk, bread");
        assert!(!summary(&format!("{prompt}{TEXT}"), 1_000).contains("note below"));
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
