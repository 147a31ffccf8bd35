//! Turns an expression as written into one that minijinja evaluates with our rules, and reads off what it looks up.
//!
//! minijinja knows either strict lookups (an absent value can't be looked into) or lenient ones (it prints as nothing). Ours are
//! neither: absent values may be looked into, replaced and asked about, and nothing else. So every lookup becomes a call of one of
//! our own filters, which also names the lookup in its error and weighs what it found (see `limits`); and `~` becomes our own,
//! because minijinja would write values as Python does.

use super::{
    Segment,
    language::{self, FILTERS, FUNCTIONS, TESTS},
    lookup::Mode,
    syntax::{Subscript, comparison, literal, quoted, unwind},
};
use crate::definition::suggest::{advise, suggest};
use minijinja::machinery::ast::{BinOpKind, Call, CallArg, CallType, Expr, Filter, Test, UnaryOpKind};

/// How tightly an operator binds, in minijinja's grammar.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::definition) enum Level {
    If,
    Or,
    And,
    Not,
    Compare,
    Add,
    Multiply,
    Power,
    Unary,
    Primary,
}

/// A piece of rewritten source.
pub(in crate::definition) struct Code {
    text: String,
    level: Level,
}

impl Code {
    fn new(text: String, level: Level) -> Self {
        Self { text, level }
    }

    /// The text, in brackets if it binds less tightly than its place asks for.
    pub(in crate::definition) fn at(self, level: Level) -> String {
        if self.level < level { format!("({})", self.text) } else { self.text }
    }

    fn filtered(self, filter: &str) -> Self {
        Self::new(format!("{}|{filter}", self.at(Level::Unary)), Level::Unary)
    }
}

/// A lookup of a variable from outside.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::definition) struct Lookup {
    pub(in crate::definition) root: String,
    pub(in crate::definition) path: Vec<Segment>,
    /// Is the path all of it: no subscript is computed?
    pub(in crate::definition) constant: bool,
    /// Byte offset in the source.
    pub(in crate::definition) offset: usize,
}

/// Something that is wrong with an expression.
#[derive(Debug)]
pub(in crate::definition) struct Fault {
    pub(in crate::definition) message: String,
    pub(in crate::definition) help: Option<String>,
    pub(in crate::definition) offset: usize,
}

/// Writes expressions anew.
#[derive(Default)]
pub(in crate::definition) struct Rewriter {
    pub(in crate::definition) lookups: Vec<Lookup>,
    pub(in crate::definition) faults: Vec<Fault>,
    /// Names that the template itself assigns, innermost last.
    pub(in crate::definition) locals: Vec<Vec<String>>,
}

impl Rewriter {
    /// For a template, which may assign names of its own.
    pub(in crate::definition) fn for_template() -> Self {
        Self { locals: vec![Vec::new()], ..Self::default() }
    }

    fn is_local(&self, name: &str) -> bool {
        self.locals.iter().flatten().any(|local| local == name)
    }

    fn fault(&mut self, expr: &Expr, message: String, help: Option<String>) -> Code {
        self.faults.push(Fault { message, help, offset: expr.span().start_offset as usize });
        Code::new("none".into(), Level::Primary)
    }

    /// An expression whose value is used.
    pub(in crate::definition) fn used(&mut self, expr: &Expr) -> Code {
        self.write(expr, Mode::USED)
    }

    /// An expression that is only iterated over or counted, which minijinja charges for itself.
    pub(in crate::definition) fn seen(&mut self, expr: &Expr) -> Code {
        self.write(expr, Mode::SEEN)
    }

