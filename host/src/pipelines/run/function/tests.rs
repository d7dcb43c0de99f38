use proptest::prelude::*;

use super::super::Slot;
use super::*;
use crate::plan::{Pipeline, Secrets};

fn raw(text: &str) -> JsonText {
    serde_json::from_str(text).unwrap()
}

fn call(function: &str, with: &str) -> StepCall {
    let text = format!(
        r#"{{"function":"a:b/c.{function}","signature":"func(x: u32) -> result<u32, string>","with":{with},"timeout":1000,
            "attempts":2,"backoff":[100]}}"#
    );
    serde_json::from_str(&text).unwrap()
}

fn import() -> Import {
    let taken = r#"{"object":[["x",{"path":{"of":{"step":0},"path":["x"]}}]]}"#;
    Import {
        secrets: Secrets::default(),
        subject: "s".to_owned(),
        call: call("do", r#"{"object":[]}"#),
        undo: Some(call("undo", taken)),
    }
}

fn version(component: &str) -> Version {
    Version {
        component: component.to_owned(),
        settings: "5".repeat(16),
    }
}

fn run() -> Run {
    let text = r#"{"name":"p","function":"a:b/p.run","signature":"func() -> result<u32, string>","steps":[],
        "deadline":10000,"keep":60,"journal":65536,"durable":{"service":"s"}}"#;
    let pipeline: Pipeline = serde_json::from_str(text).unwrap();
    Run {
        coded: Some(Coded::new(&[0; SEED])),
        ..Run::new("id", &pipeline, raw("{}"), 0)
    }
}

