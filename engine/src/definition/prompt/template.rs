//! The Jinja of a message: text, variables, `if`, `for`, `set`, `with`, filters. Rewritten like expressions (see
//! `expression::rewrite`), so that the same rules and bounds hold.

use crate::definition::expression::{
    check_nesting,
    language::{EMIT, LANGUAGE},
    limits::FUEL,
    rewrite::{Fault, Level, Lookup, Rewriter},
    syntax::{bare, quoted},
    value::{Room, why},
};
use minijinja::{
    Error, ErrorKind,
    machinery::{
        ast::{Expr, Stmt},
        parse,
    },
    syntax::SyntaxConfig,
    value::{Serde, Value},
};
use std::{collections::BTreeMap, io};

/// The longest message, in bytes.
const MAX_SOURCE: usize = 1 << 20;

/// A message, ready to be rendered.
#[derive(Debug)]
pub(super) struct Template {
    source: String,
    /// What it looks up, with the offset in the message.
    pub(super) lookups: Vec<Lookup>,
}

impl Template {
    /// Reads a message; every fault, with its offset in the message.
    pub(super) fn compile(content: &str) -> Result<Self, Vec<Fault>> {
        let fault = |message: String, offset: usize| vec![Fault { message, help: None, offset }];
        if content.len() > MAX_SOURCE {
            return Err(fault(format!("the message is longer than {} KiB", MAX_SOURCE >> 10), 0));
        }
        // A line that holds nothing but a statement leaves nothing behind.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
        let syntax = syntax.map_err(|e| fault(why(&e), 0))?;
        check_nesting(content, false).map_err(|why| fault(why, 0))?;
        let tree = parse(content, "prompt", syntax).map_err(|e| fault(why(&e), offset_of(content, &e)))?;
        let mut writer = Writer { rewriter: Rewriter::for_template(), out: String::new() };
        if let Stmt::Template(template) = &tree {
            writer.body(&template.children);
        }
        let Writer { rewriter, out } = writer;
        if !rewriter.faults.is_empty() {
            return Err(rewriter.faults);
        }
        let template = Self { source: out, lookups: rewriter.lookups };
        // What the parser accepts may still be refused as rewritten: by its nesting.
        template.load().map_err(|e| fault(why(&e), 0))?;
        Ok(template)
    }

    fn load(&self) -> Result<minijinja::Environment<'static>, Error> {
        let mut environment = LANGUAGE.clone();
        environment.add_template_owned("prompt", self.source.clone())?;
        Ok(environment)
    }

    /// Renders; takes what it produces and what it costs from `room`.
    pub(super) fn render(&self, values: &BTreeMap<String, serde_json::Value>, room: &mut Room) -> Result<String, Error> {
        let mut environment = self.load()?;
        environment.set_fuel(Some(FUEL.saturating_sub(room.spent)));
        let context = Value::from_pairs(values.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
        let mut out = Bounded { text: Vec::new(), room };
        let rendered = environment.get_template("prompt")?.render_captured_to(context, &mut out)?;
        out.room.spent += rendered.state().fuel_levels().map_or(0, |(consumed, _)| consumed);
        String::from_utf8(out.text).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
    }
}

struct Bounded<'a> {
    text: Vec<u8>,
    room: &'a mut Room,
}

impl io::Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room.take(bytes.len()).map_err(|_| io::Error::other("the prompt is too large"))?;
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a syntax error stands, as nearly as minijinja says.
fn offset_of(content: &str, error: &Error) -> usize {
    match (error.range(), error.line()) {
        (Some(range), _) => range.start,
        (None, Some(line)) => content.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum(),
        (None, None) => 0,
    }
}

struct Writer {
    rewriter: Rewriter,
    out: String,
}

