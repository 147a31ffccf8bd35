//! One expression: parsed, checked, rewritten and compiled once, evaluated often.

use super::{
    Bindings, ExpressionError, Reference, Segment,
    bindings::Found,
    language::LANGUAGE,
    limits::{MAX_NESTING, MAX_SOURCE, SCANNED_PER_FUEL},
    meter,
    rewrite::{Level, Rewriter},
    shorten,
    syntax::bare,
    value::{Room, append_text, to_json, why},
};
use crate::{
    definition::{Problem, suggest::suggest},
    payload::Payload,
};
use minijinja::{
    Expression, Value,
    machinery::{Token, parse_expr, tokenize},
};
use serde_json::Value as Json;

pub(super) struct Compiled {
    source: String,
    pointer: String,
    /// A plain path of a variable, which is looked up without evaluating.
    bare: Option<(String, Vec<Segment>)>,
    roots: Vec<String>,
    expression: Expression<'static, 'static>,
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Compiled").field(&self.source).finish()
    }
}

impl Compiled {
    /// Compiles what stands between `${{` and `}}`.
    pub(super) fn new(source: &str, pointer: &str) -> Result<(Self, Vec<Reference>), Vec<Problem>> {
        let problem = |why: String, help: Option<String>| {
            let mut problem = Problem::new("expression_syntax", pointer, format!("`${{{{ {} }}}}`: {why}", shorten(source)));
            problem.help = help;
            problem
        };
        if source.len() > MAX_SOURCE {
            return Err(vec![problem(format!("it is longer than {} KiB", MAX_SOURCE >> 10), None)]);
        }
        check_nesting(source, true).map_err(|why| vec![problem(why, None)])?;
        let tree = parse_expr(source).map_err(|e| vec![problem(why(&e), None)])?;
        let mut rewriter = Rewriter::default();
        let code = rewriter.used(&tree).at(Level::If);
        if !rewriter.faults.is_empty() {
            return Err(rewriter.faults.into_iter().map(|fault| problem(fault.message, fault.help)).collect());
        }
        let expression = LANGUAGE.compile_expression_owned(meter::metered(&code)).map_err(|e| vec![problem(why(&e), None)])?;
        let mut roots: Vec<String> = rewriter.lookups.iter().map(|lookup| lookup.root.clone()).collect();
        roots.sort_unstable();
        roots.dedup();
        let reference = |lookup: super::rewrite::Lookup| Reference { root: lookup.root, path: lookup.path, pointer: pointer.to_owned() };
        // `null` is written like a variable and is none.
        let bare = bare(&tree).filter(|(root, _)| roots.contains(root));
        let compiled = Self { source: source.to_owned(), pointer: pointer.to_owned(), bare, roots, expression };
        Ok((compiled, rewriter.lookups.into_iter().map(reference).collect()))
    }

    pub(super) fn error(&self, why: impl std::fmt::Display) -> ExpressionError {
        ExpressionError::new(&self.pointer, &self.source, why)
    }

    pub(super) fn is_bare(&self) -> bool {
        self.bare.is_some()
    }

