//! What a prompt's text offers for the fields of an answer: labelled values, dates, amounts, addresses, names. Rough on purpose: a
//! fitting value makes a demo readable, a missed one costs nothing.

use chrono::NaiveDate;

/// What was found in a text.
#[derive(Debug, Default)]
pub(super) struct Facts<'t> {
    pub(super) text: &'t str,
    /// `Invoice number: 17` → (`invoice number`, `17`)
    labels: Vec<(Vec<String>, &'t str)>,
    /// Rows of tables, each cell with its column's name.
    rows: Vec<Vec<(Vec<String>, &'t str)>>,
    /// ISO 8601.
    pub(super) dates: Vec<String>,
    pub(super) amounts: Vec<f64>,
    pub(super) numbers: Vec<f64>,
    pub(super) emails: Vec<&'t str>,
    pub(super) urls: Vec<&'t str>,
    /// Tokens of letters and digits: `INV-2031`.
    pub(super) identifiers: Vec<&'t str>,
    /// Capitalised words before `Ltd`, `GmbH`, …
    pub(super) organisations: Vec<String>,
    /// Two or three capitalised words in a row.
    pub(super) names: Vec<String>,
    /// ISO 4217.
    pub(super) currency: Option<&'static str>,
}

const CURRENCIES: [(&str, &[&str]); 6] = [
    ("EUR", &["EUR", "€", "Euro", "euros"]),
    ("USD", &["USD", "$", "US$", "dollars"]),
    ("GBP", &["GBP", "£", "pounds"]),
    ("CHF", &["CHF"]),
    ("JPY", &["JPY", "¥", "yen"]),
    ("SEK", &["SEK"]),
];
const COMPANY_FORMS: [&str; 18] = [
    "Ltd",
    "Limited",
    "Inc",
    "LLC",
    "GmbH",
    "AG",
    "KG",
    "Corp",
    "Corporation",
    "Company",
    "Co",
    "BV",
    "SA",
    "SARL",
    "plc",
    "PLC",
    "Oy",
    "AB",
];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

impl<'t> Facts<'t> {
    /// Looks through a text once.
    pub(super) fn of(text: &'t str) -> Self {
        let mut facts = Self { text, rows: rows(text), ..Self::default() };
        for line in text.lines() {
            facts.label(line);
            let words: Vec<&str> = line.split_whitespace().collect();
            for (at, word) in words.iter().enumerate() {
                facts.word(&words, at, word);
            }
            facts.capitalised(&words);
        }
        facts
    }

    /// The value of the label that a field's name means.
    pub(super) fn labelled(&self, field: &[String]) -> Option<&'t str> {
        let exact = self.labels.iter().find(|(label, _)| label == field);
        let wider = || self.labels.iter().find(|(label, _)| field.iter().all(|word| label.contains(word)));
        exact.or_else(wider).map(|(_, value)| *value)
    }

    /// The cell of the column that a field's name means, in the row of that number.
    pub(super) fn cell(&self, field: &[String], row: usize) -> Option<&'t str> {
        let row = self.rows.get(row)?;
        let exact = row.iter().find(|(column, _)| column == field);
        exact.or_else(|| row.iter().find(|(column, _)| field.iter().any(|word| column.contains(word)))).map(|(_, cell)| *cell)
    }

    /// How many rows have a cell for each of these fields.
    pub(super) fn rows_with(&self, fields: &[Vec<String>]) -> usize {
        (0..self.rows.len()).take_while(|row| fields.iter().all(|field| self.cell(field, *row).is_some())).count()
    }

    fn label(&mut self, line: &'t str) {
        let line = line.trim_start_matches(['-', '*', '#', '|', '>', ' ']);
        let Some((label, value)) = line.split_once(':') else { return };
        let label = words_of(label);
        let value = value.trim_matches(['*', '|', ' ', '\t', '"', ',']);
        if (1..=4).contains(&label.len()) && !value.is_empty() && value.len() <= 200 && !value.starts_with("//") {
            self.labels.push((label, value));
        }
    }

    fn word(&mut self, words: &[&'t str], at: usize, word: &&'t str) {
        let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
        let next = words.get(at + 1).copied().unwrap_or_default();
        if self.currency.is_none() {
            let here = |mark: &&str| bare == *mark || (!mark.is_ascii() || mark.contains('$')) && word.contains(*mark);
            self.currency = CURRENCIES.iter().find(|(_, marks)| marks.iter().any(here)).map(|(code, _)| *code);
        }
        if bare.contains('@') && bare.rsplit('@').next().is_some_and(|host| host.contains('.')) && bare.is_ascii() {
            self.emails.push(bare);
        } else if bare.starts_with("http://") || bare.starts_with("https://") {
            self.urls.push(word.trim_matches(['(', ')', '<', '>', ',', '.', '"', '\'']));
        } else if let Some(date) = numeric_date(bare).or_else(|| written_date(words, at)) {
            self.dates.push(date.to_string());
        } else if let Some(number) = number(word) {
            let previous = at.checked_sub(1).and_then(|before| words.get(before)).copied().unwrap_or_default();
            if !word.contains('%') && (is_money(word) || is_money(previous) || is_money(next)) {
                self.amounts.push(number);
            }
            self.numbers.push(number);
        } else if bare.len() >= 3
            && bare.chars().any(|c| c.is_ascii_digit())
            && bare.chars().any(|c| c.is_ascii_uppercase())
            && bare.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '/' | '_'))
        {
            self.identifiers.push(bare);
        }
    }

    /// Runs of capitalised words. The first word of a line is not taken for a name's first by itself.
    fn capitalised(&mut self, words: &[&str]) {
        let bare = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '&').to_owned();
        let capital = |word: &str| bare(word).starts_with(char::is_uppercase);
        let mut at = 0;
        while at < words.len() {
            let mut end = at;
            while end < words.len() && (capital(words[end]) || words[end] == "&") && end - at < 5 {
                end += 1;
                if words[end - 1].ends_with([',', ':', ';', '!', '?', '|']) {
                    break;
                }
            }
            if end - at >= 2 {
                let run: Vec<String> = words[at..end].iter().map(|word| bare(word)).collect();
                let name = run.join(" ");
                match run.last() {
                    Some(last) if COMPANY_FORMS.contains(&last.as_str()) => self.organisations.push(name),
                    _ if run.len() <= 3 && at > 0 && run.iter().all(|w| w.chars().skip(1).any(char::is_lowercase)) => self.names.push(name),
                    _ => {}
                }
            }
            at = end.max(at + 1);
        }
    }
}

