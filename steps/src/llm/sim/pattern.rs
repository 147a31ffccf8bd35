//! A text that matches a pattern, for `pattern` in schemas.

use super::dice::Dice;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Bounds of an open repetition.
const EXTRA: u32 = 4;
const LONGEST: usize = 4_096;

/// A text that matches, as far as the pattern is regular; nothing for one that can't be read.
pub(super) fn matching(pattern: &str, dice: &mut Dice) -> Option<String> {
    let hir = regex_syntax::parse(pattern).ok()?;
    let mut text = String::new();
    write(&hir, dice, &mut text)?;
    Some(text)
}

fn write(hir: &Hir, dice: &mut Dice, text: &mut String) -> Option<()> {
    if text.len() > LONGEST {
        return None;
    }
    match hir.kind() {
        // Anchors hold where nothing is put before or after.
        HirKind::Empty | HirKind::Look(_) => Some(()),
        HirKind::Literal(literal) => {
            text.push_str(std::str::from_utf8(&literal.0).ok()?);
            Some(())
        }
        HirKind::Class(Class::Unicode(class)) => {
            // The plainest characters of the class: letters and digits, else anything printable, else whatever there is.
            let ascii: Vec<char> = (' '..='~').filter(|c| class.ranges().iter().any(|r| (r.start()..=r.end()).contains(c))).collect();
            let plain: Vec<char> = ascii.iter().copied().filter(char::is_ascii_alphanumeric).collect();
            let choice = if plain.is_empty() { ascii } else { plain };
            let any = class.ranges().first().map(|r| r.start());
            text.push(choice.get(dice.below(choice.len())).copied().or(any)?);
            Some(())
        }
        HirKind::Class(Class::Bytes(class)) => {
            text.push(char::from(class.ranges().first()?.start()));
            Some(())
        }
        HirKind::Repetition(repetition) => {
            let most = repetition.max.unwrap_or(repetition.min.saturating_add(EXTRA)).min(repetition.min.saturating_add(EXTRA));
            let least = repetition.min.max(1.min(most));
            for _ in 0..least + dice.below((most - least) as usize + 1) as u32 {
                write(&repetition.sub, dice, text)?;
            }
            Some(())
        }
        HirKind::Capture(capture) => write(&capture.sub, dice, text),
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, dice, text)),
        HirKind::Alternation(branches) => write(branches.get(dice.below(branches.len()))?, dice, text),
    }
}
