//! The values of single keys: conditions, waits, retries, timeouts, schemas, templates.

use super::Reader;
use crate::definition::{
    Problem,
    dag::{Backoff, BackoffKind, Jitter, RetryPolicy, Timeouts, WaitPlan},
    duration::parse_duration,
    explain::{constant_when, shown},
    expression::Template,
    model::{self, BackoffFile, Condition, DurationText, Loose, OnLost, WaitStep},
    pointer,
    schema::Schema,
};
use serde_json::Value;
use std::time::Duration;

impl Reader {
    pub(super) fn when(&mut self, when: &Condition, at: &str) -> Option<Template> {
        let template = self.template(&when.0, at)?;
        if template.references().is_empty() {
            self.meaning.push(constant_when(at, &when.0));
            return None;
        }
        Some(template)
    }

    pub(super) fn wait(&mut self, wait: WaitStep, at: &str) -> Option<WaitPlan> {
        let (duration, until) = (format!("{at}/for"), format!("{at}/until"));
        match (self.take(wait.duration, &duration), self.take(wait.until, &until)) {
            (Some(value), None) => {
                let template = self.template(&value, &duration)?;
                if let (true, Some(text)) = (template.is_constant(), value.as_str())
                    && let Err(message) = parse_duration(text)
                {
                    self.meaning.push(Problem::new("invalid_value", duration, message));
                }
                Some(WaitPlan::For(template))
            }
            (None, Some(value)) => {
                let template = self.template(&value, &until)?;
                let time = value.as_str().map(chrono::DateTime::parse_from_rfc3339);
                if let (true, Some(Err(e))) = (template.is_constant(), time) {
                    let problem = Problem::new("invalid_value", until, format!("{} is no point in time: {e}", shown(&value)));
                    self.meaning.push(problem.help("write it as RFC 3339: `2030-01-31T09:00:00Z`"));
                }
                Some(WaitPlan::Until(template))
            }
            (Some(_), Some(_)) => {
                self.meaning.push(Problem::new("conflicting_keys", until, "a wait has either `for` or `until`").help("remove one of them"));
                None
            }
            (None, None) => {
                let problem = Problem::new("missing_key", at, "a wait needs `for` or `until`");
                self.meaning.push(problem.help("`for: 30s`, or `until: ${{ input.not_before }}`"));
                None
            }
        }
    }

    pub(super) fn retry(&mut self, retry: Loose<model::Retry>, at: &str) -> RetryPolicy {
        let retry = self.take(retry, at).unwrap_or_default();
        let backoff = self.take(retry.backoff, &format!("{at}/backoff")).unwrap_or_default();
        RetryPolicy {
            attempts: self.take(retry.attempts, &format!("{at}/attempts")).unwrap_or(1),
            backoff: self.backoff(backoff, &format!("{at}/backoff")),
            errors: self.take(retry.errors, &format!("{at}/errors")).unwrap_or_default(),
            fail_when_lost: self.take(retry.on_lost, &format!("{at}/on_lost")) == Some(OnLost::Fail),
        }
    }

    fn backoff(&mut self, file: BackoffFile, at: &str) -> Backoff {
        let below = |key: &str| format!("{at}/{key}");
        let kind = self.take(file.kind, &below("kind")).unwrap_or(BackoffKind::Exponential);
        let jitter = self.take(file.jitter, &below("jitter")).unwrap_or(Jitter::Full);
        let initial = self.take(file.initial, &below("initial")).map(|d| d.0);
        let max = self.take(file.max, &below("max")).map(|d| d.0);
        if let (Some(initial), Some(max)) = (initial, max)
            && initial > max
        {
            let message = format!("the first wait, {initial:?}, is longer than the longest, {max:?}");
            self.meaning.push(Problem::new("out_of_range", below("initial"), message).help("raise `max` too"));
        }
        Backoff { kind, initial: initial.unwrap_or_default(), max: max.unwrap_or_default(), jitter }
    }

    pub(super) fn timeouts(&mut self, file: Loose<model::StepTimeouts>, at: &str) -> Timeouts {
        let file = self.take(file, at).unwrap_or_default();
        Timeouts {
            attempt: self.positive(file.attempt, &format!("{at}/attempt")),
            idle: self.positive(file.idle, &format!("{at}/idle")),
            total: self.positive(file.total, &format!("{at}/total")),
        }
    }

    pub(super) fn positive(&mut self, value: Loose<DurationText>, at: &str) -> Option<Duration> {
        let duration = self.take(value, at)?.0;
        if duration.is_zero() {
            self.meaning.push(Problem::new("out_of_range", at, "a timeout must be longer than nothing"));
        }
        Some(duration)
    }

    pub(super) fn schema(&mut self, json: &Value, at: &str) -> Option<Schema> {
        if !(json.is_object() || json.is_boolean()) {
            self.shape.push(Problem::new("invalid_value", at, format!("{} is no JSON Schema", shown(json))));
            return None;
        }
        match Schema::compile(json) {
            Ok(schema) => Some(schema),
            Err(violations) => {
                for violation in violations {
                    self.meaning.push(Problem::new("invalid_schema", format!("{at}{}", violation.pointer), violation.message));
                }
                None
            }
        }
    }

    pub(super) fn template(&mut self, value: &Value, at: &str) -> Option<Template> {
        match Template::compile(value, at) {
            Ok(template) => Some(template),
            Err(problems) => {
                self.meaning.extend(problems);
                None
            }
        }
    }

    pub(super) fn take<T>(&mut self, value: Loose<T>, at: &str) -> Option<T> {
        match value {
            Loose::Good(value) => Some(value),
            Loose::Missing => None,
            Loose::Wrong(message) => {
                self.shape.push(Problem::new("invalid_value", at, message));
                None
            }
        }
    }

    pub(super) fn required<T>(&mut self, value: Loose<T>, at: &str) -> Option<T> {
        if matches!(value, Loose::Missing) {
            let name = pointer::last(at);
            self.shape.push(Problem::new("missing_key", at, format!("the key `{name}` is missing")));
        }
        self.take(value, at)
    }
}
