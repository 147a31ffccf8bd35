//! The language as Rust types: its JSON Schema is generated from them, and the compiler reads files through them.
//! A field is [`Loose`], so that one mistake does not hide the rest of the file.

use super::{
    dag::{BackoffKind, Jitter, Join, Tolerance},
    duration::parse_duration,
};
use crate::error::ErrorClass;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value};
use std::{borrow::Cow, collections::BTreeMap, time::Duration};

/// A field that may be missing or wrong; what is wrong is kept as text.
#[derive(Debug, Default)]
pub(super) enum Loose<T> {
    #[default]
    Missing,
    Wrong(String),
    Good(T),
}

impl<'de, T: for<'v> Deserialize<'v>> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match T::deserialize(Value::deserialize(deserializer)?) {
            Ok(value) => Self::Good(value),
            Err(e) => Self::Wrong(e.to_string()),
        })
    }
}

impl<T: JsonSchema> JsonSchema for Loose<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A workflow: what a run is given, the steps it takes, and what comes out.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, title = "Krowoc workflow", extend("required" = ["krowoc", "name", "steps"]))]
pub(super) struct Workflow {
    /// The version of the language this file is written in.
    pub krowoc: Loose<Language>,
    /// The workflow's name: small letters, digits and single dashes.
    pub name: Loose<Slug>,
    /// What the workflow is for, for people.
    pub description: Loose<String>,
    /// JSON Schema (2020-12) of a run's input.
    pub input: Loose<SchemaText>,
    /// What applies to every step unless the step says otherwise.
    #[schemars(with = "Defaults")]
    pub defaults: Loose<Value>,
    /// Wall clock for a whole run; when it is over, the run's steps are cancelled.
    pub timeout: Loose<DurationText>,
    /// The steps by their ids. Order means nothing: edges come from the references in expressions, and from `needs`.
    #[schemars(with = "BTreeMap<String, Step>", extend("minProperties" = 1))]
    pub steps: Loose<Map<String, Value>>,
    /// The run's output: any value, with expressions.
    #[schemars(with = "Value")]
    pub output: Loose<Value>,
    /// JSON Schema (2020-12) of the run's output.
    pub output_schema: Loose<SchemaText>,
}

/// What applies to every step unless the step says otherwise; for each kind, keys that its steps start from.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: defaults are merged as JSON")]
pub(super) struct Defaults {
    /// For steps that call anything outside.
    timeout: Option<StepTimeouts>,
    /// For steps that call anything outside.
    retry: Option<Retry>,
}

/// A step: one key names its kind.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Step {
    /// What the step is for, for people.
    pub description: Loose<String>,
    /// Steps beside this one that must have ended before, where no reference says so already.
    #[schemars(extend("uniqueItems" = true))]
    pub needs: Loose<Vec<String>>,
    /// The step is skipped when this is false.
    pub when: Loose<Condition>,
    /// When predecessors allow the step to run.
    pub join: Loose<Join>,
    /// A failure counts as skipped and does not fail the run.
    pub allow_failure: Loose<bool>,
    /// The task queue whose workers may take the step.
    pub queue: Loose<QueueName>,
    /// JSON Schema (2020-12) of the step's output.
    pub output: Loose<SchemaText>,
    /// When and how often a failed attempt is followed by another.
    pub retry: Loose<Retry>,
    /// How long the step may take.
    pub timeout: Loose<StepTimeouts>,
    /// Carries out steps for each item of a list.
    pub map: Loose<MapStep>,
    /// Waits for a while, or until a point in time. A worker's restart does not shorten or prolong it.
    pub wait: Loose<WaitStep>,
}

/// Steps for each item of a list.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, extend("required" = ["over", "steps"]))]
pub(super) struct MapStep {
    /// The list.
    #[schemars(with = "Value", extend("type" = ["array", "string"]))]
    pub over: Loose<Value>,
    /// The name under which the steps see their item; `item` unless given.
    #[serde(rename = "as")]
    pub item: Loose<String>,
    /// An expression over the item that identifies it across forks and redrives; its position unless given.
    #[schemars(with = "String")]
    pub key: Loose<Value>,
    /// How many items at once; as many as workers have room for unless given.
    #[schemars(range(min = 1))]
    pub concurrency: Loose<u32>,
    /// How many items may fail before the map does: a number, or a part such as `10%`. None unless given.
    pub tolerate: Loose<Tolerate>,
    /// The steps for each item.
    #[schemars(with = "BTreeMap<String, Step>", extend("minProperties" = 1))]
    pub steps: Loose<Map<String, Value>>,
    /// What each item adds to the map's output, a list; without it the output is a count.
    #[schemars(with = "Value")]
    pub collect: Loose<Value>,
}

/// A durable timer: exactly one of the two.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct WaitStep {
    /// From the step's start: a duration (`30s`, `2d`), a number of seconds, or an expression for one.
    #[serde(rename = "for")]
    #[schemars(with = "Value", extend("type" = ["string", "number"], "minimum" = 0))]
    pub duration: Loose<Value>,
    /// A point in time (RFC 3339), or an expression for one.
    #[schemars(with = "String")]
    pub until: Loose<Value>,
}

