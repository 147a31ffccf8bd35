//! Where the `openai` provider is.

use super::Dialect;
use crate::net::{shown, shown_text};
use reqwest::Url;
use std::{fmt, str::FromStr};

const OPENAI: &str = "api.openai.com";

/// The base URL of a server that speaks Chat Completions (`http://localhost:11434/v1`): http or https, with a host. OpenAI's own by
/// default. `Debug` and `Display` show neither userinfo nor query.
#[derive(Clone, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// Where requests go.
    pub(super) fn endpoint(&self) -> Url {
        let mut url = self.0.clone();
        url.set_fragment(None);
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["chat", "completions"]);
        }
        url
    }

    /// OpenAI's at its own host and at those of its regions (`eu.api.openai.com`), whatever the path says.
    pub(super) fn dialect(&self) -> Dialect {
        let prefix = self.0.host_str().and_then(|host| host.strip_suffix(OPENAI));
        if prefix.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.')) { Dialect::OpenAi } else { Dialect::Compatible }
    }

    /// Is the server on this machine?
    pub(super) fn is_local(&self) -> bool {
        self.0.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"))
    }
}

impl Default for BaseUrl {
    fn default() -> Self {
        Self(format!("https://{OPENAI}/v1").parse().expect("a URL"))
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    /// Fails with what is wrong and what to write. `localhost:11434/v1` is a URL to the letter, of the scheme `localhost`.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().trim_end_matches('/');
        let example = "expected one such as http://localhost:11434/v1";
        match text.parse::<Url>() {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(Self(url)),
            Err(e) if text.starts_with("http://") || text.starts_with("https://") => {
                Err(format!("`{}` is no URL ({e}); {example}", shown_text(text)))
            }
            _ if text.contains("://") => Err(format!("`{}` is no http or https URL; {example}", shown_text(text))),
            _ => Err(format!("`{}` has no http:// or https:// in front; {example}", shown_text(text))),
        }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.0))
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(text: &str) -> BaseUrl {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn the_dialect_is_that_of_the_host() {
        for text in
            ["https://api.openai.com/v1", "https://api.openai.com", "https://eu.api.openai.com/v1/", "HTTPS://API.OpenAI.com:443/v1"]
        {
            assert_eq!(base(text).dialect(), Dialect::OpenAi, "{text}");
        }
        for text in [
            "http://localhost:11434/v1",
            "https://api.openai.com.evil.test/v1",
            "https://myapi.openai.com/v1",
            "https://x.test/api.openai.com",
        ] {
            assert_eq!(base(text).dialect(), Dialect::Compatible, "{text}");
        }
        assert_eq!(BaseUrl::default(), base("https://api.openai.com/v1"));
    }

    #[test]
    fn the_endpoint_is_below_the_base_and_keeps_its_query() {
        for (text, endpoint) in [
            (" http://localhost:11434/v1// ", "http://localhost:11434/v1/chat/completions"),
            ("https://x.test", "https://x.test/chat/completions"),
            ("https://x.test/d/?api-version=1#a", "https://x.test/d/chat/completions?api-version=1"),
        ] {
            assert_eq!(base(text).endpoint().as_str(), endpoint);
        }
    }

    #[test]
    fn what_is_no_base_url_is_refused_with_the_fix_and_shows_no_secret() {
        for (text, fix) in [
            ("localhost:11434/v1", "http:// or https:// in front"),
            ("192.168.1.5:8080/v1", "http:// or https:// in front"),
            ("/v1", "http:// or https:// in front"),
            ("ftp://x.test/v1", "http or https"),
            ("http://x.test:port/v1", "port"),
            ("https://", "http://localhost:11434/v1"),
            ("ada:hunter2@x.test/v1?key=hunter2", "`***@x.test/v1`"),
        ] {
            let problem = text.parse::<BaseUrl>().expect_err(text);
            assert!(problem.contains(fix) && !problem.contains("hunter2"), "{text}: {problem}");
        }
        assert_eq!(format!("{0} {0:?}", base("http://ada:hunter2@x.test/v1?key=1")), "http://x.test/v1 http://x.test/v1");
    }
}
