//! Lines and columns of a prompt file.

use crate::definition::{Problem, Span};

/// A file's text and the name that problems give it.
pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Place<'_> {
    /// A problem with the bytes `offset..offset + length` of the text.
    pub(super) fn problem(&self, code: &'static str, message: String, offset: usize, length: usize) -> Problem {
        let mut problem = Problem::new(code, "", message);
        problem.file = Some(self.file.to_owned());
        problem.span = Some(self.span(offset, length));
        problem
    }

    pub(super) fn span(&self, offset: usize, length: usize) -> Span {
        let offset = (0..=offset.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or_default();
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before[line_start..].chars().count() + 1;
        let length = length.min(self.text.len() - offset);
        Span { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX), offset, length }
    }

    /// The offset of a line (counted from 1) and a column in it (in characters, from 1).
    pub(super) fn offset(&self, line: u64, column: u64) -> usize {
        let mut start = 0;
        for _ in 1..line {
            match self.text[start..].find('\n') {
                Some(at) => start += at + 1,
                None => return self.text.len(),
            }
        }
        let line = self.text[start..].split('\n').next().unwrap_or_default();
        let column = usize::try_from(column.saturating_sub(1)).unwrap_or(usize::MAX);
        start + line.char_indices().nth(column).map_or(line.len(), |(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_and_lines_agree() {
        let place = Place { file: "p.md", text: "aä\n\nbc" };
        for (offset, line, column) in [(0, 1, 1), (1, 1, 2), (3, 1, 3), (4, 2, 1), (5, 3, 1), (7, 3, 3), (99, 3, 3)] {
            let span = place.span(offset, 1);
            assert_eq!((span.line, span.column), (line, column), "{offset}");
            assert_eq!(place.offset(line.into(), column.into()), offset.min(7), "{offset}");
        }
        // In the middle of a character: its start.
        assert_eq!(place.span(2, 1).offset, 1);
    }
}
