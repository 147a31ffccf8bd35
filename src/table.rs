//! Tables, lengths of time and other short texts for people. What comes from models and files loses its control characters here: a terminal
//! would obey them.

use std::fmt;

/// Rows under headings, as wide as they need to be.
pub struct Table {
    rows: Vec<Vec<String>>,
    /// From this column on they are numbers.
    numbers: usize,
}

impl Table {
    /// An empty table.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()], numbers: usize::MAX }
    }

    /// From this column on, cells end below each other.
    pub fn numbers_from(self, column: usize) -> Self {
        Self { numbers: column, ..self }
    }

    /// Adds a row; cells beyond the headings are shown all the same.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column < self.numbers {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            });
            let cells: Vec<String> = cells.collect();
            let line = cells.join("  ");
            write!(f, "{}{}", if number == 0 { "" } else { "\n" }, line.trim_end())?;
        }
        Ok(())
    }
}

/// A text on one line, without control characters.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The same, cut to so many characters.
pub fn excerpt(text: &str, most: usize) -> String {
    let mut cut: String = clean(text).chars().take(most + 1).collect();
    if cut.chars().count() > most {
        cut.pop();
        cut.pop();
        cut.push('…');
    }
    cut
}

/// The text in lines of at most so many characters, broken at blanks.
pub fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// A length of time in its two largest units, as the engine's sentences have it: `12 ms`, `1.4 s`, `2 min 5 s`, `3 h 20 min`. The only place
/// where one is put into words.
pub fn span(milliseconds: i64) -> String {
    let seconds = milliseconds / 1000;
    match milliseconds.max(0) {
        ms @ 0..1000 => format!("{ms} ms"),
        ms @ 1000..60_000 => format!("{seconds}.{} s", ms % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600_000..86_400_000 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// `1 item`, `2 items`.
pub fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let mut table = Table::new(&["ID", "NAME"]);
        table.row(["1".into(), "böse\u{1b}[31m".into()]);
        table.row(["1000".into(), String::new()]);
        assert_eq!(table.to_string(), "ID    NAME\n1     böse [31m\n1000");
    }

    #[test]
    fn numbers_end_below_each_other() {
        let mut table = Table::new(&["step", "in", "out"]).numbers_from(1);
        table.row(["summarize", "1", "22"].map(str::to_owned));
        assert_eq!(table.to_string(), "step       in  out\nsummarize   1   22");
    }

    #[test]
    fn long_texts_are_broken_at_words() {
        let lines = wrapped(&"word ".repeat(50), 100);
        assert!(lines.lines().all(|line| line.len() <= 100) && lines.lines().count() == 3, "{lines}");
    }

    #[test]
    fn lengths_of_time_are_short() {
        let spans = [-1, 0, 999, 1_000, 59_999, 60_000, 3_600_000, 90_000_000].map(span);
        assert_eq!(spans, ["0 ms", "0 ms", "999 ms", "1.0 s", "59.9 s", "1 min 0 s", "1 h 0 min", "1 d 1 h"]);
    }

    #[test]
    fn an_excerpt_says_that_it_is_one() {
        assert_eq!(excerpt("abc", 3), "abc");
        assert_eq!(excerpt("ab\ncd", 4), "ab …");
    }
}