/// The rows of the tables in a text: neighbouring lines with the same number of cells between `|`, the first one the header.
fn rows(text: &str) -> Vec<Vec<(Vec<String>, &str)>> {
    let mut rows = Vec::new();
    let mut header: Vec<Vec<String>> = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if cells.len() < 2 {
            header.clear();
        } else if header.len() != cells.len() {
            header = cells.into_iter().map(words_of).collect();
        } else if !cells.iter().all(|cell| cell.trim_matches(['-', ':']).is_empty()) {
            rows.push(header.iter().cloned().zip(cells).collect());
        }
    }
    rows
}

/// The words of a field's or label's name, lower case: `invoiceNumber`, `invoice_no`, `Invoice No.` → `invoice number`.
pub(super) fn words_of(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut lower = false;
    for c in name.chars() {
        let breaks = !c.is_alphanumeric() || (c.is_uppercase() && lower);
        if breaks && words.last().is_some_and(|word| !word.is_empty()) {
            words.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    for word in &mut words {
        match word.as_str() {
            "no" | "nr" | "num" => *word = "number".into(),
            "vat" => *word = "tax".into(),
            "qty" => *word = "quantity".into(),
            "item" => *word = "description".into(),
            _ => {}
        }
    }
    words
}

/// A number with or without thousands separators, currency signs and a percent sign around it.
pub(super) fn number(text: &str) -> Option<f64> {
    let (prefix, _) = text.split_once(|c: char| c.is_ascii_digit())?;
    let (_, suffix) = text.rsplit_once(|c: char| c.is_ascii_digit())?;
    // `INV-2031` is a name, `20kg` and `1st` are not plain numbers either.
    if [prefix, suffix].iter().any(|part| part.contains(char::is_alphabetic) && !is_money(part)) {
        return None;
    }
    let text = text.trim_matches(|c: char| !c.is_ascii_digit() && c != '-').trim_end_matches('-');
    let (sign, digits) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | '\'')) {
        return None;
    }
    let separators = digits.chars().filter(|c| matches!(c, '.' | ',')).count();
    // A last group of other than three digits, or the only point, is a fraction.
    let fraction = digits.rfind(['.', ',']).filter(|at| digits.len() - at - 1 != 3 || (separators == 1 && digits[*at..].starts_with('.')));
    let (whole, part) = fraction.map_or((digits, ""), |at| (&digits[..at], &digits[at + 1..]));
    let whole: String = whole.chars().filter(char::is_ascii_digit).collect();
    format!("{whole}.{part}0").parse::<f64>().ok().map(|number| sign * number)
}

/// The first number of a text.
pub(super) fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().find_map(number)
}

