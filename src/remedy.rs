//! What to do about dead letters.

use krowoc_engine::ErrorClass;

/// Says how their steps go on; `which` names them to `krowoc dlq redrive`.
pub fn line(classes: impl IntoIterator<Item = ErrorClass>, which: &str) -> String {
    let redrive = format!("krowoc dlq redrive {which}");
    // A redrive carries out the same version on the same input.
    match classes.into_iter().all(fails_again) {
        true => format!(
            "The same version fails again on the same input: change one and start a new run. If the cause lay elsewhere:  {redrive}"
        ),
        false => format!("Once the cause is mended:  {redrive}"),
    }
}

fn fails_again(class: ErrorClass) -> bool {
    matches!(class, ErrorClass::Expression | ErrorClass::ContextTooLong | ErrorClass::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_is_advised_first_only_where_it_can_help() {
        let said = |classes: &[ErrorClass]| line(classes.iter().copied(), "0198");
        assert_eq!(said(&[ErrorClass::Overloaded]), "Once the cause is mended:  krowoc dlq redrive 0198");
        assert!(said(&[ErrorClass::Expression, ErrorClass::TooLarge]).starts_with("The same version fails again"));
        assert!(said(&[ErrorClass::Expression, ErrorClass::Auth]).starts_with("Once the cause is mended"));
    }
}
