//! Who may ask. One token opens a workspace; the database has its hash, so that any number of processes share it and one that is renewed
//! counts everywhere within seconds. Identities are to come in this place.

use crate::{
    Caller,
    problem::{Code, Said},
};
use blake3::Hash;
use krowoc_engine::{Engine, Scope, queries::api_tokens};
use poem::{Endpoint, Middleware, Request, Result, http::header};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// What keeps hashes of tokens apart from hashes of anything else.
const CONTEXT: &str = "krowoc 2026-11 api token";
/// A hash that was read is good for so long: as long as a token that was renewed may still be used.
const FRESH: Duration = Duration::from_secs(5);
/// A token that does not fit may be a newer one; but guesses must not become statements.
const AGAIN: Duration = Duration::from_secs(1);

/// What is kept of a token. Tokens are long and random, so that nothing slower is needed.
pub fn hash(token: &str) -> [u8; 32] {
    blake3::derive_key(CONTEXT, token.as_bytes())
}

/// Knows the token.
#[derive(Clone)]
pub struct Guard(Arc<Source>);

enum Source {
    /// From the configuration.
    Given(Hash),
    /// From the database.
    Stored(Box<Stored>),
}

struct Stored {
    engine: Engine,
    scope: Scope,
    known: Mutex<Option<Known>>,
}

struct Known {
    hash: Option<Hash>,
    read: Instant,
}

impl Guard {
    /// For the token with this hash, whatever the database says.
    pub fn given(hash: [u8; 32]) -> Self {
        Self(Arc::new(Source::Given(hash.into())))
    }

    /// For the token whose hash the database has.
    pub fn stored(engine: Engine) -> Self {
        Self(Arc::new(Source::Stored(Box::new(Stored { engine, scope: Caller::with_token().0, known: Mutex::default() }))))
    }

    /// Who has this token.
    pub async fn check(&self, token: &str) -> Result<Caller, Said> {
        let given = Hash::from(hash(token));
        // blake3's hashes are compared in constant time.
        let fits = match &*self.0 {
            Source::Given(hash) => *hash == given,
            Source::Stored(stored) => {
                let Stored { engine, scope, known } = &**stored;
                let mut known = known.lock().await;
                let fits = |known: &Option<Known>| known.as_ref().is_some_and(|known| known.hash.is_some_and(|hash| hash == given));
                let age = known.as_ref().map(|known| known.read.elapsed());
                if age.is_none_or(|age| age > FRESH || (age > AGAIN && !fits(&known))) {
                    let read = async { api_tokens::hash(&mut *engine.pool().acquire().await?, scope.workspace).await };
                    *known = Some(Known { hash: read.await?.map(Hash::from), read: Instant::now() });
                }
                fits(&known)
            }
        };
        if fits {
            Ok(Caller::with_token())
        } else {
            Err(Said::new(Code::Unauthorized, "this is not the token; `krowoc token renew` makes a new one"))
        }
    }

    async fn caller(&self, request: &Request) -> Result<Caller, Said> {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        match token {
            Some((_, token)) => self.check(token.trim()).await,
            None => Err(Said::new(Code::Unauthorized, "a token is needed: `Authorization: Bearer TOKEN`")),
        }
    }
}

impl<E: Endpoint> Middleware<E> for Guard {
    type Output = Guarded<E>;

    fn transform(&self, inner: E) -> Guarded<E> {
        Guarded { guard: self.clone(), inner }
    }
}

/// What a [`Guard`] makes of an endpoint: one that is asked only by whoever has the token.
pub struct Guarded<E> {
    guard: Guard,
    inner: E,
}

impl<E: Endpoint> Endpoint for Guarded<E> {
    type Output = E::Output;

    async fn call(&self, mut request: Request) -> Result<E::Output> {
        let caller = self.guard.caller(&request).await?;
        request.set_data(caller);
        self.inner.call(request).await
    }
}

/// Answers for loopback names only: a page on the web that has its own name point to this machine can't reach it.
pub struct LoopbackOnly;

impl<E: Endpoint> Middleware<E> for LoopbackOnly {
    type Output = OnLoopback<E>;

    fn transform(&self, inner: E) -> OnLoopback<E> {
        OnLoopback(inner)
    }
}

/// What [`LoopbackOnly`] makes of an endpoint.
pub struct OnLoopback<E>(E);

impl<E: Endpoint> Endpoint for OnLoopback<E> {
    type Output = E::Output;

    async fn call(&self, request: Request) -> Result<E::Output> {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).or(request.uri().host());
        if !host.is_some_and(is_loopback) {
            return Err(Said::new(Code::WrongHost, "`krowoc dev` answers for localhost, 127.0.0.1 and [::1] only").into());
        }
        self.0.call(request).await
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use poem::{EndpointExt, endpoint::make_sync, http::StatusCode, test::TestClient};

    #[tokio::test]
    async fn only_the_token_opens_and_a_refusal_says_how() {
        let endpoint = make_sync(|request| request.data::<Caller>().is_some().to_string()).with(Guard::given(hash("krw_0123456789abcdef")));
        let client = TestClient::new(endpoint.with(crate::correlation::Correlation));
        for wrong in ["", "krw_0123456789abcdef", "Bearer", "Bearer ", "Bearer krw_0123456789abcdeF", "Basic krw_0123456789abcdef"] {
            let answer = client.get("/").header("authorization", wrong).send().await;
            answer.assert_status(StatusCode::UNAUTHORIZED);
            answer.assert_header("www-authenticate", "Bearer realm=\"krowoc\"");
        }
        client.get("/").send().await.assert_status(StatusCode::UNAUTHORIZED);
        for right in ["Bearer krw_0123456789abcdef", "bearer  krw_0123456789abcdef"] {
            client.get("/").header("authorization", right).send().await.assert_text("true").await;
        }
    }

    #[test]
    fn names_that_only_look_like_loopback_are_none() {
        for host in ["localhost", "LOCALHOST:7070", "127.0.0.1:1", "[::1]:7070", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "localhost.evil.example", "evil.example:7070", "127.0.0.1.nip.io", "localhost:7070:x", "10.0.0.1", "127.0.0.1@x"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
