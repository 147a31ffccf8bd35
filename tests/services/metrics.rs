//! Guarantee: each process shows the metrics that docs/metrics.md says it has, and no others.

use crate::{
    place::Place,
    process::{LIMIT, Process, get},
};
use rustix::process::Signal;
use std::{collections::BTreeSet, fs, time::Instant};

const PAGE: &str = include_str!("../../docs/metrics.md");
/// There only where a lease was lost.
const BY_LOSS: &str = "krowoc_leases_reaped_total";

/// What the page has under headings that name the process.
fn documented(process: &str) -> BTreeSet<String> {
    let sections = PAGE.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'));
    let of_process = sections.filter(|(heading, _)| heading.contains(&format!("`{process}`")));
    let rows = of_process.flat_map(|(_, text)| text.lines()).filter_map(|line| line.strip_prefix("| `krowoc_"));
    rows.filter_map(|row| row.split_once('`')).map(|(name, _)| format!("krowoc_{name}")).collect()
}

fn shown(address: &str) -> BTreeSet<String> {
    let (_, metrics) = get(address, "/metrics");
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_shows_what_is_documented_for_it() {
    let place = Place::new().await;
    fs::create_dir(place.folder.path().join("workflows")).expect("made");
    let run = place.start("krowoc: v1\nname: quick\nsteps:\n  a: {transform: {x: 1}}\n").await;
    let environment = [("DATABASE_URL", place.url.as_str()), ("KROWOC_KEEP_RUNS", "1h")];
    for arguments in [&["serve", "--bind", "127.0.0.1:0"][..], &["worker", "--bind", "127.0.0.1:0"], &["dev", "--port", "0"]] {
        let mut process = Process::start(place.folder.path(), &environment, arguments);
        let address = process.address();
        let expected = documented(arguments[0]);
        assert!(expected.contains(BY_LOSS) && expected.len() > 5, "{expected:?}");
        let until = Instant::now() + LIMIT;
        loop {
            let mut shown = shown(&address);
            shown.insert(BY_LOSS.into());
            if shown == expected {
                break;
            }
            assert!(shown.is_subset(&expected), "{arguments:?} shows what is not documented: {:?}", shown.difference(&expected));
            assert!(Instant::now() < until, "{arguments:?} does not show {:?}", expected.difference(&shown));
        }
        process.signal(Signal::TERM);
        assert_eq!(process.ends().0.code(), Some(0));
    }
    assert_eq!(place.ended(run).await, "succeeded");
    place.done().await;
}
