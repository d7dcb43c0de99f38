//! Steps that are done at the same time: groups, and items of lists.

use std::collections::BTreeSet;

use super::*;

/// A step, a group of two, a step for each line with two at once, and a last step. Each can be undone.
fn pipeline() -> Pipeline {
    let call = |function: &str, with: &str, attempts: u32| {
        format!(
            r#"{{"function":"a:b/c.{function}","signature":"func(x: u32) -> result<u32, string>","with":{with},"timeout":1000,
                "attempts":{attempts},"backoff":[100]}}"#
        )
    };
    let constant = r#"{"object":[["x",{"json":1}]]}"#;
    let step = |name: &str, more: &str, with: &str| {
        format!(
            r#"{{"name":"{name}","act":{{"call":{}}},"undo":{},{more}}}"#,
            call(name, with, 2),
            call("undo", constant, 2),
        )
    };
    let plain = r#""onError":"fail""#;
    let group = r#""onError":"fail","group":"g""#;
    let each = r#""onError":"fail","each":{"list":{"path":{"of":"input","path":["lines"]}},"atMost":3,"atOnce":2}"#;
    let item = r#"{"object":[["x",{"path":{"of":"item","path":["n"]}}]]}"#;
    let text = format!(
        r#"{{"name":"p","function":"a:b/p.run","signature":"func() -> result<list<u32>, string>","steps":[{},{},{},{},{}],
            "result":{{"path":{{"of":{{"step":3}},"path":[]}}}},"deadline":1000000,"keep":60,"journal":65536}}"#,
        step("one", plain, constant),
        step("two", group, constant),
        step("three", r#""onError":"retry","group":"g""#, constant),
        step("each", each, item),
        step("last", r#""onError":"continue""#, constant),
    );
    serde_json::from_str(&text).unwrap()
}

