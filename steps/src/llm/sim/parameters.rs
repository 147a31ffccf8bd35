//! `sim/<flavour>?latency=200ms&jitter=50ms&…`: how the simulator behaves.
//!
//! | Flavour | latency | jitter | tokens_per_s | error_rate |
//! |---|---|---|---|---|
//! | `instant` | 0 | 0 | unlimited | 0 |
//! | `fast` | 150ms | 50ms | 250 | 0 |
//! | `slow` | 1500ms | 500ms | 40 | 0 |
//! | `flaky` | 150ms | 50ms | 250 | 0.3 |
//!
//! | Parameter | Meaning |
//! |---|---|
//! | `latency` | time to the first token |
//! | `jitter` | latency varies by so much up and down |
//! | `tokens_per_s` | then the answer takes its tokens divided by this |
//! | `error_rate` | so many of the attempts fail, 0 to 1 |
//! | `fail_first` | attempts 1 to n of a step fail |
//! | `error` | the class of those failures; `overloaded` if left out |
//! | `retry_after` | the wait that those failures name |
//! | `seed` | another seed, other answers |
//!
//! The answer comes whole, when its last token is made; if that is later than the step's idle timeout, the attempt times out.

use super::dice::Dice;
use crate::llm::model::ModelProblem;
use krowoc_engine::{ErrorClass, definition::parse_duration};
use std::time::Duration;

/// What a model's name says.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Parameters {
    pub(super) flavour: &'static str,
    latency: Duration,
    jitter: Duration,
    tokens_per_s: Option<f64>,
    pub(super) error_rate: f64,
    pub(super) error: ErrorClass,
    pub(super) fail_first: u32,
    pub(super) retry_after: Option<Duration>,
    pub(super) seed: u64,
}

const FLAVOURS: [&str; 4] = ["instant", "fast", "slow", "flaky"];
const NAMES: [&str; 8] = ["latency", "jitter", "tokens_per_s", "error_rate", "fail_first", "error", "retry_after", "seed"];
/// Classes that a provider's answer can have.
const ERRORS: [ErrorClass; 12] = [
    ErrorClass::RateLimited,
    ErrorClass::Overloaded,
    ErrorClass::ServerError,
    ErrorClass::Network,
    ErrorClass::Timeout,
    ErrorClass::SchemaInvalid,
    ErrorClass::QuotaExhausted,
    ErrorClass::ContextTooLong,
    ErrorClass::Refused,
    ErrorClass::Auth,
    ErrorClass::InvalidRequest,
    ErrorClass::TooLarge,
];
const LONGEST: Duration = Duration::from_secs(86_400);

