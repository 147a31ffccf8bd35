//! "Did you mean …?": the nearest of the names that would have been right.

/// The candidate that `name` is most likely a slip of; none if all are far off. Equal distances: the first candidate.
pub(crate) fn suggest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    // One slip for each three characters: more, and a suggestion is a guess. A single letter is no slip of another.
    let length = wanted.chars().count();
    let allowed = (length / 3).max(1).min(length.saturating_sub(1));
    candidates
        .into_iter()
        .filter(|candidate| *candidate != name)
        .map(|candidate| (strsim::osa_distance(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `x`?", or else the first few of what there is.
pub fn advise(name: &str, what: &str, candidates: &[&str]) -> Option<String> {
    const LISTED: usize = 12;
    if let Some(near) = suggest(name, candidates.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let listed: Vec<String> = candidates.iter().take(LISTED).map(|c| format!("`{c}`")).collect();
    let more = if candidates.len() > LISTED { ", …" } else { "" };
    (!listed.is_empty()).then(|| format!("{what}: {}{more}", listed.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let names = ["classify", "split", "fetch", "Review"];
        for (name, expected) in [
            ("clasify", Some("classify")),
            ("clssaify", Some("classify")),
            ("splt", Some("split")),
            ("review", Some("Review")),
            ("fetch", None),
            ("summarize", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(suggest(name, names), expected, "{name}");
        }
    }

    #[test]
    fn without_a_near_name_what_there_is_is_listed() {
        assert_eq!(advise("splt", "there are", &["split"]).as_deref(), Some("did you mean `split`?"));
        assert_eq!(advise("zzzz", "there are", &["a", "b"]).as_deref(), Some("there are: `a`, `b`"));
        assert_eq!(advise("zzzz", "there are", &[]), None);
    }
}
