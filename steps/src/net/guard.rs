//! Keeps workflow files from reaching into the worker's own network (server-side request forgery). An address is judged where it
//! is used: literal addresses before each hop, names by what they resolve to at the moment of connecting, so that a name which
//! changes its mind between check and use gains nothing.

use krowoc_engine::{ErrorClass, executor::StepError};
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Which addresses may be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    allow_private: bool,
}

/// A refusal; found again below reqwest's errors by its type.
#[derive(Debug)]
pub(super) struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl Guard {
    /// `allow_private`: everything may be reached.
    pub(crate) fn new(allow_private: bool) -> Self {
        Self { allow_private }
    }

    /// Judges a URL before it is called: its scheme, and its host if that is an address.
    pub(crate) fn check(&self, url: &Url) -> Result<(), StepError> {
        let refuse = |message: String| Err(StepError::new(ErrorClass::InvalidRequest, message));
        if !matches!(url.scheme(), "http" | "https") {
            return refuse(format!("`{}` URLs are not supported; use http or https", url.scheme()));
        }
        let Some(host) = url.host_str() else { return refuse("the URL has no host".into()) };
        let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() else { return Ok(()) };
        match self.verdict(ip) {
            Some(kind) => refuse(refusal(host, kind)),
            None => Ok(()),
        }
    }

    fn verdict(&self, ip: IpAddr) -> Option<&'static str> {
        if self.allow_private {
            return None;
        }
        match ip {
            IpAddr::V4(ip) => special_v4(ip),
            IpAddr::V6(ip) => special_v6(ip),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = *self;
        Box::pin(async move {
            let host = name.as_str();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.iter().copied().filter(|a| guard.verdict(a.ip()).is_none()).collect();
            match (allowed.is_empty(), found.iter().find_map(|a| guard.verdict(a.ip()))) {
                (true, Some(kind)) => Err(Refused(refusal(host, kind)).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

fn refusal(host: &str, kind: &str) -> String {
    format!(
        "`{host}` is a {kind} address, which http steps may not reach; the worker's configuration can allow private addresses (`KROWOC_HTTP_ALLOW_PRIVATE=true`)"
    )
}

/// What is special about an address, by the IANA special-purpose registries.
fn special_v4(ip: Ipv4Addr) -> Option<&'static str> {
    match ip.octets() {
        [0, ..] => Some("this-host"),
        [127, ..] => Some("loopback"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("private"),
        [169, 254, ..] => Some("link-local"),
        [100, 64..=127, ..] => Some("carrier-private"),
        [192, 0, 0 | 2, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => Some("reserved"),
        [224..=239, ..] => Some("multicast"),
        [240..=255, ..] => Some("reserved"),
        _ => None,
    }
}

fn special_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let embedded = |high: u16, low: u16| special_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("this-host"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        // IPv4 in IPv6: mapped, compatible, NAT64, 6to4.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        [0x64, 0xff9b, 1, ..] => Some("private"),
        [0x2001, 0, ..] | [0x2001, 0xdb8, ..] | [0x100, 0, 0, 0, ..] => Some("reserved"),
        [0xfc00..=0xfdff, ..] => Some("private"),
        [0xfe80..=0xfebf, ..] => Some("link-local"),
        [0xfec0..=0xfeff, ..] => Some("private"),
        [0xff00..=0xffff, ..] => Some("multicast"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_are_refused_in_every_spelling() {
        let guard = Guard::new(false);
        for host in [
            "127.0.0.1",
            "127.9.9.9",
            "2130706433",
            "0x7f.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.100.100.200",
            "224.0.0.1",
            "255.255.255.255",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::7f00:1]",
            "[64:ff9b::10.0.0.1]",
            "[2002:7f00:1::]",
            "[fd00:ec2::254]",
            "[fe80::1]",
            "[ff02::1]",
        ] {
            let url: Url = format!("http://{host}/").parse().expect(host);
            assert!(guard.check(&url).is_err(), "{host} must be refused");
            assert!(Guard::new(true).check(&url).is_ok(), "{host} must be allowed when configured");
        }
        for host in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "[2606:4700::1111]", "[::ffff:8.8.8.8]", "example.com"] {
            let url: Url = format!("https://{host}/").parse().expect(host);
            assert!(guard.check(&url).is_ok(), "{host} must be allowed");
        }
        assert!(Guard::new(true).check(&"file:///etc/passwd".parse().expect("URL")).is_err());
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let name = || "localhost".parse::<Name>().expect("name");
        let refused = Guard::new(false).resolve(name()).await.err().expect("localhost is loopback");
        assert!(refused.downcast_ref::<Refused>().is_some(), "{refused}");
        assert!(Guard::new(true).resolve(name()).await.is_ok());
    }
}
