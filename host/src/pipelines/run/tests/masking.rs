use super::*;
use crate::plan::{Filled, Root, Secret};

/// A pipeline that is called with a card, which all of its steps get.
fn run() -> Run {
    let mut pipeline = pipeline();
    let secret = |text: &str| serde_json::from_str::<Secret>(text).unwrap();
    pipeline.secret = vec![
        secret(r#"{"of":"input","path":["card"]}"#),
        secret(r#"{"of":{"step":0},"path":["token"]}"#),
    ];
    let card = r#"{"path":{"of":"input","path":["card","number"]}}"#;
    let token = r#"{"path":{"of":{"step":0},"path":["token"]}}"#;
    let with = format!(r#"{{"object":[["x",{card}],["y",{token}]]}}"#);
    for step in &mut pipeline.steps[1..] {
        let crate::plan::Act::Call(call) = &mut step.act else {
            panic!()
        };
        call.with = serde_json::from_str(&with).unwrap();
    }
    let input = r#"{"id":"o-1","card":{"number":"4111 1111","cvc":"123"},"note":"none"}"#;
    Run::new("id", &pipeline, raw(input), 0)
}

fn shown(run: &Run) -> String {
    serde_json::to_string(&*run.masked()).unwrap()
}

#[test]
fn nothing_of_a_secret_value_is_shown() {
    let mut run = run();
    let mut calls = 0;
    let called = play(&mut run, |name| match name {
        "one" => Outcome::Ok(Some(raw(r#"{"token":"t0ken!","id":7}"#))),
        "three" => {
            calls += 1;
            Outcome::Err(raw(r#""card \"4111 1111\" with t0ken! is refused""#))
        }
        "undo two" => Outcome::Failed(CallError::trap("t0ken! was not there")),
        _ => ok(),
    });
    assert_eq!((calls, called.last().unwrap().as_str()), (1, "undo two"));
    // It is stored as it is.
    let stored = serde_json::to_string(&run).unwrap();
    assert!(stored.contains("4111 1111") && stored.contains("123") && stored.contains("t0ken!"));
    let masked = run.masked();
    assert_eq!(
        masked.input.get(),
        r#"{"id":"o-1","card":"***","note":"none"}"#
    );
    let three = masked.pipeline.steps[2].call().unwrap();
    let arguments = masked.arguments(Slot::of(2), three).unwrap();
    assert_eq!(arguments.get(), r#"{"x":"***","y":"***"}"#);
    let result = masked.steps[0].result.as_ref().unwrap();
    assert_eq!(result.get(), r#"{"token":"***","id":7}"#);
    let why = format!("{} {}", masked.why(), masked.why_not_undone());
    assert!(
        why.contains("card \\\"***\\\" with *** is refused") && why.contains("*** was not there"),
        "{why}"
    );
    assert!(!shown(&run).contains("t0ken!"));
}

#[test]
fn what_is_made_of_a_secret_value_is_masked_with_it() {
    let mut run = run();
    let path = r#"{"path":{"of":"input","path":["card"]}}"#;
    run.pipeline.result = serde_json::from_str(path).unwrap();
    assert_eq!(
        play(&mut run, |name| match name {
            "one" => Outcome::Ok(Some(raw(r#"{"token":"t0ken!","id":7}"#))),
            _ => ok(),
        })
        .len(),
        3
    );
    assert_eq!(body(&run.masked()).unwrap(), r#"{"ok":"***"}"#);
    assert!(body(&run).unwrap().contains("4111 1111"));
}

#[test]
fn what_stands_for_arguments_is_shown_in_their_place() {
    let mut run = super::run();
    let two = &mut run.pipeline.steps[1];
    let constant = |text: &str| Filled::constant(raw(text));
    let crate::plan::Act::Call(call) = &mut two.act else {
        panic!()
    };
    call.with = constant(r#"{"x":"hunter22"}"#);
    call.shown = Some(constant(r#"{"x":"***"}"#));
    run.pipeline.secret.push(Secret::of_step(0, Vec::new()));
    play(&mut run, |name| match name {
        "two" => Outcome::Failed(CallError::bad_arguments("hunter22 is no number")),
        _ => ok(),
    });
    assert!(!shown(&run).contains("hunter22"));
    assert_eq!(
        run.masked().why(),
        "step \"two\": *** is no number (code 400)"
    );
    assert_eq!(
        run.masked().steps[0].result.as_ref().unwrap().get(),
        "\"***\""
    );
    assert!(
        run.pipeline
            .secret
            .iter()
            .all(|secret| secret.of == Root::Step(0))
    );
}

#[test]
fn a_run_without_secret_values_is_shown_as_it_is() {
    assert!(matches!(
        super::run().masked(),
        std::borrow::Cow::Borrowed(_)
    ));
}