    fn write(&mut self, expr: &Expr, mode: Mode) -> Code {
        match expr {
            Expr::Var(var) if var.id == "null" && !self.is_local("null") => Code::new("none".into(), Level::Primary),
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) => self.lookup(expr, mode),
            Expr::Const(constant) => match literal(&constant.value) {
                Some(text) => Code::new(text, Level::Primary),
                None => self.fault(expr, format!("`{}` is no number", constant.value), None),
            },
            Expr::Slice(slice) => {
                let base = self.used(&slice.expr).at(Level::Primary);
                let mut part = |e: &Option<Expr>| e.as_ref().map(|e| self.used(e).at(Level::If)).unwrap_or_default();
                let (start, stop, step) = (part(&slice.start), part(&slice.stop), part(&slice.step));
                Code::new(format!("{base}[{start}:{stop}:{step}]"), Level::Primary).filtered(language::WEIGH)
            }
            Expr::UnaryOp(op) => match op.op {
                UnaryOpKind::Not => Code::new(format!("not {}", self.used(&op.expr).at(Level::Not)), Level::Not),
                UnaryOpKind::Neg => Code::new(format!("-{}", self.seen(&op.expr).at(Level::Primary)), Level::Unary),
            },
            Expr::BinOp(op) => self.binary(op.op, &op.left, &op.right, mode),
            Expr::Compare(compare) => {
                let mut text = self.used(&compare.expr).at(Level::Add);
                for op in &compare.ops {
                    text = format!("{text} {} {}", comparison(op.op), self.used(&op.expr).at(Level::Add));
                }
                Code::new(text, Level::Compare)
            }
            Expr::IfExpr(choice) => {
                let test = self.used(&choice.test_expr).at(Level::Or);
                let yes = self.write(&choice.true_expr, mode).at(Level::Or);
                let no = match &choice.false_expr {
                    Some(no) => self.write(no, mode).at(Level::If),
                    None if mode.absent_allowed() => language::ABSENT.to_owned(),
                    None => format!("({}|{})", language::ABSENT, language::NO_ELSE),
                };
                Code::new(format!("{yes} if {test} else {no}"), Level::If)
            }
            Expr::Filter(filter) => self.filter(expr, filter, mode),
            Expr::Test(test) => self.test(expr, test),
            Expr::Call(call) => self.call(expr, call),
            Expr::List(list) => {
                let items = self.items(&list.items);
                self.built(expr, format!("[{}]", items.join(", ")))
            }
            Expr::Tuple(tuple) => {
                let items = self.items(&tuple.items);
                self.built(expr, if items.len() == 1 { format!("({},)", items[0]) } else { format!("({})", items.join(", ")) })
            }
            Expr::Map(map) => {
                let (keys, values) = (self.items(&map.keys), self.items(&map.values));
                let pairs: Vec<String> = keys.iter().zip(&values).map(|(k, v)| format!("{k}: {v}")).collect();
                self.built(expr, format!("{{{}}}", pairs.join(", ")))
            }
        }
    }

    fn items(&mut self, items: &[Expr]) -> Vec<String> {
        items.iter().map(|item| self.used(item).at(Level::If)).collect()
    }

    fn built(&self, expr: &Expr, text: String) -> Code {
        let code = Code::new(text, Level::Primary);
        if expr.as_const().is_some() { code } else { code.filtered(language::WEIGH) }
    }

    fn binary(&mut self, op: BinOpKind, left: &Expr, right: &Expr, mode: Mode) -> Code {
        let (sign, level, next) = match op {
            BinOpKind::ScOr => ("or", Level::Or, Level::And),
            BinOpKind::ScAnd => ("and", Level::And, Level::Not),
            BinOpKind::Eq => ("==", Level::Compare, Level::Add),
            BinOpKind::Ne => ("!=", Level::Compare, Level::Add),
            BinOpKind::Lt => ("<", Level::Compare, Level::Add),
            BinOpKind::Lte => ("<=", Level::Compare, Level::Add),
            BinOpKind::Gt => (">", Level::Compare, Level::Add),
            BinOpKind::Gte => (">=", Level::Compare, Level::Add),
            BinOpKind::In => ("in", Level::Compare, Level::Add),
            BinOpKind::Add => ("+", Level::Add, Level::Multiply),
            BinOpKind::Sub => ("-", Level::Add, Level::Multiply),
            BinOpKind::Mul => ("*", Level::Multiply, Level::Power),
            BinOpKind::Div => ("/", Level::Multiply, Level::Power),
            BinOpKind::FloorDiv => ("//", Level::Multiply, Level::Power),
            BinOpKind::Rem => ("%", Level::Multiply, Level::Power),
            BinOpKind::Pow => ("**", Level::Power, Level::Unary),
            BinOpKind::Concat => {
                let left = self.used(left);
                let right = self.used(right).at(Level::If);
                return left.filtered(&format!("{}({right})", language::CONCAT));
            }
        };
        let logical = matches!(op, BinOpKind::ScOr | BinOpKind::ScAnd);
        // Comparisons don't associate in this grammar: `a == b == c` is a chain.
        let left_level = if level == Level::Compare { Level::Add } else { level };
        // What arithmetic makes is weighed as a whole: sums of lists copy nothing.
        let arithmetic = level > Level::Compare;
        let operand = if arithmetic { Mode::SEEN } else { Mode::USED };
        let left_text = self.write(left, operand).at(left_level);
        let right_text = self.write(right, if logical { mode } else { operand }).at(next);
        let code = Code::new(format!("{left_text} {sign} {right_text}"), level);
        if matches!(op, BinOpKind::Add | BinOpKind::Mul) && mode.weighed() { code.filtered(language::WEIGH) } else { code }
    }

    fn lookup(&mut self, expr: &Expr, mode: Mode) -> Code {
        let (base, subscripts) = unwind(expr);
        let mut path = Vec::new();
        let mut arguments = Vec::new();
        let mut constant = true;
        for subscript in &subscripts {
            match subscript.segment() {
                Some(segment) => {
                    arguments.push(match &segment {
                        Segment::Key(key) => quoted(key),
                        Segment::Index(index) => index.to_string(),
                    });
                    if constant {
                        path.push(segment);
                    }
                }
                None => {
                    constant = false;
                    if let Subscript::Item(e) = subscript {
                        arguments.push(self.used(e).at(Level::If));
                    }
                }
            }
        }
        let (base_text, name) = match base {
            Expr::Var(var) => {
                if !self.is_local(var.id) {
                    let offset = var.span().start_offset as usize;
                    self.lookups.push(Lookup { root: var.id.to_owned(), path, constant, offset });
                }
                (var.id.to_owned(), var.id)
            }
            base => (self.write(base, Mode::LOOK).at(Level::Unary), "(…)"),
        };
        arguments.insert(0, quoted(name));
        Code::new(format!("{base_text}|{}({})", mode.filter(), arguments.join(", ")), Level::Unary)
    }

    fn filter(&mut self, expr: &Expr, filter: &Filter, mode: Mode) -> Code {
        let name = filter.name;
        if !FILTERS.contains(&name) {
            let help = advise(name, "there are", FILTERS);
            return self.fault(expr, format!("unknown filter `{name}`"), help);
        }
        self.check_named(expr, name, &filter.args);
        let is_default = matches!(name, "default" | "d");
        let base_mode = match name {
            "default" | "d" => Mode::LOOK,
            "length" | "count" | "first" => Mode::SEEN,
            _ => Mode::USED,
        };
        let base = filter.expr.as_ref().map(|base| self.write(base, base_mode));
        let args = match (&filter.args[..], is_default) {
            // What replaces an absent value may be absent itself, where the whole may be.
            ([CallArg::Pos(first), rest @ ..], true) => {
                let mut args = vec![self.write(first, mode).at(Level::If)];
                args.extend(self.arguments(rest));
                args
            }
            (args, _) => self.arguments(args),
        };
        let call = format!("{name}({})", args.join(", "));
        let code = match base {
            Some(base) => base.filtered(&call),
            None => Code::new(call, Level::Unary),
        };
        // Lists and objects come out of some filters; what `default` hands on is weighed already.
        if is_default || filter.expr.is_none() || language::SCALAR_FILTERS.contains(&name) { code } else { code.filtered(language::WEIGH) }
    }

    fn test(&mut self, expr: &Expr, test: &Test) -> Code {
        let name = test.name;
        if !TESTS.contains(&name) {
            let help = advise(name, "there are", TESTS);
            return self.fault(expr, format!("unknown test `{name}`"), help);
        }
        let mode = if matches!(name, "defined" | "undefined") { Mode::LOOK } else { Mode::USED };
        let base = self.write(&test.expr, mode).at(Level::Unary);
        let args = self.arguments(&test.args);
        Code::new(format!("{base} is {name}({})", args.join(", ")), Level::Unary)
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Code {
        let (name, weigh) = match call.identify_call() {
            CallType::Function(name) if FUNCTIONS.contains(&name) && !self.is_local(name) => (name.to_owned(), name != "range"),
            CallType::Function(name) => {
                let help = if FILTERS.contains(&name) {
                    Some(format!("`{name}` is a filter: write `value | {name}`"))
                } else {
                    advise(name, "there are", FUNCTIONS)
                };
                return self.fault(expr, format!("unknown function `{name}`"), help);
            }
            // Of all objects only `loop` has methods.
            CallType::Method(Expr::Var(var), name) if var.id == "loop" && self.is_local("loop") => (format!("loop.{name}"), true),
            CallType::Method(_, name) | CallType::Block(name) => {
                let help = if FILTERS.contains(&name) {
                    Some(format!("there is a filter of that name: write `value | {name}`"))
                } else {
                    suggest(name, FILTERS.iter().copied()).map(|near| format!("the filter `{near}` may do: write `value | {near}`"))
                };
                return self.fault(expr, format!("`.{name}(…)`: values have no methods"), help);
            }
            CallType::Object(_) => return self.fault(expr, "a value can't be called".into(), None),
        };
        let code = Code::new(format!("{name}({})", self.arguments(&call.args).join(", ")), Level::Primary);
        if weigh { code.filtered(language::WEIGH) } else { code }
    }

    fn arguments(&mut self, args: &[CallArg]) -> Vec<String> {
        let write = |arg: &CallArg| match arg {
            CallArg::Pos(e) => self.used(e).at(Level::If),
            CallArg::Kwarg(name, e) => format!("{name}={}", self.used(e).at(Level::If)),
            CallArg::PosSplat(e) => format!("*{}", self.used(e).at(Level::If)),
            CallArg::KwargSplat(e) => format!("**{}", self.used(e).at(Level::If)),
        };
        args.iter().map(write).collect()
    }

    /// `map('uper')`, `select('od')`: the names of filters and tests that are handed on as strings.
    fn check_named(&mut self, expr: &Expr, filter: &str, args: &[CallArg]) {
        let (at, what, names) = match filter {
            "map" => (0, "filter", FILTERS),
            "select" | "reject" => (0, "test", TESTS),
            "selectattr" | "rejectattr" => (1, "test", TESTS),
            _ => return,
        };
        let Some(CallArg::Pos(Expr::Const(constant))) = args.get(at) else { return };
        if let Some(name) = constant.value.as_str().filter(|name| !names.contains(name) && !language::OPERATOR_TESTS.contains(name)) {
            self.fault(expr, format!("unknown {what} `{name}`"), advise(name, "there are", names));
        }
    }
}
