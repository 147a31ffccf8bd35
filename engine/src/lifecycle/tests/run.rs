//! The run's machine, every (status, event) pair.

use crate::lifecycle::{RunEvent, RunStatus};

#[test]
fn every_pair_of_status_and_event_leads_where_the_table_says() {
    use RunEvent::*;
    use RunStatus::*;
    let events = [Succeed, Fail, Cancel, LastAttemptEnded, Redrive];
    #[rustfmt::skip]
    let table = [
        (Running,    [Some(Succeeded), Some(Failed), Some(Cancelling), None,            Some(Running)]),
        (Cancelling, [None,            Some(Failed), Some(Cancelling), Some(Cancelled), None]),
        (Succeeded,  [None,            None,         None,             None,            None]),
        (Failed,     [None,            None,         None,             None,            Some(Running)]),
        (Cancelled,  [None,            None,         None,             None,            None]),
    ];
    assert_eq!(table.map(|(status, _)| status), RunStatus::ALL);
    assert_eq!(events, RunEvent::ALL);
    for (status, row) in table {
        for (event, expected) in events.into_iter().zip(row) {
            let got = status.on(event);
            assert_eq!(got.ok(), expected, "{status:?} on {event:?}");
            if let Err(e) = got {
                assert_eq!((e.status, e.event), (status, event));
            }
        }
    }
}

#[test]
fn only_a_redrive_leaves_a_terminal_status_and_only_failed() {
    for status in RunStatus::ALL.into_iter().filter(|s| s.is_terminal()) {
        for event in RunEvent::ALL {
            let left = (status, event) == (RunStatus::Failed, RunEvent::Redrive);
            assert_eq!(status.on(event).is_ok(), left, "{status:?} on {event:?}");
        }
    }
}

#[test]
fn every_run_can_come_to_an_end() {
    for status in RunStatus::ALL {
        let mut reached = vec![status];
        for _ in RunStatus::ALL {
            let further = reached.iter().flat_map(|s| RunEvent::ALL.map(|event| s.on(event))).flatten().collect::<Vec<_>>();
            reached.extend(further);
        }
        assert!(reached.iter().any(|s| s.is_terminal()), "no way out of {status:?}");
    }
}

#[test]
fn a_refusal_names_status_and_event() {
    let say = |status: RunStatus, event| status.on(event).expect_err("not allowed").to_string();
    assert_eq!(say(RunStatus::Succeeded, RunEvent::Redrive), "a run that is succeeded can't be redriven");
    assert_eq!(say(RunStatus::Cancelling, RunEvent::Succeed), "a run that is cancelling can't succeed");
    assert_eq!(say(RunStatus::Cancelled, RunEvent::Fail), "a run that is cancelled can't fail");
    assert_eq!(say(RunStatus::Failed, RunEvent::Cancel), "a run that is failed can't be cancelled");
    assert_eq!(say(RunStatus::Running, RunEvent::LastAttemptEnded), "a run that is running can't end as cancelled");
}

#[test]
fn names_are_those_of_the_database() {
    for status in RunStatus::ALL {
        assert_eq!(serde_json::to_value(status).expect("a name"), status.name());
    }
}
