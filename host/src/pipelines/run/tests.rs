mod editing;
mod masking;
mod together;
mod waiting;

use proptest::prelude::*;

use super::*;
use crate::interface::FunctionId;

const ONE: Slot = Slot::of(0);
const TWO: Slot = Slot::of(1);

/// A pipeline of three steps, each of which can be undone; undoing the first takes its result.
fn pipeline() -> Pipeline {
    let call = |function: &str, with: &str, attempts: u32| {
        format!(
            r#"{{"function":"a:b/c.{function}","signature":"func(x: u32) -> result<u32, string>","with":{with},"timeout":1000,
                "attempts":{attempts},"backoff":[100,200]}}"#
        )
    };
    let constant = r#"{"object":[["x",{"json":1}]]}"#;
    let step = |name: &str, on_error: &str, undo: &str| {
        format!(
            r#"{{"name":"{name}","act":{{"call":{}}},"onError":"{on_error}","error":{{"path":{{"of":"error","path":[]}}}},"undo":{}}}"#,
            call(name, constant, 3),
            call("undo", undo, 2),
        )
    };
    let own = r#"{"object":[["x",{"path":{"of":{"step":0},"path":[]}}]]}"#;
    let text = format!(
        r#"{{"name":"p","function":"a:b/p.run","signature":"func() -> result<u32, string>","steps":[{},{},{}],
            "result":{{"path":{{"of":{{"step":0}},"path":[]}}}},"deadline":10000,"keep":60,"journal":65536}}"#,
        step("one", "fail", own),
        step("two", "retry", constant),
        step("three", "fail", constant),
    );
    serde_json::from_str(&text).unwrap()
}

fn run() -> Run {
    Run::new("id", &pipeline(), raw("{}"), 0)
}

fn raw(text: &str) -> JsonText {
    serde_json::from_str(text).unwrap()
}

fn ok() -> Outcome {
    Outcome::Ok(Some(raw("7")))
}