    fn find<'b>(&self, bindings: &'b Bindings, room: &mut Room) -> Result<Found<'b>, ExpressionError> {
        let Some((root, path)) = &self.bare else { return Ok(Found::Elsewhere) };
        let found = bindings.find(root, path).map_err(|why| self.error(why))?;
        if let Found::Part { scanned, .. } = found {
            room.spend(scanned as u64 / SCANNED_PER_FUEL).map_err(|why| self.error(why))?;
        }
        Ok(found)
    }

    fn evaluate(&self, bindings: &Bindings, room: &mut Room) -> Result<Value, ExpressionError> {
        if let Some(root) = self.roots.iter().find(|root| !bindings.has(root)) {
            let known = bindings.known();
            let advice = suggest(root, known.iter().copied()).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(self.error(format!("there is no `{root}` here{advice}")));
        }
        meter::evaluate(&self.expression, bindings, &mut room.spent).map_err(|e| self.error(why(&e)))
    }

    fn parsed(&self, text: &str) -> Result<Json, ExpressionError> {
        serde_json::from_str(text).map_err(|e| self.error(format!("a payload can't be read as JSON: {e}")))
    }

    /// The value as JSON, where it is all that is rendered: a whole payload is handed on, whatever its size, for it makes nothing.
    pub(super) fn alone(&self, bindings: &Bindings, room: &mut Room) -> Result<Json, ExpressionError> {
        match self.find(bindings, room)? {
            Found::Whole(payload) => self.parsed(payload.as_str()),
            found => self.json_of(found, bindings, room),
        }
    }

    /// The value as JSON.
    pub(super) fn json(&self, bindings: &Bindings, room: &mut Room) -> Result<Json, ExpressionError> {
        self.json_of(self.find(bindings, room)?, bindings, room)
    }

    fn json_of(&self, found: Found<'_>, bindings: &Bindings, room: &mut Room) -> Result<Json, ExpressionError> {
        match found.text() {
            Some(text) => {
                room.take(text.len()).map_err(|why| self.error(why))?;
                self.parsed(text)
            }
            None => to_json(&self.evaluate(bindings, room)?, room).map_err(|why| self.error(why)),
        }
    }

    /// The value as a payload of its own.
    pub(super) fn payload(&self, bindings: &Bindings, room: &mut Room) -> Result<Payload, ExpressionError> {
        Ok(match self.find(bindings, room)? {
            Found::Whole(payload) => payload.clone(),
            Found::Part { text, .. } => Payload::from_json_text(text),
            Found::Elsewhere => Payload::from(&self.json_of(Found::Elsewhere, bindings, room)?),
        })
    }

    /// Appends the value as JSON text.
    pub(super) fn write(&self, bindings: &Bindings, out: &mut String, room: &mut Room) -> Result<(), ExpressionError> {
        let found = self.find(bindings, room)?;
        match found.text() {
            Some(text) => {
                room.take(text.len()).map_err(|why| self.error(why))?;
                out.push_str(text);
            }
            None => super::push_json(out, &self.json_of(found, bindings, room)?),
        }
        Ok(())
    }

    /// Appends the value to a text.
    pub(super) fn append(&self, bindings: &Bindings, out: &mut String, room: &mut Room) -> Result<(), ExpressionError> {
        append_text(out, &self.evaluate(bindings, room)?, room).map_err(|why| self.error(why))
    }
}

/// Refuses what would make the parser and the compiler recurse too deeply: counts what may hang on one another.
pub(in crate::definition) fn check_nesting(source: &str, in_expression: bool) -> Result<(), String> {
    let mut open = vec![Bracket::default()];
    let mut branches = 0usize;
    // A token that can't be read is reported by the parser.
    for (token, _) in tokenize(source, in_expression, Default::default()).map_while(Result::ok) {
        let Some(inner) = open.last_mut() else { break };
        match token {
            Token::Comma | Token::Colon => *inner = Bracket::default(),
            Token::BracketOpen | Token::BraceOpen | Token::ParenOpen => open.push(Bracket::default()),
            Token::BracketClose | Token::BraceClose | Token::ParenClose => {
                if open.len() > 1 {
                    open.pop();
                }
                // The bracket is one link of the chain it stands in: `a[0][1]`, `f(x)|g(y)`.
                if let Some(outer) = open.last_mut() {
                    outer.links += 1;
                }
            }
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart | Token::VariableEnd | Token::BlockEnd => {
                open = vec![Bracket::default()];
            }
            Token::Ident("elif") => branches += 1,
            Token::Dot | Token::Pipe | Token::Ident("is") => inner.links += 1,
            Token::Ident("and" | "or" | "not" | "if" | "else" | "in") => inner.operator(),
            Token::Ident(_) | Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Int128(_) | Token::Float(_) | Token::Assign => {}
            // A sign before a sign is rewritten with a bracket between.
            Token::Minus => (0..3).for_each(|_| inner.operator()),
            _ => inner.operator(),
        }
        if branches > MAX_NESTING || open.iter().map(Bracket::depth).sum::<usize>() > MAX_NESTING {
            return Err("it is too deeply nested, or too many operators hang on one another".into());
        }
    }
    Ok(())
}

/// What has been read inside an open bracket since the last comma.
#[derive(Default)]
struct Bracket {
    operators: usize,
    /// Lookups, filters and tests of the present operand.
    links: usize,
    /// The most of any operand.
    most: usize,
}

impl Bracket {
    fn operator(&mut self) {
        self.operators += 1;
        self.most = self.most.max(self.links);
        self.links = 0;
    }

    /// How deep the tree of it may be. The parser goes through all levels of its grammar for a bracket.
    fn depth(&self) -> usize {
        6 + self.operators + self.most.max(self.links)
    }
}
