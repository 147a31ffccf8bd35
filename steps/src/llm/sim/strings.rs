//! Texts for string fields: by format and pattern, by what the field's name asks for, else sentences of the prompt.

use super::{
    dice::Dice,
    extract,
    facts::{Facts, first_date},
    material::material,
    pattern,
};
use krowoc_engine::definition::Schema;
use serde_json::{Map, Value};

/// What a text is for.
pub(super) struct Place<'a> {
    /// The words of the field's name.
    pub(super) words: &'a [String],
    /// Which item of a list, so that items differ.
    pub(super) nth: usize,
    /// Inside a list, where the rows of a table are meant.
    pub(super) listed: bool,
}

/// A text for a string schema.
pub(super) fn string(schema: &Map<String, Value>, place: &Place<'_>, facts: &Facts<'_>, dice: &mut Dice) -> Option<String> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64).map(|n| n as usize);
    let (least, most) = (bound("minLength").unwrap_or(0), bound("maxLength").unwrap_or(usize::MAX));
    if least > most {
        return None;
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        let whole = Schema::compile(&Value::Object(schema.clone())).ok();
        let found = by_name(place, facts, dice).filter(|text| whole.is_some_and(|s| s.check(&Value::from(text.as_str())).is_empty()));
        if found.is_some() {
            return found;
        }
        let fits = |text: &String| (least..=most).contains(&text.chars().count());
        return (0..32).find_map(|_| pattern::matching(pattern, dice).filter(fits));
    }
    if let Some(text) = schema.get("format").and_then(Value::as_str).and_then(|format| formatted(format, place, facts, dice)) {
        return Some(text);
    }
    let text = by_name(place, facts, dice).unwrap_or_else(|| prose(place, facts));
    Some(fit(text, least, most))
}

fn formatted(format: &str, place: &Place<'_>, facts: &Facts<'_>, dice: &mut Dice) -> Option<String> {
    let number = dice.below(1_000);
    Some(match format {
        "date" => date(place, facts, dice),
        "date-time" => format!("{}T12:00:00Z", date(place, facts, dice)),
        "time" => "12:00:00Z".into(),
        "duration" => "PT1H".into(),
        "email" | "idn-email" => nth(&facts.emails, place).map_or_else(|| format!("person{number}@example.com"), |e| (*e).into()),
        "uri" | "iri" | "url" | "uri-reference" | "iri-reference" => {
            nth(&facts.urls, place).map_or_else(|| format!("https://example.com/{number}"), |u| (*u).into())
        }
        "uuid" => {
            let (a, b) = (dice.roll(), dice.roll());
            format!("{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}", a >> 32, a >> 16 & 0xffff, a & 0xfff, b >> 52, b & 0xffff_ffff_ffff)
        }
        "ipv4" => format!("192.0.2.{}", number % 256),
        "ipv6" => format!("2001:db8::{number:x}"),
        "hostname" | "idn-hostname" => format!("host{number}.example.com"),
        "json-pointer" => "/value".into(),
        "regex" => "^.*$".into(),
        _ => return None,
    })
}

fn by_name(place: &Place<'_>, facts: &Facts<'_>, dice: &mut Dice) -> Option<String> {
    let has = |names: &[&str]| place.words.iter().any(|word| names.contains(&word.as_str()));
    let last = |names: &[&str]| place.words.last().is_some_and(|word| names.contains(&word.as_str()));
    if let Some(cell) = place.listed.then(|| facts.cell(place.words, place.nth)).flatten() {
        return Some(cell.into());
    }
    let labelled = (place.nth == 0 && !place.words.is_empty()).then(|| facts.labelled(place.words)).flatten();
    if has(&["date", "deadline", "day", "birthday"]) || last(&["due", "on", "at"]) {
        return Some(labelled.and_then(first_date).unwrap_or_else(|| date(place, facts, dice)));
    }
    if has(&["currency"]) {
        return Some(facts.currency.unwrap_or("EUR").into());
    }
    if has(&["email", "mail"]) {
        return nth(&facts.emails, place).map(|e| (*e).into()).or_else(|| Some("person@example.com".into()));
    }
    if has(&["url", "uri", "link", "website"]) {
        return nth(&facts.urls, place).map(|u| (*u).into()).or_else(|| Some("https://example.com/".into()));
    }
    if let Some(value) = labelled {
        return Some(value.into());
    }
    if has(&["company", "vendor", "supplier", "seller", "organisation", "organization", "merchant", "issuer", "employer"]) {
        return nth(&facts.organisations, place).or_else(|| nth(&facts.names, place)).cloned();
    }
    if has(&["customer", "client", "buyer", "name", "person", "author", "contact", "sender", "recipient"]) {
        let other = nth(&facts.names, place).or_else(|| facts.organisations.get(1)).or_else(|| facts.organisations.first());
        return Some(other.cloned().unwrap_or_else(|| format!("Name {}", place.nth + 1)));
    }
    if has(&["number", "id", "reference", "ref", "code", "sku", "key"]) {
        return Some(nth(&facts.identifiers, place).map_or_else(|| format!("ID-{:04}", dice.below(10_000)), |id| (*id).into()));
    }
    if has(&["language", "locale", "lang"]) {
        return Some("en".into());
    }
    if has(&["title", "subject", "headline", "heading"]) {
        let line = material(facts.text).lines().map(str::trim).find(|line| line.len() > 3)?;
        return Some(fit(line.trim_start_matches(['#', '*', ' ']).into(), 0, 80));
    }
    None
}

/// Sentences of the prompt: several where the name asks for a text, else one.
fn prose(place: &Place<'_>, facts: &Facts<'_>) -> String {
    const LONG: [&str; 9] = ["summary", "text", "answer", "reply", "draft", "body", "message", "report", "description"];
    if place.words.iter().any(|word| LONG.contains(&word.as_str())) {
        return extract::summary(facts.text, 500);
    }
    let best = extract::nth_best(facts.text, place.nth);
    best.unwrap_or_else(|| format!("simulated {} {}", place.words.join(" "), place.nth + 1).replace("  ", " "))
}

fn date(place: &Place<'_>, facts: &Facts<'_>, dice: &mut Dice) -> String {
    let later = place.words.iter().any(|word| matches!(word.as_str(), "due" | "deadline" | "end" | "expires"));
    let found = if later { facts.dates.iter().max() } else { nth(&facts.dates, place) };
    found.cloned().unwrap_or_else(|| format!("2025-{:02}-{:02}", 1 + dice.below(12), 1 + dice.below(28)))
}

fn nth<'f, T>(found: &'f [T], place: &Place<'_>) -> Option<&'f T> {
    found.get(place.nth % found.len().max(1))
}

/// Cuts at a word where there is one, and fills up.
fn fit(mut text: String, least: usize, most: usize) -> String {
    if let Some((cut, _)) = text.char_indices().nth(most) {
        let word = text[..cut].rfind(' ').filter(|at| text[..*at].chars().count() >= least.max(most / 2));
        text.truncate(word.unwrap_or(cut));
    }
    let filler = " simulated";
    let mut missing = least.saturating_sub(text.chars().count());
    while missing > 0 {
        let more = missing.min(filler.len());
        text.push_str(&filler[..more]);
        missing -= more;
    }
    text
}