fn ask(run: &mut Run, index: usize, x: u32) -> Heard {
    let arguments = raw(&format!(r#"{{"x":{x}}}"#));
    run.ask(index, &import(), arguments, &version("one"), 5)
}

fn ok() -> Outcome {
    Outcome::Ok(Some(raw("7")))
}

fn text(heard: Heard) -> String {
    match heard {
        Heard::Before(Ok(body), at) => format!("{} at {at}", String::from_utf8_lossy(&body)),
        Heard::Before(Err(error), at) => format!("{error} at {at}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn what_was_called_before_is_answered_from_the_steps() {
    let mut run = run();
    assert!(matches!(run.next(1), Action::Execute));
    assert!(matches!(ask(&mut run, 0, 1), Heard::Next(0, true)));
    run.record_call(Slot::of(0), 5, 6, ok());
    assert_eq!(run.settle_call(0).unwrap().unwrap(), r#"{"ok":7}"#);
    assert!(matches!(ask(&mut run, 1, 2), Heard::Next(1, true)));
    run.record_call(Slot::of(1), 6, 7, Outcome::Err(raw(r#""no""#)));
    assert_eq!(run.settle_call(1).unwrap().unwrap(), r#"{"err":"no"}"#);
    assert!(matches!(ask(&mut run, 2, 3), Heard::Next(2, true)));
    run.record_call(Slot::of(2), 7, 8, Outcome::Failed(CallError::trap("boom")));
    assert_eq!(run.settle_call(2).unwrap_err(), 108, "it is tried again");
    run.record_call(
        Slot::of(2),
        108,
        109,
        Outcome::Failed(CallError::trap("boom")),
    );
    assert_eq!(run.settle_call(2).unwrap().unwrap_err().message, "boom");

    let stored = serde_json::to_string(&run).unwrap();
    let mut run: Run = serde_json::from_str(&stored).unwrap();
    assert_eq!(text(ask(&mut run, 0, 1)), r#"{"ok":7} at 6"#);
    assert_eq!(text(ask(&mut run, 1, 2)), r#"{"err":"no"} at 7"#);
    assert_eq!(text(ask(&mut run, 2, 3)), "boom at 109");
    assert!(matches!(ask(&mut run, 3, 4), Heard::Next(3, true)));
}

#[test]
fn another_way_stops_the_run_and_undoes_nothing() {
    let began = || {
        let mut run = run();
        ask(&mut run, 0, 1);
        run.record_call(Slot::of(0), 5, 6, ok());
        run
    };
    let why = |run: &Run| {
        assert_eq!(run.phase, Phase::Stopped);
        assert!(run.has_ended() && run.reply().unwrap_err().code == Code::Accepted);
        run.why()
    };
    let mut run = began();
    assert!(matches!(ask(&mut run, 0, 2), Heard::Over));
    let same = "call 1, of a:b/c.do, has other arguments than before; component one (configuration 55555555) is the same";
    assert!(why(&run).starts_with(same), "{}", run.why());

    let mut run = began();
    let other = Import {
        call: call("other", r#"{"object":[]}"#),
        ..import()
    };
    run.ask(0, &other, raw(r#"{"x":1}"#), &version("two"), 5);
    let other = "call 1 is of a:b/c.other, and was of a:b/c.do; it was begun by component one (configuration 55555555) \
                 and is run by component two (configuration 55555555)";
    assert_eq!(why(&run), other);

    let mut run = began();
    run.returned(0, ok(), &version("one"), 9);
    assert!(why(&run).starts_with("after call 0 of 1 it returned, where it went on before"));

    run.resume();
    assert!(matches!(run.next(9), Action::Execute));
    assert!(matches!(ask(&mut run, 0, 1), Heard::Before(..)));
}

#[test]
fn a_call_that_a_dead_owner_may_have_made_is_undone() {
    let mut run = run();
    run.take_over("two");
    run.cancelled = true;
    // Only the function knows what it called.
    assert!(matches!(run.next(1), Action::Execute));
    assert!(matches!(ask(&mut run, 0, 3), Heard::Over));
    let Action::Undo(Slot { step: 0, .. }, arguments) = run.next(2) else {
        panic!("{run:?}")
    };
    assert_eq!(arguments, r#"{"x":3}"#);
    run.record_undo(Slot::of(0), 2, 3, Outcome::Ok(None));
    assert!(matches!(run.next(3), Action::Ended));
    assert_eq!(run.phase, Phase::RolledBack);
}

#[test]
fn a_run_that_nobody_died_with_is_cancelled_without_the_function() {
    let mut run = run();
    ask(&mut run, 0, 3);
    run.record_call(Slot::of(0), 5, 6, ok());
    run.cancelled = true;
    assert!(matches!(ask(&mut run, 1, 4), Heard::Over));
    assert_eq!(run.steps.len(), 1);
    assert!(matches!(run.next(7), Action::Undo(Slot { step: 0, .. }, _)));
}

#[test]
fn the_time_of_a_run_ends() {
    let mut run = run();
    run.returned(0, ok(), &version("one"), 20_000);
    assert_eq!(run.phase, Phase::Completed, "what is done is done");
    let mut run = self::run();
    assert!(matches!(run.next(10_000), Action::Ended));
    assert_eq!(run.reply().unwrap_err().code, Code::Deadline);
}

/// What happens next to a call or to the host that makes it.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ok,
    Err,
    Trap,
    Absent,
    /// The host dies before the call is made.
    DiesBefore,
    /// The host dies after it.
    DiesAfter,
    Cancel,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => Just(Event::Ok),
        1 => Just(Event::Err),
        2 => Just(Event::Trap),
        1 => Just(Event::Absent),
        2 => Just(Event::DiesBefore),
        2 => Just(Event::DiesAfter),
        1 => Just(Event::Cancel),
    ];
    prop::collection::vec(event, 0..30)
}

/// What the services did, by the arguments of each call: 0 is not done, and each undo takes one back.
#[derive(Default)]
struct World {
    done: [bool; 4],
    undone: Vec<usize>,
}

/// A function that makes four calls, and returns `err` when one of them does not succeed.
fn execute(
    run: &mut Run,
    world: &mut World,
    events: &mut impl Iterator<Item = Event>,
) -> Option<()> {
    for index in 0..4 {
        let heard = match ask(run, index, index.try_into().unwrap()) {
            Heard::Before(heard, _) => heard,
            Heard::Over => return Some(()),
            Heard::Next(index, _) => loop {
                let event = events.next().unwrap_or(Event::Ok);
                let outcome = match event {
                    Event::DiesBefore => return None,
                    Event::DiesAfter => {
                        world.done[index] = true;
                        return None;
                    }
                    Event::Err => Outcome::Err(raw(r#""no""#)),
                    Event::Absent => Outcome::Failed(CallError::no_responders("none")),
                    Event::Trap => {
                        world.done[index] = true;
                        Outcome::Failed(CallError::trap("boom"))
                    }
                    Event::Ok | Event::Cancel => {
                        run.cancelled |= matches!(event, Event::Cancel);
                        world.done[index] = true;
                        ok()
                    }
                };
                run.record_call(Slot::of(index), 5, 6, outcome);
                if let Ok(heard) = run.settle_call(index) {
                    break heard;
                }
            },
        };
        if heard.is_err() || heard.is_ok_and(|body| body.starts_with(b"{\"err")) {
            run.returned(
                index + 1,
                Outcome::Err(raw(r#""failed""#)),
                &version("one"),
                7,
            );
            return Some(());
        }
    }
    run.returned(4, ok(), &version("one"), 7);
    Some(())
}

proptest! {
    #[test]
    fn what_was_done_is_undone_or_the_run_is_completed(events in events()) {
        let (mut world, mut events) = (World::default(), events.into_iter());
        let mut run = run();
        let mut stored = run.clone();
        for _ in 0..100 {
            match run.next(6) {
                Action::Execute => {
                    // An owner that dies leaves what it wrote: everything before the last call.
                    let lives = execute(&mut run, &mut world, &mut events).is_some();
                    if lives {
                        stored = run.clone();
                    } else {
                        run.steps.pop_if(|step| step.state == StepState::Pending && step.tried.attempts == 0);
                        let kept = run.steps.len();
                        run.pipeline.steps.truncate(kept);
                        let cancelled = run.cancelled;
                        let unsure = stored.coded.as_ref().is_some_and(|coded| coded.unsure) && kept == stored.steps.len();
                        if let Some(coded) = &mut run.coded {
                            coded.unsure = unsure;
                        }
                        run.take_over("next");
                        run.cancelled = cancelled;
                        stored = run.clone();
                    }
                }
                Action::Undo(slot, _) => {
                    world.undone.push(slot.step);
                    run.record_undo(slot, 6, 6, Outcome::Ok(None));
                }
                Action::Wait(_) | Action::Busy(_) | Action::Call(..) => unreachable!(),
                Action::Ended => break,
            }
        }
        match run.phase {
            Phase::Completed => {
                prop_assert_eq!(world.done, [true; 4]);
                prop_assert!(world.undone.is_empty());
            }
            Phase::RolledBack => {
                prop_assert!(world.undone.is_sorted_by(|one, next| one > next), "{:?}", world.undone);
                for (index, done) in world.done.iter().enumerate() {
                    prop_assert!(!done || world.undone.contains(&index), "{index} is not undone: {run:?}");
                }
            }
            other => prop_assert!(false, "{other:?}: {run:?}"),
        }
    }
}

#[test]
fn requests_have_an_order_of_their_own_and_one_that_is_dropped_may_be_missing() {
    let mut run = run();
    let fetch = Import {
        call: StepCall {
            function: FETCH.parse().unwrap(),
            ..import().call
        },
        undo: None,
        ..import()
    };
    let arguments = |x: u32| raw(&format!(r#"{{"x":{x}}}"#));
    // A call, a request, a call: each sequence counts for itself.
    assert!(matches!(ask(&mut run, 0, 1), Heard::Next(0, true)));
    run.record_call(Slot::of(0), 5, 6, ok());
    let index = run.index_of(Sequence::Fetches, 0);
    let heard = run.ask(index, &fetch, arguments(2), &version("one"), 6);
    assert!(matches!(heard, Heard::Next(1, true)), "{heard:?}");
    run.record_call(Slot::of(1), 6, 7, ok());
    assert_eq!(run.index_of(Sequence::Calls, 1), 2);
    assert!(matches!(ask(&mut run, 2, 3), Heard::Next(2, true)));
    run.record_call(Slot::of(2), 7, 8, ok());
    assert_eq!(run.index_of(Sequence::Fetches, 0), 1);
    assert_eq!(
        (run.index_of(Sequence::Fetches, 1), run.asked_each_time()),
        (3, 2)
    );
    // Another time the request was dropped before it was asked for.
    let mut again = run.clone();
    again.returned(2, ok(), &version("one"), 9);
    assert_eq!(again.phase, Phase::Completed);
    run.returned(1, ok(), &version("one"), 9);
    assert_eq!(run.phase, Phase::Stopped);
}