impl Parameters {
    /// Reads the part of a model's name after `sim/`.
    pub(super) fn parse(model: &str) -> Result<Self, ModelProblem> {
        let (flavour, query) = model.split_once('?').unwrap_or((model, ""));
        let mut parameters = Self::flavour(flavour)?;
        let mut given: Vec<&str> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            parameters.set(name, value)?;
            if given.contains(&name) {
                return Err(ModelProblem::new("duplicate_parameter", format!("`{name}` is given twice"), "keep one"));
            }
            given.push(name);
        }
        let fails = parameters.error_rate > 0.0 || parameters.fail_first > 0;
        match given.iter().find(|name| ["error", "retry_after"].contains(*name)) {
            Some(name) if !fails => {
                let message = format!("`{name}` does nothing: no attempt is to fail");
                Err(ModelProblem::new("invalid_parameter", message, "add `fail_first=1` or `error_rate=0.1`"))
            }
            _ => Ok(parameters),
        }
    }

    fn flavour(name: &str) -> Result<Self, ModelProblem> {
        let of = |flavour, latency, jitter, tokens_per_s, error_rate| Self {
            flavour,
            latency: Duration::from_millis(latency),
            jitter: Duration::from_millis(jitter),
            tokens_per_s,
            error_rate,
            error: ErrorClass::Overloaded,
            fail_first: 0,
            retry_after: None,
            seed: 0,
        };
        match name {
            "instant" => Ok(of("instant", 0, 0, None, 0.0)),
            "fast" => Ok(of("fast", 150, 50, Some(250.0), 0.0)),
            "slow" => Ok(of("slow", 1_500, 500, Some(40.0), 0.0)),
            "flaky" => Ok(of("flaky", 150, 50, Some(250.0), 0.3)),
            other => Err(ModelProblem::unknown("unknown_model", format!("the simulator has no flavour `{other}`"), other, &FLAVOURS)),
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), ModelProblem> {
        match name {
            "latency" => self.latency = time(name, value)?,
            "jitter" => self.jitter = time(name, value)?,
            "retry_after" => self.retry_after = Some(time(name, value)?),
            "tokens_per_s" => self.tokens_per_s = Some(number(name, value, 0.001..=1e9)?),
            "error_rate" => self.error_rate = number(name, value, 0.0..=1.0)?,
            "fail_first" => self.fail_first = value.parse().map_err(|_| wrong(name, value, "a number of attempts"))?,
            "seed" => self.seed = value.parse().map_err(|_| wrong(name, value, "a whole number from 0"))?,
            "error" => {
                let known = ERRORS.map(ErrorClass::name);
                self.error = ERRORS.into_iter().find(|class| class.name() == value).ok_or_else(|| {
                    ModelProblem::unknown("invalid_parameter", format!("`{value}` is no error of a provider"), value, &known)
                })?;
            }
            other => {
                let message = format!("the simulator has no parameter `{other}`");
                return Err(ModelProblem::unknown("unknown_parameter", message, other, &NAMES));
            }
        }
        Ok(())
    }

    /// Time to the first token.
    pub(super) fn latency(&self, dice: &mut Dice) -> Duration {
        let jitter = self.jitter.as_secs_f64() * (dice.unit() * 2.0 - 1.0);
        Duration::try_from_secs_f64(self.latency.as_secs_f64() + jitter).unwrap_or_default()
    }

    /// Time for the tokens.
    pub(super) fn generation(&self, tokens: u64) -> Duration {
        let seconds = self.tokens_per_s.map_or(0.0, |rate| tokens as f64 / rate);
        Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST)
    }
}

fn time(name: &str, value: &str) -> Result<Duration, ModelProblem> {
    let wanted = "a duration of at most a day, like `200ms` or `2s`";
    // Elsewhere a bare number is of seconds; here `latency=200` is nearly always meant as milliseconds, so it is asked for.
    let unit = value.ends_with(|c: char| c.is_ascii_alphabetic());
    parse_duration(value).ok().filter(|time| unit && *time <= LONGEST).ok_or_else(|| wrong(name, value, wanted))
}

fn number(name: &str, value: &str, range: std::ops::RangeInclusive<f64>) -> Result<f64, ModelProblem> {
    let wanted = format!("a number from {} to {}", range.start(), range.end());
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| wrong(name, value, &wanted))
}

fn wrong(name: &str, value: &str, wanted: &str) -> ModelProblem {
    ModelProblem::new("invalid_parameter", format!("`{name}={value}` is not understood"), format!("write {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_is_understood() {
        let text = "fast?latency=1s&jitter=2ms&tokens_per_s=80&error_rate=0.1&error=rate_limited&fail_first=2&retry_after=2s&seed=7";
        let expected = Parameters {
            flavour: "fast",
            latency: Duration::from_secs(1),
            jitter: Duration::from_millis(2),
            tokens_per_s: Some(80.0),
            error_rate: 0.1,
            error: ErrorClass::RateLimited,
            fail_first: 2,
            retry_after: Some(Duration::from_secs(2)),
            seed: 7,
        };
        assert_eq!(Parameters::parse(text), Ok(expected));
        for flavour in FLAVOURS {
            assert_eq!(Parameters::parse(flavour).expect(flavour).flavour, flavour);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_advice() {
        for (text, help) in [
            ("fats", "`fast`"),
            ("gpt", "known: `instant`"),
            ("fast?latencey=1s", "`latency`"),
            ("fast?error=overlaoded&fail_first=1", "`overloaded`"),
            ("fast?error=lost&fail_first=1", "known:"),
            ("fast?error_rate=2", "from 0 to 1"),
            ("fast?error_rate=NaN", "from 0 to 1"),
            ("fast?latency=200", "200ms"),
            ("fast?seed=-1", "whole number"),
            ("fast?seed=1&seed=2", "keep one"),
            ("fast?error=network", "fail_first"),
        ] {
            let problem = Parameters::parse(text).expect_err(text);
            assert!(problem.help.contains(help), "{text}: {problem:?}");
        }
    }
}