fn err() -> Outcome {
    Outcome::Err(raw(r#""no""#))
}

fn trap() -> Outcome {
    Outcome::Failed(CallError::trap("boom"))
}

fn absent() -> Outcome {
    Outcome::Failed(CallError::no_responders("none"))
}

/// Does what comes next, with an outcome for each call and each undo; returns what was called.
fn play(run: &mut Run, mut outcome: impl FnMut(&str) -> Outcome) -> Vec<String> {
    let mut called = Vec::new();
    let mut now = run.began;
    for _ in 0..100 {
        match run.next(now) {
            Action::Call(index, _) => {
                let name = run.slot_name(index);
                let outcome = outcome(&name);
                called.push(name);
                run.record_call(index, now, now + 1, outcome);
            }
            Action::Busy(_) => panic!("nothing is under way"),
            Action::Undo(index, _) => {
                let name = format!("undo {}", run.slot_name(index));
                let outcome = outcome(&name);
                called.push(name);
                run.record_undo(index, now, now + 1, outcome);
            }
            Action::Wait(until) => {
                assert!(until > now);
                now = until;
                continue;
            }
            Action::Execute => panic!("it is no durable function"),
            Action::Ended => return called,
        }
        now += 1;
        // What is stored is what goes on.
        *run = serde_json::from_slice(&serde_json::to_vec(run).unwrap()).unwrap();
    }
    panic!("does not end: {called:?}");
}

fn body(run: &Run) -> Result<String, String> {
    let reply = run.reply();
    reply
        .map(|body| String::from_utf8(body.to_vec()).unwrap())
        .map_err(|error| error.to_string())
}

#[test]
fn steps_are_done_one_after_the_other() {
    let mut run = run();
    assert_eq!(play(&mut run, |_| ok()), ["one", "two", "three"]);
    assert_eq!(run.phase, Phase::Completed);
    assert_eq!(body(&run).unwrap(), r#"{"ok":7}"#);
}

#[test]
fn what_was_done_is_undone_from_the_last_on() {
    let mut run = run();
    let called = play(&mut run, |name| if name == "three" { err() } else { ok() });
    assert_eq!(called, ["one", "two", "three", "undo two", "undo one"]);
    assert_eq!(run.phase, Phase::RolledBack);
    assert_eq!(body(&run).unwrap(), r#"{"err":"no"}"#);
}

#[test]
fn an_unknown_outcome_is_undone_and_one_that_never_arrived_is_not() {
    let mut one = run();
    let called = play(&mut one, |name| if name == "three" { trap() } else { ok() });
    let undone = [
        "one",
        "two",
        "three",
        "three",
        "three",
        "undo three",
        "undo two",
        "undo one",
    ];
    assert_eq!(called, undone);
    assert_eq!(
        body(&one).unwrap_err(),
        "step \"three\": boom (code 500); what was done is undone"
    );
    let mut other = run();
    let called = play(
        &mut other,
        |name| if name == "three" { absent() } else { ok() },
    );
    assert_eq!(
        called,
        [
            "one", "two", "three", "three", "three", "undo two", "undo one"
        ]
    );
}

#[test]
fn an_err_value_is_tried_again_where_the_pipeline_says_so() {
    let mut left = 2;
    let mut one = run();
    let called = play(&mut one, |name| match name {
        "two" if left > 0 => {
            left -= 1;
            err()
        }
        _ => ok(),
    });
    assert_eq!(called, ["one", "two", "two", "two", "three"]);
}

#[test]
fn an_undo_that_fails_stops_the_run_until_it_is_opened_again() {
    let mut run = run();
    let called = play(&mut run, |name| match name {
        "three" | "undo two" => err(),
        _ => ok(),
    });
    assert_eq!(called, ["one", "two", "three", "undo two", "undo two"]);
    assert_eq!(run.phase, Phase::UndoFailed);
    let why = body(&run).unwrap_err();
    assert!(
        why.contains("step \"two\" could not be undone: it returned err: \"no\""),
        "{why}"
    );
    run.reopen();
    assert_eq!(play(&mut run, |_| ok()), ["undo two", "undo one"]);
    assert_eq!(run.phase, Phase::RolledBack);
}

#[test]
fn an_undo_that_needs_a_result_which_nobody_knows_is_for_a_person() {
    let mut one = run();
    let called = play(&mut one, |_| trap());
    assert_eq!(called, ["one", "one", "one"]);
    assert_eq!(one.phase, Phase::UndoFailed);
    assert!(body(&one).unwrap_err().contains("which nobody knows"));
    // The service has said of the step that it was not done.
    let mut first = true;
    let mut other = run();
    let called = play(&mut other, |_| {
        if std::mem::take(&mut first) {
            trap()
        } else {
            err()
        }
    });
    assert_eq!(called, ["one", "one"]);
    assert_eq!(other.phase, Phase::RolledBack);
}

#[test]
fn the_deadline_ends_the_steps_and_not_the_undoing() {
    let mut run = run();
    assert!(matches!(run.next(0), Action::Call(ONE, _)));
    run.record_call(ONE, 0, 1, ok());
    assert!(matches!(run.next(20_000), Action::Undo(ONE, _)));
    run.record_undo(ONE, 20_000, 90_000, ok());
    assert!(matches!(run.next(90_000), Action::Ended));
    assert!(body(&run).unwrap_err().contains("not done within 10s"));
}

#[test]
fn a_step_that_another_owner_was_about_to_do_may_be_done() {
    let mut run = run();
    run.next(0);
    run.record_call(ONE, 0, 1, ok());
    run.take_over("other");
    run.cancelled = true;
    assert!(matches!(run.next(2), Action::Undo(TWO, _)));
    assert_eq!(run.owner, "other");
}

#[test]
fn a_result_that_is_too_large_is_dropped_and_undone() {
    let mut run = run();
    run.next(0);
    run.record_call(ONE, 0, 1, ok());
    run.next(1);
    run.record_call(TWO, 1, 2, Outcome::Ok(Some(raw("123456"))));
    run.settle(2);
    run.overflow(TWO);
    assert_eq!(play(&mut run, |_| ok()), ["undo two", "undo one"]);
    assert!(body(&run).unwrap_err().contains("65536 bytes"));
}

#[test]
fn the_id_of_a_step_is_the_same_for_each_attempt() {
    let run = run();
    assert_eq!(
        (&*run.step_id(TWO, false), &*run.step_id(TWO, true)),
        ("id.two", "id.two.undo")
    );
}

#[test]
fn the_function_of_a_step_is_as_it_was_when_the_run_began() {
    let expected: FunctionId = "a:b/c.one".parse().unwrap();
    assert_eq!(run().pipeline.steps[0].call().unwrap().function, expected);
}

proptest! {
    /// Whatever happens, a run ends; it is completed with all steps done, or nothing is left done that has an
    /// undo which did not fail; and undoing goes backwards.
    #[test]
    fn a_run_ends_and_leaves_nothing_by_halves(outcomes in proptest::collection::vec(0_u8..5, 0..40)) {
        let mut run = run();
        let mut outcomes = outcomes.into_iter();
        let mut done = Vec::new();
        let called = play(&mut run, |name| {
            let outcome = match outcomes.next() {
                Some(1) => err(),
                Some(2) => trap(),
                Some(3) => absent(),
                _ => ok(),
            };
            if let Outcome::Ok(_) = outcome {
                match name.strip_prefix("undo ") {
                    None => done.push(name.to_owned()),
                    Some(step) => done.retain(|one| one != step),
                }
            }
            outcome
        });
        prop_assert!(run.has_ended() && run.ended.is_some());
        match run.phase {
            Phase::Completed => prop_assert_eq!(&done, &["one", "two", "three"]),
            Phase::RolledBack => prop_assert!(done.is_empty(), "{called:?}"),
            _ => prop_assert!(run.steps.iter().any(|step| step.undo.failure.is_some())),
        }
        let undone: Vec<_> = called.iter().filter_map(|name| name.strip_prefix("undo ")).collect();
        let order = |name: &&str| ["three", "two", "one"].iter().position(|one| one == name);
        prop_assert!(undone.windows(2).all(|pair| order(&pair[0]) <= order(&pair[1])));
    }

    #[test]
    fn what_is_no_journal_is_no_run(text in ".{0,200}") {
        prop_assert!(crate::pipelines::journal::parse(text.as_bytes()).is_err());
    }
}
