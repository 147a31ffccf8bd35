//! What the syntax tree says about lookups and constants.

use super::Segment;
use minijinja::{
    Value,
    machinery::ast::{CompareOpKind, Expr, UnaryOpKind},
    value::ValueKind,
};

/// One step of a lookup as written.
pub(super) enum Subscript<'e, 'a> {
    Attribute(&'a str),
    Item(&'e Expr<'a>),
}

impl Subscript<'_, '_> {
    /// The subscript, if it is constant.
    pub(super) fn segment(&self) -> Option<Segment> {
        match self {
            Self::Attribute(name) => Some(Segment::Key((*name).to_owned())),
            Self::Item(expr) => {
                // `[-1]` is an operation on a constant.
                let negative = matches!(expr, Expr::UnaryOp(op) if matches!(op.op, UnaryOpKind::Neg));
                let value = if negative || matches!(expr, Expr::Const(_)) { expr.as_const()? } else { return None };
                match value.as_str() {
                    Some(key) => Some(Segment::Key(key.to_owned())),
                    None if value.is_integer() => value.as_i64().map(Segment::Index),
                    None => None,
                }
            }
        }
    }
}

/// The base of a chain of lookups and its subscripts, outermost first.
pub(super) fn unwind<'e, 'a>(expr: &'e Expr<'a>) -> (&'e Expr<'a>, Vec<Subscript<'e, 'a>>) {
    let mut base = expr;
    let mut subscripts = Vec::new();
    loop {
        match base {
            Expr::GetAttr(get) => {
                subscripts.push(Subscript::Attribute(get.name));
                base = &get.expr;
            }
            Expr::GetItem(get) => {
                subscripts.push(Subscript::Item(&get.subscript_expr));
                base = &get.expr;
            }
            _ => break,
        }
    }
    subscripts.reverse();
    (base, subscripts)
}

/// A lookup that is nothing but constant subscripts of a variable.
pub(in crate::definition) fn bare(expr: &Expr) -> Option<(String, Vec<Segment>)> {
    let (base, subscripts) = unwind(expr);
    let Expr::Var(var) = base else { return None };
    Some((var.id.to_owned(), subscripts.iter().map(Subscript::segment).collect::<Option<_>>()?))
}

/// The operator as source.
pub(super) fn comparison(op: CompareOpKind) -> &'static str {
    match op {
        CompareOpKind::Eq => "==",
        CompareOpKind::Ne => "!=",
        CompareOpKind::Lt => "<",
        CompareOpKind::Lte => "<=",
        CompareOpKind::Gt => ">",
        CompareOpKind::Gte => ">=",
        CompareOpKind::In => "in",
        CompareOpKind::NotIn => "not in",
    }
}

/// A constant as source; nothing for what has none (`1e999`).
pub(super) fn literal(value: &Value) -> Option<String> {
    match value.kind() {
        ValueKind::None => Some("none".into()),
        ValueKind::Bool => Some(if value.is_true() { "true" } else { "false" }.into()),
        ValueKind::String => value.as_str().map(quoted),
        ValueKind::Number if value.is_integer() => Some(value.to_string()),
        ValueKind::Number => f64::try_from(value.clone()).ok().filter(|f| f.is_finite()).map(|f| format!("{f:?}")),
        _ => None,
    }
}

/// A string literal. Only its delimiter and the backslash mean anything inside.
pub(in crate::definition) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
