//! What the document says of the routes, for what the router does not do: to list the methods of a path, and to refuse parameters that an
//! operation does not have.

use super::{PREFIX, wrong};
use crate::problem::{Code, Said};
use poem::{PathPattern, http::Method};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The parameters in the query of each method.
type Methods = BTreeMap<String, BTreeSet<String>>;

/// The operations of a document, by the router's pattern.
pub struct Routes(HashMap<String, Methods>);

impl Routes {
    /// Of a document.
    pub fn of(document: &str) -> Self {
        let document: Value = serde_json::from_str(document).unwrap_or_default();
        let paths = document["paths"].as_object().into_iter().flatten();
        Self(paths.map(|(path, operations)| (pattern(path), methods(operations))).collect())
    }

    /// Of a path that is served for other methods only: with those that there are.
    pub fn with_methods(&self, error: poem::Error) -> poem::Error {
        if !error.is::<poem::error::MethodNotAllowedError>() {
            return error;
        }
        let pattern = error.data::<PathPattern>().cloned();
        let methods = pattern.as_ref().and_then(|pattern| self.0.get(&*pattern.0)).into_iter().flat_map(BTreeMap::keys);
        let mut allow: Vec<&str> = methods.map(String::as_str).collect();
        if allow.contains(&"GET") {
            allow.push("HEAD");
        }
        let allow = allow.join(", ");
        let said = Said::new(Code::MethodNotAllowed, format!("the path is served for {allow}, and not for this method"));
        let mut error = poem::Error::from(Said { allow: Some(allow), ..said });
        if let Some(pattern) = pattern {
            error.set_data(pattern);
        }
        error
    }

    /// Does the operation have all these parameters, and is none given twice?
    pub fn check_query<'a>(&self, pattern: &str, method: &Method, given: impl Iterator<Item = &'a str>) -> Result<(), Said> {
        // The router answers HEAD as GET.
        let known = self.0.get(pattern).and_then(|methods| methods.get(method.as_str()).or_else(|| methods.get("GET")));
        let known = known.ok_or_else(|| Said::fault().cause(format!("{method} {pattern} is not in the document")))?;
        let mut seen = BTreeSet::new();
        for name in given {
            if !known.contains(name) {
                let names: Vec<&str> = known.iter().map(String::as_str).collect();
                let there = if names.is_empty() { "it has none".into() } else { format!("there are {}", names.join(", ")) };
                return Err(wrong(name, format!("this operation has no such parameter; {there}")));
            }
            if !seen.insert(name) {
                return Err(wrong(name, "it is given more than once"));
            }
        }
        Ok(())
    }
}

/// poem-openapi numbers the parameters of a path.
fn pattern(path: &str) -> String {
    let parameters = std::cell::Cell::new(0);
    let segments = path.split('/').map(|segment| match segment.starts_with('{') {
        true => format!(":param{}", parameters.replace(parameters.get() + 1)),
        false => segment.to_owned(),
    });
    PREFIX.to_owned() + &segments.collect::<Vec<_>>().join("/")
}

fn methods(operations: &Value) -> Methods {
    let operations = operations.as_object().into_iter().flatten();
    operations
        .map(|(method, operation)| {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let in_query = parameters.filter(|parameter| parameter["in"] == "query");
            (method.to_uppercase(), in_query.filter_map(|parameter| parameter["name"].as_str().map(str::to_owned)).collect())
        })
        .collect()
}
