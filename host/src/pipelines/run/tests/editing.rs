use super::*;

/// A run whose first step could not be undone: nobody knows its result.
fn failed() -> Run {
    let mut run = run();
    let called = play(&mut run, |_| trap());
    assert_eq!((called.len(), run.phase), (3, Phase::UndoFailed));
    run
}

fn edit(run: &mut Run, step: Option<&str>, what: Edited, body: &str) -> Result<(), String> {
    let edited = run.edit(step, what, body.as_bytes());
    edited.map_err(|error| error.to_string())
}

#[test]
fn a_result_that_nobody_knew_is_what_the_undo_takes() {
    let mut run = failed();
    edit(&mut run, None, Edited::Result, "7").unwrap();
    run.reopen();
    let Action::Undo(ONE, arguments) = run.next(100) else {
        panic!()
    };
    assert_eq!(arguments, r#"{"x":7}"#);
    run.record_undo(ONE, 100, 101, ok());
    assert!(matches!(run.next(102), Action::Ended));
    assert_eq!(run.phase, Phase::RolledBack);
    assert!(run.steps[0].edited);
}

#[test]
fn edited_arguments_are_what_the_undo_gets() {
    let mut run = failed();
    edit(&mut run, Some("one"), Edited::Undo, r#"{"x":9}"#).unwrap();
    run = serde_json::from_slice(&serde_json::to_vec(&run).unwrap()).unwrap();
    run.reopen();
    let Action::Undo(ONE, arguments) = run.next(100) else {
        panic!()
    };
    assert_eq!(arguments, r#"{"x":9}"#);
}

#[test]
fn what_does_not_fit_is_not_edited() {
    let mut run = failed();
    let refused = |run: &mut Run, step, what, body| edit(run, step, what, body).unwrap_err();
    assert_eq!(
        refused(&mut run, None, Edited::Undo, r#"{"x":-1}"#),
        "step \"one\": arguments of its undo: $.x: expected u32 (0 to 4294967295), found -1"
    );
    assert_eq!(
        refused(&mut run, None, Edited::Result, r#""7""#),
        "step \"one\": result: $: expected u32 (0 to 4294967295), found \"7\""
    );
    // It was not called.
    assert_eq!(
        refused(&mut run, Some("two"), Edited::Undo, r#"{"x":1}"#),
        "there is no such step that was called; accepted: one"
    );
    assert!(!run.steps[0].edited && run.steps[0].result.is_none());
    run.reopen();
    assert_eq!(
        refused(&mut run, None, Edited::Undo, r#"{"x":1}"#),
        "its undo has not failed"
    );
}

#[test]
fn a_mask_that_is_left_stands_for_what_it_hides() {
    let mut run = run();
    let record = "record { card: string, count: u32 }";
    let undo = run.pipeline.steps[0].undo.as_mut().unwrap();
    undo.signature = format!("func(x: {record})").parse().unwrap();
    let x = r#"{"object":[["x",{"object":[["card",{"path":{"of":"input","path":["card"]}}],["count",{"json":1}]]}]]}"#;
    undo.with = serde_json::from_str(x).unwrap();
    run.pipeline.secret = vec![serde_json::from_str(r#"{"of":"input","path":["card"]}"#).unwrap()];
    run.input = raw(r#"{"card":"4111 1111"}"#);
    play(&mut run, |_| trap());
    assert_eq!(run.phase, Phase::UndoFailed);
    let shown = |run: &Run| run.masked().undo_arguments(ONE).unwrap().get().to_owned();
    assert_eq!(shown(&run), r#"{"x":{"card":"***","count":1}}"#);
    edit(
        &mut run,
        None,
        Edited::Undo,
        r#"{"x":{"card":"***","count":5}}"#,
    )
    .unwrap();
    let stored = run.steps[0].undo_with.as_ref().unwrap().get();
    assert_eq!(stored, r#"{"x":{"card":"4111 1111","count":5}}"#);
    assert_eq!(shown(&run), r#"{"x":{"card":"***","count":5}}"#);
    // What replaces it is as secret.
    edit(
        &mut run,
        None,
        Edited::Undo,
        r#"{"x":{"card":"4222","count":5}}"#,
    )
    .unwrap();
    assert_eq!(shown(&run), r#"{"x":{"card":"***","count":5}}"#);
}
