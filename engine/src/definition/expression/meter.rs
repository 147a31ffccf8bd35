//! One budget of fuel for all that belongs together: the expressions of a template, the renders over a map's items. minijinja starts
//! each evaluation with a full tank and says nothing of what is left; so an expression is wrapped in filters of ours, which first take
//! away what was spent before and in the end say what has been spent by then.

use super::{Bindings, limits::FUEL};
use minijinja::{Environment, Error, Expression, State, Value, value::Object};

/// The variable that holds what was spent before.
pub(super) const SPENT: &str = "__spent";
const CHARGE: &str = "__charge";
const METER: &str = "__meter";

/// What each item of a map may cost on average: enough to look through an output of fifty kilobytes several times. Two milliseconds of a
/// build with optimisation, so little beside the steps of an item; a hundred thousand items take minutes at worst.
const FUEL_PER_ITEM: u64 = 10_000;

/// What renders of one template may cost together, beside the bound that each of them has.
#[derive(Debug)]
pub struct Budget(pub(super) u64);

impl Budget {
    /// For a render over each of so many items. A few may be as dear as any render, and many take as long as there are many.
    pub fn for_items(items: usize) -> Self {
        Self(10 * FUEL + FUEL_PER_ITEM * items as u64)
    }

    /// What one render may take of it counts as spent where it is less than a render's own bound.
    pub(super) fn spent(&self) -> u64 {
        FUEL.saturating_sub(self.0)
    }

    pub(super) fn take(&mut self, fuel: u64) {
        self.0 = self.0.saturating_sub(fuel);
    }
}

/// An expression's value, and what had been spent when it was there.
#[derive(Debug)]
struct Metered {
    value: Value,
    spent: u64,
}

impl Object for Metered {}

/// The source of a metered expression. What stands before a filter is evaluated before its arguments.
pub(super) fn metered(code: &str) -> String {
    format!("{SPENT}|{CHARGE}|{METER}({code})")
}

/// Adds the filters.
pub(super) fn add_to(environment: &mut Environment<'static>) {
    environment.add_filter(CHARGE, |state: &State, spent: u64| state.consume_fuel(spent).map(Value::from));
    environment.add_filter(METER, |state: &State, _: &Value, value: Value| {
        let spent = state.fuel_levels().map_or(0, |(consumed, _)| consumed);
        Value::from_object(Metered { value, spent })
    });
}

/// Evaluates a metered expression and adds to `spent`.
pub(super) fn evaluate(expression: &Expression<'_, '_>, bindings: &Bindings, spent: &mut u64) -> Result<Value, Error> {
    let value = expression.eval(bindings.context(*spent))?;
    Ok(match value.downcast_object_ref::<Metered>() {
        Some(metered) => {
            *spent = metered.spent;
            metered.value.clone()
        }
        None => value,
    })
}
