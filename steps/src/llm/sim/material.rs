//! Which part of a prompt is what it is about: a model told to summarize a text gives sentences of that text, not of what it was told.

use std::sync::LazyLock;

/// Texts are set apart between two of these.
const FENCES: [&str; 3] = ["```", "\"\"\"", "~~~"];
/// What is set apart is the material if it is so much of the prompt; less is a sample inside of one.
const SHARE: usize = 3;

/// An instruction to a model begins with one of these…
const BEGINS: &str = "analyse analyze answer classify compare create describe draft explain extract generate give identify list please \
    produce rate read reply respond return review rewrite say summarise summarize tell translate write";
/// …and goes on with these.
const GOES_ON: &str =
    "add be begin choose copy do don't ensure find focus include keep leave make name never only output pick quote sort use";
/// Roles, said before anything else.
const ROLES: [&str; 4] = ["you are a ", "you are an ", "your task ", "your job "];

static WORDS: LazyLock<[Vec<&str>; 2]> = LazyLock::new(|| [BEGINS, GOES_ON].map(|words| words.split(' ').collect()));

/// The material of a prompt: what it sets apart by fences or tags, else what is left without the instructions and the label in front of it,
/// and without instructions behind it. A prompt of nothing but instructions is its own material.
pub(super) fn material(prompt: &str) -> &str {
    let apart = fenced(prompt).chain(tagged(prompt)).max_by_key(|text| text.len());
    if let Some(apart) = apart.filter(|text| text.len() * SHARE >= prompt.len()) {
        return apart.trim();
    }
    let text = without_beginning(prompt);
    let text = match text.trim_end().rsplit_once("\n\n") {
        Some((before, end)) if instructs(end, false) && !before.trim().is_empty() => before,
        _ => text,
    };
    if text.trim().is_empty() { prompt } else { text.trim() }
}

fn fenced(prompt: &str) -> impl Iterator<Item = &str> {
    FENCES.iter().flat_map(|fence| {
        let whole = prompt.matches(fence).count() / 2;
        let blocks = prompt.split(fence).skip(1).step_by(2).take(whole);
        // The rest of a fence's line names a language.
        blocks.map(|block| block.split_once('\n').map_or(block, |(line, inside)| if line.contains(' ') { block } else { inside }))
    })
}

/// Tags that are looked at: each may lead through the whole prompt, and a page of HTML has thousands.
const TAGS: usize = 100;
/// A tag's name is no longer.
const NAME: usize = 40;

/// What stands in `<document>…</document>` and the like.
fn tagged(prompt: &str) -> impl Iterator<Item = &str> {
    let tags = prompt.match_indices('<').filter_map(|(at, _)| {
        let rest = &prompt[at + 1..];
        let end = rest.bytes().take(NAME).position(|b| b == b'>')?;
        let (name, rest) = (&rest[..end], &rest[end + 1..]);
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        plain.then_some((name, rest))
    });
    tags.take(TAGS).filter_map(|(name, rest)| Some(rest.split_once(&format!("</{name}>"))?.0))
}

fn without_beginning(prompt: &str) -> &str {
    let (mut rest, mut instructed) = (prompt.trim_start(), false);
    loop {
        let (sentence, after) = rest.split_at(end_of_sentence(rest));
        let label = sentence.ends_with(':') && after.starts_with('\n') && sentence.split_whitespace().count() <= 4;
        if sentence.is_empty() || !(label || instructs(sentence, instructed)) {
            return rest;
        }
        instructed = true;
        rest = after.trim_start();
    }
}

/// Behind `.`, `!`, `?` or `:` before a space, or before an empty line.
fn end_of_sentence(text: &str) -> usize {
    let ends = text.match_indices(['.', '!', '?', ':', '\n']).find_map(|(at, mark)| match mark {
        "\n" => text[at + 1..].trim_start_matches([' ', '\t', '\r']).starts_with('\n').then_some(at),
        _ => text[at + 1..].starts_with(char::is_whitespace).then_some(at + 1),
    });
    ends.unwrap_or(text.len())
}

fn instructs(sentence: &str, instructed: bool) -> bool {
    let start: String = sentence.trim_start().chars().take(16).flat_map(char::to_lowercase).collect();
    let word = start.split(|c: char| !(c.is_alphanumeric() || c == '\'')).next().unwrap_or_default();
    let [begins, goes_on] = &*WORDS;
    begins.contains(&word) || instructed && goes_on.contains(&word) || ROLES.iter().any(|role| start.starts_with(role))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = "Call Ada. Book the room.";

    #[test]
    fn the_material_is_found_wherever_a_prompt_puts_it() {
        for prompt in [
            NOTE.to_owned(),
            format!("Summarize the note below in one sentence, and list what has to be done,\none entry for each thing.\n\n{NOTE}\n"),
            format!("You are a clerk. Summarize this. Use no more than ten words. Never add anything.\n\nThe note:\n\n{NOTE}"),
            format!("Summarize in one sentence: {NOTE}"),
            format!("{NOTE}\n\nSummarize the note above."),
            format!("Read this.\n```text\n{NOTE}\n```\nThen it ends."),
            format!("It is a note that came in today: \"\"\"{NOTE}\"\"\""),
            format!("A note came in.\n<note>\n{NOTE}\n</note>\nWhat is it about?"),
        ] {
            assert_eq!(material(&prompt), NOTE, "{prompt}");
        }
    }

    #[test]
    fn what_is_no_instruction_stays() {
        for text in [
            "Summarize something.",
            "You may copy the work. Keep the notice.",
            "Subject: Export fails\n\nHello,\nit fails.",
            "Use the oven. Add the flour.\n\nA cake has many parts, and a list of them is long:\n```\nflour\n```\nThat is all there is to say of it here.",
            "a <b> c",
            "",
        ] {
            assert_eq!(material(text), text);
        }
    }
}