fn run_with(lines: &str) -> Run {
    Run::new(
        "id",
        &pipeline(),
        raw(&format!(r#"{{"lines":{lines}}}"#)),
        0,
    )
}

fn run() -> Run {
    run_with(r#"[{"n":5},{"n":6},{"n":7}]"#)
}

/// The calls that may be made now, with their arguments.
fn begin(run: &mut Run, now: u64) -> Vec<(Slot, String)> {
    let mut begun = Vec::new();
    while let Action::Call(slot, body) = run.next(now) {
        begun.push((slot, String::from_utf8(body.to_vec()).unwrap()));
    }
    begun
}

fn names(run: &Run, begun: &[(Slot, String)]) -> Vec<String> {
    begun.iter().map(|(slot, _)| run.slot_name(*slot)).collect()
}

fn end(run: &mut Run, begun: &[(Slot, String)], outcome: impl Fn() -> Outcome) {
    for (slot, _) in begun {
        run.record_call(*slot, 0, 1, outcome());
    }
}

/// A run whose group is under way.
fn in_group() -> (Run, Vec<(Slot, String)>) {
    let mut run = run();
    let first = begin(&mut run, 0);
    assert_eq!(names(&run, &first), ["one"]);
    assert!(matches!(run.next(0), Action::Busy(None)));
    end(&mut run, &first, ok);
    let group = begin(&mut run, 1);
    assert_eq!(names(&run, &group), ["two", "three"]);
    (run, group)
}

#[test]
fn steps_of_a_group_and_items_are_done_at_the_same_time() {
    let (mut run, group) = in_group();
    end(&mut run, &group, ok);
    let items = begin(&mut run, 2);
    assert_eq!(names(&run, &items), ["each.0", "each.1"]);
    assert_eq!(items[1].1, r#"{"x":6}"#);
    end(&mut run, &items[..1], ok);
    let last = begin(&mut run, 3);
    assert_eq!(names(&run, &last), ["each.2"]);
    assert_eq!(run.step_id(last[0].0, true), "id.each.2.undo");
    end(&mut run, &items[1..], ok);
    end(&mut run, &last, ok);
    let last = begin(&mut run, 4);
    end(&mut run, &last, ok);
    assert!(matches!(run.next(5), Action::Ended));
    assert_eq!(body(&run).unwrap(), r#"{"ok":[7,7,7]}"#);
}

#[test]
fn what_is_under_way_is_awaited_before_anything_is_undone() {
    let (mut run, group) = in_group();
    run.record_call(group[0].0, 1, 2, err());
    assert!(matches!(run.next(3), Action::Busy(None)));
    assert_eq!(run.phase, Phase::RollingBack);
    run.record_call(group[1].0, 1, 4, ok());
    assert_eq!(play(&mut run, |_| ok()), ["undo three", "undo one"]);
    assert_eq!(
        body(&run).unwrap_err(),
        "step \"two\": it returned err: \"no\" (code 502); what was done is undone"
            .replace(" (code 502)", "")
    );
}

#[test]
fn one_that_waits_for_its_next_attempt_does_not_hold_up_the_others() {
    let (mut run, group) = in_group();
    run.record_call(group[1].0, 1, 2, trap());
    assert!(matches!(run.next(3), Action::Busy(Some(102))));
    assert!(matches!(run.next(102), Action::Call(slot, _) if slot == group[1].0));
    run.record_call(group[0].0, 1, 104, ok());
    assert!(matches!(run.next(105), Action::Busy(None)));
}

#[test]
fn all_that_was_under_way_may_be_done_when_another_owner_takes_over() {
    let (run, group) = in_group();
    // Its owner wrote nothing since it began the group.
    let mut taken = run.clone();
    taken.under_way.clear();
    taken.take_over("other");
    taken.cancelled = true;
    assert_eq!(
        play(&mut taken, |_| ok()),
        ["undo three", "undo two", "undo one"]
    );
    // It has written that one failed, while the other was under way.
    let mut failed = run;
    failed.record_call(group[0].0, 1, 2, err());
    failed.settle(3);
    let mut failed: Run = serde_json::from_str(&serde_json::to_string(&failed).unwrap()).unwrap();
    failed.take_over("other");
    assert_eq!(play(&mut failed, |_| ok()), ["undo three", "undo one"]);
}

#[test]
fn items_are_undone_from_the_last_on() {
    let mut run = run();
    let called = play(&mut run, |name| if name == "each.2" { err() } else { ok() });
    let undone = [
        "undo each.1",
        "undo each.0",
        "undo three",
        "undo two",
        "undo one",
    ];
    assert_eq!(called[called.len() - 5..], undone);
    assert!(
        body(&run)
            .unwrap_err()
            .starts_with("step \"each.2\": it returned err")
    );
}

#[test]
fn a_list_may_be_empty_and_not_too_long() {
    let mut empty = run_with("[]");
    assert_eq!(play(&mut empty, |_| ok()), ["one", "two", "three", "last"]);
    assert_eq!(body(&empty).unwrap(), r#"{"ok":[]}"#);
    let mut long = run_with(r#"[{"n":1},{"n":1},{"n":1},{"n":1}]"#);
    play(&mut long, |_| ok());
    let why = "step \"each\": its list has 4 items, 3 are allowed; what was done is undone";
    assert_eq!(body(&long).unwrap_err(), why);
}

/// Owners that die, services that may have done what nobody knows of.
struct World {
    run: Run,
    stored: String,
    under_way: Vec<(Slot, bool)>,
    /// What services have done and not undone.
    done: BTreeSet<Slot>,
    /// What was written to be undone.
    undone: Vec<Slot>,
    now: u64,
}

impl World {
    fn write(&mut self) {
        self.stored = serde_json::to_string(&self.run).unwrap();
    }

    fn serve(&mut self, slot: Slot, undo: bool) {
        match undo {
            true => self.done.remove(&slot),
            false => self.done.insert(slot),
        };
    }

    /// One thing happens; false once the run has ended.
    fn step(&mut self, chance: u8) -> bool {
        self.now += 1;
        if chance >= 250 {
            // The owner dies; what is under way may arrive or not.
            for (slot, undo) in std::mem::take(&mut self.under_way) {
                if chance.is_multiple_of(2) {
                    self.serve(slot, undo);
                }
            }
            self.run = serde_json::from_str(&self.stored).unwrap();
            if self.run.has_ended() {
                return false;
            }
            self.run.take_over("next");
            self.write();
            return true;
        }
        match self.run.next(self.now) {
            Action::Call(slot, _) => self.under_way.push((slot, false)),
            Action::Undo(slot, _) => self.under_way.push((slot, true)),
            Action::Wait(until) => self.now = until,
            Action::Execute => panic!("it is no durable function"),
            Action::Ended => {
                self.write();
                return false;
            }
            Action::Busy(_) => {
                let index = usize::from(chance) % self.under_way.len();
                let (slot, undo) = self.under_way.remove(index);
                let outcome = match chance % 8 {
                    0 => err(),
                    1 => absent(),
                    2 => {
                        if chance > 127 {
                            self.serve(slot, undo);
                        }
                        trap()
                    }
                    _ => {
                        self.serve(slot, undo);
                        ok()
                    }
                };
                if undo && matches!(outcome, Outcome::Ok(_)) {
                    self.undone.push(slot);
                }
                match undo {
                    true => self.run.record_undo(slot, self.now, self.now, outcome),
                    false => self.run.record_call(slot, self.now, self.now, outcome),
                }
                self.run.settle(self.now);
                self.write();
            }
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever fails and whoever dies: a run ends, all is done or nothing is left, and undoing goes backwards
    /// with one success for each call, unless an undo fails.
    #[test]
    fn a_run_ends_and_leaves_nothing_by_halves_whoever_dies(chances in proptest::collection::vec(any::<u8>(), 0..120)) {
        let run = run();
        let stored = serde_json::to_string(&run).unwrap();
        let mut world = World { run, stored, under_way: Vec::new(), done: BTreeSet::new(), undone: Vec::new(), now: 0 };
        // In the end nothing fails any more.
        let mut chances = chances.into_iter().chain(std::iter::repeat_n(7, 200));
        while world.step(chances.next().unwrap()) {}
        let run = &world.run;
        prop_assert!(run.has_ended() && run.ended.is_some());
        match run.phase {
            // The last step goes on with an `err`.
            Phase::Completed => prop_assert!(world.done.len() >= 6, "{:?}", world.done),
            Phase::RolledBack => prop_assert!(world.done.is_empty(), "{:?}", world.done),
            _ => prop_assert!(run.not_undone().is_some()),
        }
        prop_assert!(world.undone.windows(2).all(|pair| pair[0] > pair[1]), "{:?}", world.undone);
    }
}
