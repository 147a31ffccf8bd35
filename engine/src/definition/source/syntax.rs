//! The parser of YAML: what it lets, and its errors as problems with a place.

use super::{Source, node::Node};
use crate::definition::{Problem, Span};
use serde_saphyr::{Location, Spanned, budget::BudgetBreach};

/// Parses with a stack of its own: the parser recurses, and its frames for [`Source::MAX_DEPTH`] levels are more than a thread of
/// a runtime has.
pub(super) fn nodes(text: &str) -> Result<Option<Spanned<Node>>, Box<Problem>> {
    const STACK_BYTES: usize = 16 * 1024 * 1024;
    std::thread::scope(|scope| {
        let parse = || serde_saphyr::from_str_with_options(text, options()).map_err(|e| Box::new(syntax_problem(&e, text)));
        match std::thread::Builder::new().name("parse".into()).stack_size(STACK_BYTES).spawn_scoped(scope, parse) {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(e) => Err(Box::new(Problem::new("internal", "", format!("no thread to parse the file: {e}")))),
        }
    })
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // Our own pass finds every duplicate, with both places.
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::Reject,
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 1_000,
        },
        budget: serde_saphyr::budget! {
            max_depth: Source::MAX_DEPTH,
            max_nodes: 1_000_000,
            max_events: 3_000_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 100_000,
        },
    }
}

fn syntax_problem(error: &serde_saphyr::Error, text: &str) -> Problem {
    use serde_saphyr::Error;
    let error = error.without_snippet();
    let problem = match error {
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            Problem::new("too_deep", "", format!("the document is nested deeper than {} levels", Source::MAX_DEPTH))
        }
        Error::MultipleDocuments { .. } => Problem::new("several_documents", "", "the file holds more than one document")
            .help("one workflow per file: remove everything from `---` on"),
        Error::MergeKeyNotAllowed { .. } => Problem::new("yaml", "", "merge keys (`<<`) are not part of the language")
            .help("write the keys out, or put them under `defaults`"),
        other => Problem::new("yaml", "", message(other)),
    };
    let span = error.location().map(|l| span_in(text, l));
    let (before, after) = span.and_then(|span| text.split_at_checked(span.offset)).unwrap_or_default();
    let help = match problem.help {
        // YAML takes the braces for mappings.
        None if before.ends_with('$') && after.starts_with("{{") => {
            Some("inside `{}` and `[]` an expression stands in quotes: `\"${{ … }}\"`".into())
        }
        None if is_indented_by_tab(before) => Some("indent with spaces".into()),
        help => help,
    };
    Problem { span, help, ..problem }
}

fn is_indented_by_tab(before: &str) -> bool {
    before.rsplit('\n').next().is_some_and(|line| line.contains('\t') && line.trim().is_empty())
}

/// The parser's message without the place, which the problem has itself.
fn message(error: &serde_saphyr::Error) -> String {
    let message = error.to_string();
    let first = message.lines().next().unwrap_or_default();
    let cut = first.find(" at line ").unwrap_or(first.len());
    first[..cut].trim_end_matches('.').trim_end_matches(':').to_owned()
}

pub(super) fn span_in(text: &str, location: Location) -> Span {
    let span = location.span();
    // What the scanner itself refuses has its place in characters alone.
    let bytes = |text: &str, chars: u64| text.chars().take(chars as usize).map(char::len_utf8).sum();
    let (offset, length) = match span.byte_offset().zip(span.byte_len()) {
        Some((offset, length)) => (text.len().min(offset as usize), length as usize),
        None => {
            let offset = bytes(text, span.offset());
            (offset, bytes(&text[offset..], span.len()))
        }
    };
    Span { line: location.line() as u32, column: location.column() as u32, offset, length: length.min(text.len() - offset) }
}