impl Writer {
    fn body(&mut self, statements: &[Stmt]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    /// A body with its own names.
    fn scope(&mut self, names: Vec<String>, statements: &[Stmt]) {
        self.rewriter.locals.push(names);
        self.body(statements);
        self.rewriter.locals.pop();
    }

    fn used(&mut self, expr: &Expr) -> String {
        self.rewriter.used(expr).at(Level::Or)
    }

    fn statement(&mut self, statement: &Stmt) {
        match statement {
            Stmt::Template(template) => self.body(&template.children),
            // As a string, so that nothing in it is taken for Jinja again.
            Stmt::EmitRaw(raw) => self.out += &format!("{{{{ {} }}}}", quoted(raw.raw)),
            Stmt::EmitExpr(emit) => {
                let code = self.rewriter.used(&emit.expr).at(Level::Unary);
                let name = bare(&emit.expr).map_or_else(|| "this".to_owned(), |(root, path)| named(&root, &path));
                self.out += &format!("{{{{ {code}|{EMIT}({}) }}}}", quoted(&name));
            }
            Stmt::IfCond(cond) => {
                let test = self.used(&cond.expr);
                self.out += &format!("{{% if {test} %}}");
                self.scope(Vec::new(), &cond.true_body);
                self.out += "{% else %}";
                self.scope(Vec::new(), &cond.false_body);
                self.out += "{% endif %}";
            }
            Stmt::ForLoop(each) => {
                if each.recursive {
                    self.refuse("recursive loops", each.span().start_offset);
                }
                let iter = self.rewriter.seen(&each.iter).at(Level::Or);
                let mut names = vec!["loop".to_owned()];
                let target = self.target(&each.target, &mut names);
                self.rewriter.locals.push(names);
                let filter = each.filter_expr.as_ref().map(|f| format!(" if {}", self.used(f))).unwrap_or_default();
                self.out += &format!("{{% for {target} in {iter}{filter} %}}");
                self.body(&each.body);
                self.rewriter.locals.pop();
                self.out += "{% else %}";
                self.scope(Vec::new(), &each.else_body);
                self.out += "{% endfor %}";
            }
            Stmt::WithBlock(with) => {
                let mut names = Vec::new();
                let mut assignments = Vec::new();
                for (target, expr) in &with.assignments {
                    let value = self.used(expr);
                    assignments.push(format!("{} = {value}", self.target(target, &mut names)));
                }
                self.out += &format!("{{% with {} %}}", assignments.join(", "));
                self.scope(names, &with.body);
                self.out += "{% endwith %}";
            }
            Stmt::Set(set) => {
                let value = self.used(&set.expr);
                let target = self.assign(&set.target);
                self.out += &format!("{{% set {target} = {value} %}}");
            }
            Stmt::SetBlock(set) => {
                let filter = set.filter.as_ref().map(|f| format!(" | {}", self.rewriter.used(f).at(Level::Unary))).unwrap_or_default();
                let body = self.captured(&set.body);
                let target = self.assign(&set.target);
                self.out += &format!("{{% set {target}{filter} %}}{body}{{% endset %}}");
            }
            Stmt::FilterBlock(block) => {
                let filter = self.rewriter.used(&block.filter).at(Level::Unary);
                let body = self.captured(&block.body);
                self.out += &format!("{{% filter {filter} %}}{body}{{% endfilter %}}");
            }
            Stmt::Continue(_) => self.out += "{% continue %}",
            Stmt::Break(_) => self.out += "{% break %}",
            Stmt::AutoEscape(s) => self.refuse("`autoescape`", s.span().start_offset),
            Stmt::Block(s) => self.refuse("`block`", s.span().start_offset),
            Stmt::Import(s) => self.refuse("`import`", s.span().start_offset),
            Stmt::FromImport(s) => self.refuse("`import`", s.span().start_offset),
            Stmt::Extends(s) => self.refuse("`extends`", s.span().start_offset),
            Stmt::Include(s) => self.refuse("`include`", s.span().start_offset),
            Stmt::Macro(s) => self.refuse("`macro`", s.span().start_offset),
            Stmt::CallBlock(s) => self.refuse("`call`", s.span().start_offset),
            Stmt::Do(s) => self.refuse("`do`", s.span().start_offset),
        }
    }

    fn refuse(&mut self, what: &str, offset: u32) {
        let help = Some("there are `if`, `for`, `set`, `with`, `filter` and `raw`".to_owned());
        self.rewriter.faults.push(Fault { message: format!("{what} can't be used in prompts"), help, offset: offset as usize });
    }

    fn captured(&mut self, statements: &[Stmt]) -> String {
        let outer = std::mem::take(&mut self.out);
        self.scope(Vec::new(), statements);
        std::mem::replace(&mut self.out, outer)
    }

    /// The target of a `set`, whose names are known from here on.
    fn assign(&mut self, target: &Expr) -> String {
        let mut names = Vec::new();
        let target = self.target(target, &mut names);
        if let Some(scope) = self.rewriter.locals.last_mut() {
            scope.extend(names);
        }
        target
    }

    fn target(&mut self, target: &Expr, names: &mut Vec<String>) -> String {
        match target {
            Expr::Var(var) => {
                names.push(var.id.to_owned());
                var.id.to_owned()
            }
            Expr::List(list) => {
                let parts: Vec<String> = list.items.iter().map(|item| self.target(item, names)).collect();
                format!("({},)", parts.join(", "))
            }
            other => {
                self.refuse("assigning to a part of a value", other.span().start_offset);
                String::new()
            }
        }
    }
}

fn named(root: &str, path: &[crate::definition::Segment]) -> String {
    use crate::definition::Segment;
    path.iter().fold(root.to_owned(), |text, segment| match segment {
        Segment::Key(key) => format!("{text}.{key}"),
        Segment::Index(index) => format!("{text}[{index}]"),
    })
}
