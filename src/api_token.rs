//! The token of the API: made once, shown once, kept nowhere but where its owner keeps it.

use crate::output;
use anyhow::Context;
use krowoc_api::auth::{Guard, hash};
use krowoc_engine::{Engine, Scope, commands};
use krowoc_steps::Secret;

/// Random bytes of a token.
const BYTES: usize = 32;

/// Who knows the token: the configuration's, or the one whose hash the database has. The first to ask makes that one, and is given it.
pub async fn guard(engine: &Engine, given: Option<&Secret>) -> anyhow::Result<(Guard, Option<String>)> {
    if let Some(token) = given {
        return Ok((Guard::given(hash(token.expose())), None));
    }
    let token = fresh()?;
    let made = commands::make_api_token(&mut *engine.pool().acquire().await?, &Scope::local("serve"), &hash(&token)).await?;
    Ok((Guard::stored(engine.clone()).await?, made.then_some(token)))
}

/// Replaces the token that the database has the hash of.
pub async fn renew(engine: &Engine) -> anyhow::Result<String> {
    let token = fresh()?;
    commands::renew_api_token(&mut *engine.pool().acquire().await?, &Scope::local("cli"), &hash(&token)).await?;
    Ok(token)
}

/// Shows a new one, on standard output: no log has it.
pub fn show(token: impl AsRef<str>) -> std::io::Result<()> {
    output::line(format!("Token       {}\n            shown this once; `krowoc token renew` makes another", token.as_ref()))
}

fn fresh() -> anyhow::Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    Ok(bytes.iter().fold("krw_".to_owned(), |token, byte| token + &format!("{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_no_two_are_the_same() {
        let (one, other) = (fresh().expect("random"), fresh().expect("random"));
        assert_ne!(one, other);
        assert!(one.starts_with("krw_") && one.len() == 4 + 2 * BYTES, "{one}");
    }
}