/// When and how often a failed attempt is followed by another. Keys that are left out come from `defaults`, then from the engine:
/// 3 attempts (1 for steps that call nothing outside), waits from 1s doubling to 60s with full jitter.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub(super) struct Retry {
    /// Attempts in all, the first included.
    #[schemars(range(min = 1, max = 1000))]
    pub attempts: Loose<u16>,
    /// The time before the next attempt.
    pub backoff: Loose<BackoffFile>,
    /// The classes of failure that are retried. `rate_limited` waits for the provider's time and counts as no attempt.
    // Versions that are stored may name any class.
    #[schemars(with = "Vec<RetriedClass>", extend("uniqueItems" = true))]
    pub errors: Loose<Vec<ErrorClass>>,
    /// Whether a step whose worker vanished starts again.
    pub on_lost: Loose<OnLost>,
}

/// A class of failure that another attempt may follow.
struct RetriedClass;

impl JsonSchema for RetriedClass {
    fn schema_name() -> Cow<'static, str> {
        "ErrorClass".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = ErrorClass::ALL.into_iter().filter(|class| why_final(*class).is_none()).map(ErrorClass::name).collect();
        json_schema!({"type": "string", "enum": names})
    }
}

/// Why it means nothing to list a class among those that are retried.
pub(super) fn why_final(class: ErrorClass) -> Option<&'static str> {
    Some(match class {
        ErrorClass::Lost => "`on_lost` says whether a step whose worker vanished starts again",
        ErrorClass::TotalTimeout => "the step's time is over then; raise `timeout.total`",
        ErrorClass::RunTimeout => "the run's time is over then; raise its `timeout`",
        ErrorClass::ToleranceExceeded => "it ends a map; raise `tolerate`, or retry the steps inside",
        ErrorClass::BudgetExceeded | ErrorClass::Rejected | ErrorClass::Expired | ErrorClass::ChildFailed => {
            "no other attempt follows this class"
        }
        _ => return None,
    })
}

/// Growing waits.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, rename = "Backoff")]
pub(super) struct BackoffFile {
    /// Doubling, or the same each time.
    pub kind: Loose<BackoffKind>,
    /// After the first failure.
    pub initial: Loose<DurationText>,
    /// At most.
    pub max: Loose<DurationText>,
    /// Spread over the wait, or exactly the wait.
    pub jitter: Loose<Jitter>,
}

/// What happens to a step whose worker vanished.
#[derive(Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnLost {
    /// It fails: what it does must never be done twice.
    Fail,
    /// It starts again.
    Retry,
}

/// How long a step may take. Keys that are left out come from `defaults`; an attempt of a step that calls anything outside ends
/// after 10m unless one of them says otherwise.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields, rename = "Timeout")]
pub(super) struct StepTimeouts {
    /// One attempt.
    pub attempt: Loose<DurationText>,
    /// Without a sign of progress from outside.
    pub idle: Loose<DurationText>,
    /// From the first attempt's start, waits for limits not counted.
    pub total: Loose<DurationText>,
}

/// The version of the language.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Language {
    V1,
}

/// The name of a workflow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, title = "small letters, digits and single dashes, at most 64, a letter first")]
pub(super) struct Slug(#[schemars(regex(pattern = r"^[a-z](?:-?[a-z0-9]){0,63}$"), length(max = 64))] pub String);

/// The name of a task queue.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, title = "small letters, digits, dashes and underscores, at most 63, a letter first")]
pub(super) struct QueueName(#[schemars(regex(pattern = r"^[a-z][a-z0-9_-]{0,62}$"))] pub String);

/// A duration as text.
#[derive(Clone, Copy, Debug)]
pub(super) struct DurationText(pub Duration);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(D::Error::custom)
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "title": "a duration such as `90s`, `1h30m` or `2d`"})
    }
}

/// An expression that is true or false.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Condition(pub Value);

impl JsonSchema for Condition {
    fn schema_name() -> Cow<'static, str> {
        "Condition".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "title": "an expression such as `${{ steps.check.output.ok }}`",
            "pattern": super::language_schema::EXPRESSION
        })
    }
}

/// A JSON Schema in a file.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct SchemaText(pub Value);

impl JsonSchema for SchemaText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "JsonSchema".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["object", "boolean"]})
    }
}

/// `3` or `10%`.
#[derive(Debug)]
pub(super) struct Tolerate(pub Tolerance);

impl<'de> Deserialize<'de> for Tolerate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let part = value.as_str().and_then(|t| t.strip_suffix('%')).and_then(|n| n.trim().parse::<f64>().ok());
        match (value.as_u64().map(u32::try_from), part) {
            (Some(Ok(count)), _) => Ok(Self(Tolerance::Count(count))),
            (_, Some(percent)) if (0.0..=100.0).contains(&percent) => Ok(Self(Tolerance::Part(percent / 100.0))),
            _ => Err(D::Error::custom("not a number of items or a part from `0%` to `100%`")),
        }
    }
}

impl JsonSchema for Tolerate {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Tolerance".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["integer", "string"],
            "title": "a number of items or a part from `0%` to `100%`",
            "minimum": 0,
            "maximum": u32::MAX,
            "pattern": r"^(?:100(?:\.0+)?|[0-9]{1,2}(?:\.[0-9]+)?)%$"
        })
    }
}
