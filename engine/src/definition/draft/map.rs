//! A map: its list, the name of its items, their keys, and the steps inside it.

use super::{Draft, Reader};
use crate::{
    definition::{
        Problem,
        dag::{MapPlan, Reads, Tolerance},
        explain::shown,
        expression::Template,
        model::MapStep,
        sole::is_expression,
        structure::{is_identifier, is_reserved},
    },
    id::FrameIx,
};
use serde_json::{Map, Value};

impl Reader {
    pub(super) fn map(
        &mut self,
        map: MapStep,
        at: &str,
        draft: &Draft,
        frame: usize,
        body: usize,
    ) -> (String, Option<Map<String, Value>>, Option<MapPlan>) {
        let below = |key: &str| format!("{at}/{key}");
        let item = self.take(map.item, &below("as")).unwrap_or_else(|| "item".into());
        self.item_name(&item, &below("as"), draft, frame);
        let over = self.required(map.over, &below("over")).and_then(|v| {
            if v.is_array() || v.as_str().is_some_and(is_expression) {
                return self.template(&v, &below("over"));
            }
            let problem = Problem::new("invalid_value", below("over"), format!("{} is no list", shown(&v)));
            let problems = if v.is_string() { &mut self.meaning } else { &mut self.shape };
            problems.push(problem.help("write a list, or one expression such as `${{ steps.split.output.parts }}`"));
            None
        });
        let key = self.take(map.key, &below("key")).and_then(|v| self.key(&v, &below("key")));
        let concurrency = self.take(map.concurrency, &below("concurrency"));
        let tolerate = self.take(map.tolerate, &below("tolerate")).map_or(Tolerance::Count(0), |t| t.0);
        let collect = self.take(map.collect, &below("collect")).and_then(|v| self.template(&v, &below("collect")));
        let steps = self.required(map.steps, &below("steps"));
        // A draft has at most as many frames as steps.
        let body = FrameIx(body as u16);
        let plan = over.map(|over| MapPlan {
            body,
            over,
            item: item.clone(),
            key,
            concurrency,
            tolerate,
            collect,
            collect_reads: Reads::default(),
        });
        (item, steps, plan)
    }

    fn item_name(&mut self, item: &str, at: &str, draft: &Draft, frame: usize) {
        if !is_identifier(item) {
            let problem = Problem::new("invalid_id", at, format!("`{item}` can't be an item's name"));
            self.meaning.push(problem.help("small letters, digits and underscores, at most 64, a letter first"));
        } else if is_reserved(item) {
            let problem = Problem::new("reserved_name", at, format!("`{item}` is a word of the language"));
            self.meaning.push(problem.help("give the item another name"));
        } else if let Some(outer) = draft.owners(frame).find(|f| draft.frames[*f].item == item) {
            let owner = draft.frames[outer].owner.map_or("", |o| draft.steps[o].id.as_str());
            let problem = Problem::new("reserved_name", at, format!("`{item}` is already the item of the enclosing map `{owner}`"));
            self.meaning.push(problem.help("name one of the items otherwise with `as`"));
        }
    }

    fn key(&mut self, value: &Value, at: &str) -> Option<Template> {
        let key = self.template(value, at)?;
        if key.references().is_empty() {
            let problem = Problem::new("constant_key", at, "every item has the same key");
            self.meaning.push(problem.help("write an expression over the item, such as `${{ item.id }}`"));
            return None;
        }
        Some(key)
    }
}
