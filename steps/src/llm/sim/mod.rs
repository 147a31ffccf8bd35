//! `sim`: a simulator in place of a model, for demos, tests and load. Deterministic in the prompt's text and the seed (errors also
//! in the attempt's number), and always labelled: `simulated` in the usage, and where the output is text, in front of it and beside it.
//!
//! The model's name says how it behaves: `sim/<flavour>?<parameters>`, see [`parameters`]. With an output schema it answers JSON
//! that meets the schema, with values picked from the prompt where it finds fitting ones; without, the most informative sentences
//! of what the longest user message is about.

mod dice;
mod extract;
mod facts;
mod generate;
mod material;
mod parameters;
mod pattern;
mod strings;

use super::{
    config::Role,
    model::{Answer, FinishReason, ModelProblem, Provider, Request},
};
use crate::net::silence;
use async_trait::async_trait;
use dice::Dice;
use facts::Facts;
use krowoc_engine::{
    ErrorClass,
    executor::{StepContext, StepError, Usage},
};
use parameters::Parameters;
use serde_json::json;
use std::time::Duration;

/// The provider.
pub(super) struct Sim;

/// What a text that was made up begins with.
const MARK: &str = "[simulated] ";
/// A common rule of thumb for English text.
const CHARACTERS_PER_TOKEN: u64 = 4;

#[async_trait]
impl Provider for Sim {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn check(&self, model: &str) -> Result<(), ModelProblem> {
        Parameters::parse(model).map(|_| ())
    }

    async fn chat(&self, context: &StepContext, request: Request) -> Result<Answer, StepError> {
        let parameters = Parameters::parse(&request.model)
            .map_err(|p| StepError::new(ErrorClass::InvalidRequest, format!("{} ({})", p.message, p.help)))?;
        let seed = seed(&request, &parameters);
        // Nothing is made up before the wait is over, so that a waiting call holds its prompt and a timer, no more.
        let latency = parameters.latency(&mut Dice::of(seed, b"latency"));
        wait(Duration::ZERO, latency, context.idle_timeout).await?;
        if let Some(error) = failure(&parameters, context.attempt, seed) {
            return Err(error);
        }
        let answer = answer(&request, &parameters, seed)?;
        drop(request);
        wait(latency, parameters.generation(answer.usage.output_tokens), context.idle_timeout).await?;
        Ok(answer)
    }
}

/// Waits for `time` after a silence of `before`. As with the other providers an answer comes whole, so that no byte of it comes
/// before all its tokens are made, and the idle timeout bounds both waits together.
async fn wait(before: Duration, time: Duration, idle: Option<Duration>) -> Result<(), StepError> {
    let over = idle.filter(|idle| before + time > *idle);
    let time = over.map_or(time, |idle| idle.saturating_sub(before));
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    over.map_or(Ok(()), |idle| Err(silence("the simulator", idle).details(json!({"simulated": true}))))
}

fn seed(request: &Request, parameters: &Parameters) -> u64 {
    let mut dice = Dice::of(parameters.seed, &request.seed.unwrap_or_default().to_le_bytes());
    for message in &request.messages {
        dice.stir(message.content.as_bytes());
    }
    dice.roll()
}

/// The error that this attempt has to end with, if it has.
fn failure(parameters: &Parameters, attempt: u32, seed: u64) -> Option<StepError> {
    let by_chance = Dice::of(seed, &attempt.to_le_bytes()).unit() < parameters.error_rate;
    let why = if attempt <= parameters.fail_first {
        format!("fail_first={}", parameters.fail_first)
    } else if by_chance {
        format!("error_rate={}", parameters.error_rate)
    } else {
        return None;
    };
    let message = format!("simulated {} (sim parameter {why}, attempt {attempt})", parameters.error);
    Some(StepError::new(parameters.error, message).retry_after(parameters.retry_after).details(json!({"simulated": true})))
}

fn answer(request: &Request, parameters: &Parameters, seed: u64) -> Result<Answer, StepError> {
    let of_role = |role: Role| request.messages.iter().filter(move |m| m.role == role).map(|m| m.content.as_str());
    let longest = of_role(Role::User).max_by_key(|text| text.len()).or_else(|| request.messages.last().map(|m| m.content.as_str()));
    // What a simulated step said is material for the next, its mark is not.
    let longest = longest.unwrap_or_default().replace(MARK, "");
    let source = extract::readable(&longest);
    let limit = request.max_output_tokens.map(u64::from);
    let text = match &request.output_schema {
        Some(schema) => {
            let value = generate::value(schema, &Facts::of(&source), seed);
            let value = value.map_err(|e| StepError::new(ErrorClass::InvalidRequest, format!("the simulator can't answer: {e}")))?;
            value.to_string()
        }
        None => {
            let room = limit.map_or(usize::MAX, |tokens| (tokens * CHARACTERS_PER_TOKEN) as usize);
            format!("{MARK}{}", extract::summary(&source, room.saturating_sub(MARK.len())))
        }
    };
    let output_tokens = tokens(&text);
    let cut = limit.filter(|limit| output_tokens > *limit);
    let (text, finish) = match cut {
        Some(limit) => (text.chars().take((limit * CHARACTERS_PER_TOKEN) as usize).collect(), FinishReason::Length),
        None => (text, FinishReason::Complete("stop".into())),
    };
    let usage = Usage {
        provider: "sim".into(),
        model: format!("sim/{}", parameters.flavour),
        input_tokens: request.messages.iter().map(|m| tokens(&m.content)).sum(),
        output_tokens: cut.unwrap_or(output_tokens),
        request_id: Some(format!("sim-{seed:016x}")),
        simulated: true,
        ..Usage::default()
    };
    Ok(Answer { text, finish, usage })
}

fn tokens(text: &str) -> u64 {
    (text.chars().count() as u64).div_ceil(CHARACTERS_PER_TOKEN)
}
