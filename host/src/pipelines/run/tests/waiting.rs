use super::*;

const STREAM: &str = "bay_app_a_b_events_v1";
const SUBJECT: &str = "bay.app.a.b.events.v1.paid";
const HOUR: u64 = 3_600_000;

/// A call, a sleep of ten seconds, and an event that is waited for an hour, beside another call.
fn waiting(on_error: &str) -> Run {
    let mut pipeline = pipeline();
    pipeline.deadline = 10 * HOUR;
    let step = |name: &str, act: &str, group: &str| {
        let text = format!(
            r#"{{"name":"{name}","act":{act},"onError":"{on_error}"{group},
                "error":{{"json":"late"}}}}"#
        );
        serde_json::from_str::<crate::plan::Step>(&text).unwrap()
    };
    let wait = format!(
        r#"{{"wait":{{"function":"a:b/events.paid","signature":"func(order: string)","subject":"{SUBJECT}",
            "stream":"{STREAM}","key":["order"],"equals":{{"path":{{"of":"input","path":["id"]}}}},"timeout":{HOUR}}}}}"#
    );
    let group = r#","group":"g""#;
    let mut three = pipeline.steps.pop().unwrap();
    three.group = Some("g".to_owned());
    pipeline.steps.pop();
    pipeline.steps.push(step("rest", r#"{"sleep":10000}"#, ""));
    pipeline.steps.push(step("paid", &wait, group));
    pipeline.steps.push(three);
    Run::new("id", &pipeline, raw(r#"{"id":"o-1"}"#), 0)
}

/// Goes on until the event is waited for and nothing else is left; returns the time.
fn until_it_waits(run: &mut Run) -> u64 {
    let Action::Call(ONE, _) = run.next(0) else {
        panic!()
    };
    run.record_call(ONE, 0, 5, ok());
    assert!(matches!(run.next(5), Action::Wait(10_005)));
    assert!(run.awaited().is_empty());
    // Only the time decides, not how often it is looked at.
    assert!(matches!(run.next(9_000), Action::Wait(10_005)));
    let Action::Call(slot, _) = run.next(10_005) else {
        panic!()
    };
    run.record_call(slot, 10_005, 10_010, ok());
    assert!(matches!(run.next(10_010), Action::Wait(until) if until == 10_005 + HOUR));
    10_010
}

#[test]
fn a_run_sleeps_and_takes_the_event_with_its_key() {
    let mut run = waiting("fail");
    let now = until_it_waits(&mut run);
    let awaited = run.awaited();
    assert_eq!((awaited.len(), awaited[0].key.get()), (1, "\"o-1\""));
    for (stream, subject, body) in [
        (STREAM, SUBJECT, r#"{"order":"o-2"}"#),
        (
            STREAM,
            "bay.app.a.b.events.v1.refunded",
            r#"{"order":"o-1"}"#,
        ),
        ("other", SUBJECT, r#"{"order":"o-1"}"#),
        (STREAM, SUBJECT, r#"{"order":1}"#),
    ] {
        let taken = run.take_event(stream, 3, subject, body.as_bytes(), now);
        assert_eq!(taken, None, "{subject} {body}");
    }
    let body = br#"{"order":"o-1"}"#;
    let partition = format!("{SUBJECT}.4");
    let taken = run.take_event(STREAM, 4, &partition, body, now);
    assert_eq!(taken, Some(Slot::of(2)));
    assert_eq!(
        run.steps[2].result.as_ref().unwrap().get(),
        r#"{"order":"o-1"}"#
    );
    assert!(matches!(run.next(now), Action::Ended));
    assert_eq!(run.phase, Phase::Completed);
}

#[test]
fn an_event_is_taken_once() {
    let mut run = waiting("fail");
    let mut again = run.pipeline.steps[2].clone();
    (again.name, again.group) = ("again".to_owned(), None);
    run.pipeline.steps.push(again);
    run.steps.push(StepRun::default());
    let now = until_it_waits(&mut run);
    let body = br#"{"order":"o-1"}"#;
    assert!(run.take_event(STREAM, 4, SUBJECT, body, now).is_some());
    assert!(matches!(run.next(now), Action::Wait(_)));
    assert_eq!(run.take_event(STREAM, 4, SUBJECT, body, now), None);
    assert_eq!(
        run.take_event(STREAM, 5, SUBJECT, body, now),
        Some(Slot::of(4))
    );
}

#[test]
fn an_event_that_does_not_come_fails_the_step() {
    let mut run = waiting("fail");
    let now = until_it_waits(&mut run);
    let Action::Undo(slot, _) = run.next(now + HOUR) else {
        panic!()
    };
    assert_eq!(slot, Slot::of(3));
    run.record_undo(slot, now, now, ok());
    assert_eq!(run.why(), "step \"paid\": no event came within 1h");
    assert_eq!(play(&mut run, |_| ok()), ["undo one"]);
    assert_eq!(body(&run).unwrap(), r#"{"err":"late"}"#);
    run.pipeline.steps[2].error = None;
    assert_eq!(run.reply().unwrap_err().code, Code::Deadline);
}

#[test]
fn a_run_goes_on_without_an_event_where_the_pipeline_says_so() {
    let mut run = waiting("continue");
    let now = until_it_waits(&mut run);
    assert!(matches!(run.next(now + HOUR), Action::Ended));
    assert_eq!(
        (run.phase, run.steps[2].state),
        (Phase::Completed, StepState::Declined)
    );
}

#[test]
fn a_run_that_is_cancelled_waits_for_nothing() {
    let mut run = waiting("fail");
    let now = until_it_waits(&mut run);
    run.cancelled = true;
    assert!(run.awaited().is_empty());
    assert!(matches!(run.next(now), Action::Undo(..)));
    // What waits has called nothing, whoever owned the run.
    let mut run = waiting("fail");
    until_it_waits(&mut run);
    run.take_over("other");
    assert!(!run.steps[2].unknown);
}
