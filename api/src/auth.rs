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
    known: Mutex<Known>,
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
    pub async fn stored(engine: Engine) -> krowoc_engine::Result<Self> {
        let scope = Caller::with_token().0;
        let known = Mutex::new(Known::read(&engine, &scope).await?);
        Ok(Self(Arc::new(Source::Stored(Box::new(Stored { engine, scope, known })))))
    }

    /// Who has this token.
    pub async fn check(&self, token: &str) -> Result<Caller, Said> {
        let given = Hash::from(hash(token));
        // blake3's hashes are compared in constant time.
        let fits = match &*self.0 {
            Source::Given(hash) => *hash == given,
            Source::Stored(stored) => stored.fits(given).await,
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

impl Stored {
    /// Is it the hash of the token? Asks the database again when that is due.
    async fn fits(&self, given: Hash) -> bool {
        let mut known = self.known.lock().await;
        let age = known.read.elapsed();
        if age > FRESH || (age > AGAIN && known.hash != Some(given)) {
            match tokio::time::timeout(AGAIN, Known::read(&self.engine, &self.scope)).await {
                Ok(Ok(read)) => *known = read,
                // What was known goes on counting, and nobody who waits here asks again: there is nothing to be had anyway.
                Ok(Err(error)) => known.keep(&error),
                Err(_) => known.keep(&"no answer in time"),
            }
        }
        known.hash == Some(given)
    }
}

impl Known {
    async fn read(engine: &Engine, scope: &Scope) -> krowoc_engine::Result<Self> {
        let hash = api_tokens::hash(&mut *engine.pool().acquire().await?, scope.workspace).await?;
        Ok(Self { hash: hash.map(Hash::from), read: Instant::now() })
    }

    fn keep(&mut self, error: &dyn std::fmt::Display) {
        tracing::warn!(%error, "the token's hash could not be read again");
        self.read = Instant::now();
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
    use krowoc_engine::{
        commands::{make_api_token, renew_api_token},
        executor::StepKinds,
        testing::TestDatabase,
    };
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

    #[tokio::test(flavor = "multi_thread")]
    async fn a_renewed_token_counts_soon_and_one_that_is_known_while_the_database_is_away() {
        let url = krowoc_postgres::testing::cluster().expect("a server");
        let database = TestDatabase::create(&url).await.expect("a database");
        let engine = database.engine(StepKinds::new()).await.expect("an engine");
        let scope = Scope::local("test");
        let conn = || async { engine.pool().acquire().await.expect("a connection") };
        assert!(make_api_token(&mut *conn().await, &scope, &hash("old")).await.expect("made"));
        assert!(!make_api_token(&mut *conn().await, &scope, &hash("other")).await.expect("there is one"));
        let guard = Guard::stored(engine.clone()).await.expect("read");
        assert!(guard.check("old").await.is_ok() && guard.check("other").await.is_err());
        renew_api_token(&mut *conn().await, &scope, &hash("new")).await.expect("renewed");
        let until = Instant::now() + Duration::from_secs(60);
        while guard.check("new").await.is_err() {
            assert!(Instant::now() < until, "the new token is never taken");
            tokio::task::yield_now().await;
        }
        assert!(guard.check("old").await.is_err());
        engine.pool().close().await;
        // Long enough for the hash to be read again, which goes wrong.
        let until = Instant::now() + FRESH + AGAIN;
        while Instant::now() < until {
            assert!(guard.check("new").await.is_ok() && guard.check("old").await.is_err());
            tokio::time::sleep(AGAIN / 2).await;
        }
        database.drop_database().await.expect("dropped");
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
