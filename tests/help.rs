//! Guarantee: the help of every command fits into 100 columns, wherever it goes, and its paragraphs fill their lines.

use std::process::Command;

fn help(path: &[String], columns: Option<&str>) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_krowoc"));
    command.args(path).arg("--help").env_clear().envs(columns.map(|columns| ("COLUMNS", columns)));
    let output = command.output().expect("krowoc runs");
    assert!(output.status.success(), "{path:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The commands below one, by its help.
fn commands(help: &str) -> impl Iterator<Item = String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    // What is deeper belongs to the line above.
    let names = list.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned)
}

#[test]
fn every_help_fits_and_is_filled() {
    let mut open: Vec<Vec<String>> = vec![vec![], vec!["demo".into()]];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        let text = help(&path, None);
        assert_eq!(text, help(&path, Some("200")), "{path:?} is another on a wide terminal");
        seen += 1;
        open.extend(commands(&text).map(|name| [&path[..], &[name]].concat()));
        let lines: Vec<&str> = text.lines().collect();
        for (line, next) in lines.iter().zip(lines.iter().skip(1).chain([&""])) {
            let width = line.chars().count();
            assert!(width <= 100, "{path:?}, {width} columns: {line}");
            let prose = |line: &str| line.starts_with(char::is_alphabetic) && !line.ends_with(':');
            if prose(line) && prose(next) {
                let word = next.split(' ').next().unwrap_or_default().chars().count();
                assert!(width + 1 + word > 100, "{path:?} breaks a line early: {line}\n{next}");
            }
        }
    }
    assert!(seen > 20, "only {seen} commands were found");
}
