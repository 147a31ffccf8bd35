//! URLs as messages show them: queries and userinfos hold credentials and stay out.

use crate::json;
use reqwest::Url;

/// So much of a text that is no URL is shown.
const EXCERPT: usize = 200;

/// Scheme, host and port.
pub(crate) fn place(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Scheme, host, port and path.
pub(crate) fn shown(url: &Url) -> String {
    format!("{}{}", place(url), url.path())
}

/// The same of what may be no URL. In such a text an `@` may end a password of any characters, so nothing before the last is shown.
pub(crate) fn shown_text(text: &str) -> String {
    let (scheme, rest) = text.find("://").map_or(("", text), |at| text.split_at(at + 3));
    let rest = rest.rsplit_once('@').map_or(rest.to_owned(), |(_, place)| format!("***@{place}"));
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    json::excerpt(&format!("{scheme}{}", &rest[..end]), EXCERPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_query_nor_userinfo_is_shown() {
        let url = "https://ada:hunter2@example.com:81/a/@b?key=1#c".parse().expect("a URL");
        assert_eq!(shown(&url), "https://example.com:81/a/@b");
        assert_eq!(place(&url), "https://example.com:81");
        for (text, expected) in [
            ("/items?key=1", "/items"),
            ("example.com/items#c", "example.com/items"),
            ("https://exa mple/?key=1", "https://exa mple/"),
            ("https://ada:hunt?er#2@example.com:port/a?key=1", "https://***@example.com:port/a"),
            ("ada:hunter2@example.com", "***@example.com"),
        ] {
            assert_eq!(shown_text(text), expected);
        }
    }
}
