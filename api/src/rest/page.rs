//! Pages of lists, and the cursors between them. A cursor names a place in one list with its filters; it says nothing to anybody else, and
//! one that was not given by a page of that list is refused.

use crate::problem::{Code, Said};
use poem_openapi::{
    Object,
    types::{ParseFromJSON, ToJSON},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A page of a list.
#[derive(Debug, Serialize, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Page<T: ParseFromJSON + ToJSON + Send + Sync> {
    /// What is on it.
    pub items: Vec<T>,
    /// The next page's `cursor`; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl<T: ParseFromJSON + ToJSON + Send + Sync> Page<T> {
    /// Of one row more than a page has, if there is one: `place` is that of the last on the page.
    pub fn of<V: Into<T>, P: Serialize>(mut rows: Vec<V>, limit: u16, list: &List, place: impl Fn(&V) -> P) -> Self {
        let more = rows.len() > usize::from(limit);
        rows.truncate(limit.into());
        let next = rows.last().filter(|_| more).map(|last| list.cursor(&place(last)));
        Self { items: rows.into_iter().map(Into::into).collect(), next }
    }
}

/// A list with its filters.
pub struct List(String);

/// Bytes of the check in a cursor: it is against mistakes, not against forgers, who gain nothing.
const CHECK: usize = 6;

#[derive(Serialize, Deserialize)]
struct Cursor<P> {
    #[serde(rename = "p")]
    place: P,
}

impl List {
    /// Of a name and what it is filtered by.
    pub fn new(name: &str, filters: &impl Serialize) -> Self {
        Self(format!("{name} {}", serde_json::to_string(filters).unwrap_or_default()))
    }

    /// The cursor that names a place.
    pub fn cursor<P: Serialize + ?Sized>(&self, place: &P) -> String {
        let place = serde_json::to_string(&Cursor { place }).unwrap_or_default();
        let mut bytes = self.check(place.as_bytes()).to_vec();
        bytes.extend_from_slice(place.as_bytes());
        hex(&bytes)
    }

    /// The place that a cursor names.
    pub fn place<P: DeserializeOwned>(&self, cursor: &str) -> Result<P, Said> {
        let wrong =
            || Said::new(Code::InvalidCursor, "`cursor` is none that a page of this list with these filters gave; begin without one");
        let bytes = unhex(cursor).filter(|bytes| bytes.len() > CHECK).ok_or_else(wrong)?;
        let (check, place) = bytes.split_at(CHECK);
        if check != self.check(place) {
            return Err(wrong());
        }
        serde_json::from_slice::<Cursor<P>>(place).map(|cursor| cursor.place).map_err(|_| wrong())
    }

    fn check(&self, place: &[u8]) -> [u8; CHECK] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.0.as_bytes()).update(&[0]).update(place);
        let mut check = [0; CHECK];
        hasher.finalize_xof().fill(&mut check);
        check
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_gives_its_place_back_and_only_to_its_list() {
        let list = List::new("runs", &(Some("note"), None::<String>));
        let cursor = list.cursor("0198c0de");
        assert_eq!(list.place::<String>(&cursor).ok().as_deref(), Some("0198c0de"));
        for other in [List::new("runs", &(None::<String>, None::<String>)), List::new("letters", &(Some("note"), None::<String>))] {
            assert_eq!(other.place::<String>(&cursor).map_err(|said| said.code), Err(Code::InvalidCursor));
        }
        let changed = cursor.replace('0', "1");
        for wrong in ["", "0", "zz", "éé", &cursor[1..], &cursor[..cursor.len() - 2], changed.as_str(), &"00".repeat(40)] {
            assert_eq!(list.place::<String>(wrong).map_err(|said| said.code), Err(Code::InvalidCursor), "{wrong}");
        }
    }
}