/// The first date of a text, as ISO 8601.
pub(super) fn first_date(text: &str) -> Option<String> {
    Facts::of(text).dates.into_iter().next()
}

fn is_money(word: &str) -> bool {
    let bare = word.trim_matches(|c: char| c.is_ascii_punctuation() && c != '$');
    CURRENCIES.iter().any(|(code, marks)| {
        bare == *code || marks.iter().any(|mark| bare == *mark || ((!mark.is_ascii() || mark.contains('$')) && word.contains(mark)))
    })
}

/// `2024-03-01`, `2024/03/01`, `01.03.2024`, `01/03/2024` (day first, unless that can't be).
fn numeric_date(text: &str) -> Option<NaiveDate> {
    let day = text.split('T').next().unwrap_or(text);
    let parts: Vec<u32> = day.split(['-', '/', '.']).map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [a, b, c] = parts[..] else { return None };
    let date = |year: u32, month, day| NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day);
    match (a, c) {
        (1000..=9999, _) => date(a, b, c),
        (_, 1000..=9999) => date(c, b, a).or_else(|| date(c, a, b)),
        _ => None,
    }
}

/// `1 March 2024`, `March 1, 2024`, found at its month.
fn written_date(words: &[&str], at: usize) -> Option<NaiveDate> {
    let bare = |at: Option<usize>| at.and_then(|at| words.get(at)).map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    let word = bare(Some(at))?.to_ascii_lowercase();
    let month = MONTHS.iter().position(|month| word.starts_with(month)).filter(|_| word.len() >= 3 && word.len() <= 9)? as u32 + 1;
    let day = |text: Option<&str>| text.and_then(|t| t.trim_end_matches(|c: char| c.is_alphabetic()).parse::<u32>().ok());
    let year = |text: Option<&str>| text.and_then(|t| t.parse::<i32>().ok()).filter(|year| (1000..=9999).contains(year));
    let (next, after) = (bare(Some(at + 1)), bare(Some(at + 2)));
    let day_first = day(bare(at.checked_sub(1))).zip(year(next));
    let (day, year) = day_first.or_else(|| day(next).zip(year(after)))?;
    NaiveDate::from_ymd_opt(year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVOICE: &str = "INVOICE\nAcme Tooling Ltd\nInvoice No.: INV-2031\nDate: 1 March 2024\nDue: 31.03.2024\nBilled to Jane Doe \
        (jane@acme.example)\n**Total due:** EUR 1,234.50\nVAT 20%: € 205.75\nhttps://acme.example/i/2031";

    #[test]
    fn an_invoices_facts_are_found() {
        let facts = Facts::of(INVOICE);
        assert_eq!(facts.labelled(&words_of("invoice_number")), Some("INV-2031"));
        assert_eq!(facts.labelled(&words_of("total")).and_then(first_number), Some(1234.5));
        assert_eq!(facts.dates, ["2024-03-01", "2024-03-31"]);
        assert_eq!(facts.amounts, [1234.5, 205.75]);
        assert_eq!(facts.emails, ["jane@acme.example"]);
        assert_eq!(facts.urls, ["https://acme.example/i/2031"]);
        assert_eq!(facts.organisations, ["Acme Tooling Ltd"]);
        assert_eq!(facts.names, ["Jane Doe"]);
        assert_eq!(facts.currency, Some("EUR"));
        assert!(facts.identifiers.contains(&"INV-2031"));
    }

    #[test]
    fn a_tables_cells_are_found_by_column_and_row() {
        let facts =
            Facts::of("Lines:\n| Item | Qty | Unit price |\n|---|--:|---|\n| Paper | 20 | 4.50 |\n| Toner | 2 | 61.25 |\n\nTotal: 5");
        assert_eq!(facts.cell(&words_of("description"), 1), Some("Toner"));
        assert_eq!(facts.cell(&words_of("unit_price"), 0), Some("4.50"));
        assert_eq!(facts.rows_with(&[words_of("quantity"), words_of("price")]), 2);
        assert_eq!(facts.rows_with(&[words_of("colour")]), 0);
    }

    #[test]
    fn numbers_are_read_in_either_notation() {
        for (text, value) in [
            ("1,234.50", 1234.5),
            ("1.234,50", 1234.5),
            ("1,234", 1234.0),
            ("$12", 12.0),
            ("-3.125", -3.125),
            ("20%", 20.0),
            ("7.", 7.0),
            ("EUR5", 5.0),
        ] {
            assert_eq!(number(text), Some(value), "{text}");
        }
        for text in ["", "abc", "1-2", "v1a2", "-", "INV-2031", "1st"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
