use proptest::prelude::*;

use super::*;
use crate::manifest::{CanarySpec, Percent, RollbackOn, Times};

fn spec(time: u64, calls: u32, errors: u32, p99: Option<u32>) -> RolloutSpec {
    RolloutSpec {
        canary: CanarySpec {
            share: Percent(1_000),
            time: Duration::from_secs(time),
            calls,
        },
        rollback_on: RollbackOn {
            errors: Percent(errors),
            p99: p99.map(Times),
        },
    }
}

/// So many calls of this duration, of which so many failed.
fn tally(calls: u64, errors: u64, millis: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..calls {
        tally.durations.record(Duration::from_millis(millis));
    }
    tally.errors = errors;
    tally
}

fn judged(spec: &RolloutSpec, seconds: u64, old: &Tally, new: &Tally) -> Option<End> {
    judge(spec, Duration::from_secs(seconds), old, new)
}

fn back(why: &str) -> Option<End> {
    Some(End::Back(why.to_owned()))
}

fn on(why: &str) -> Option<End> {
    Some(End::On(why.to_owned()))
}

#[test]
fn a_version_without_errors_goes_on_when_its_time_is_over() {
    let spec = spec(30, 50, 100, None);
    let (old, new) = (tally(900, 0, 2), tally(100, 0, 2));
    assert_eq!(judged(&spec, 29, &old, &new), None);
    assert_eq!(
        judged(&spec, 30, &old, &new),
        on("errors 0.0% of 100 calls")
    );
}

#[test]
fn one_with_more_errors_than_it_may_have_goes_back_once_there_were_enough_calls() {
    let spec = spec(30, 50, 100, None);
    let old = tally(3_000, 0, 2);
    assert_eq!(judged(&spec, 1, &old, &tally(49, 13, 2)), None);
    assert_eq!(
        judged(&spec, 1, &old, &tally(312, 13, 2)),
        back("errors 4.2% of 312 calls, at most 1%")
    );
    assert_eq!(judged(&spec, 1, &old, &tally(300, 3, 2)), None);
}

#[test]
fn one_that_fails_no_more_than_the_old_one_is_not_to_blame() {
    let spec = spec(30, 50, 100, None);
    let old = tally(1_000, 100, 2);
    assert_eq!(judged(&spec, 1, &old, &tally(100, 10, 2)), None);
    assert!(matches!(
        judged(&spec, 1, &old, &tally(100, 11, 2)),
        Some(End::Back(_))
    ));
}

#[test]
fn one_whose_first_calls_all_fail_goes_back_at_once() {
    let spec = spec(30, 50, 10_000, None);
    let old = tally(100, 1, 2);
    assert_eq!(judged(&spec, 1, &old, &tally(4, 4, 2)), None);
    assert_eq!(
        judged(&spec, 1, &old, &tally(5, 5, 2)),
        back("each of its 5 calls failed")
    );
}

#[test]
fn few_calls_are_judged_at_the_end() {
    let spec = spec(30, 50, 100, None);
    let old = tally(100, 0, 2);
    assert_eq!(judged(&spec, 29, &old, &tally(10, 1, 2)), None);
    assert_eq!(
        judged(&spec, 30, &old, &tally(10, 1, 2)),
        back("errors 10.0% of 10 calls, at most 1%")
    );
    assert_eq!(
        judged(&spec, 30, &old, &tally(3, 0, 2)),
        on("errors 0.0% of only 3 calls, where 50 would tell more")
    );
    assert_eq!(
        judged(&spec, 30, &Tally::default(), &Tally::default()),
        on("nobody called it")
    );
}

#[test]
fn one_that_is_much_slower_goes_back() {
    let spec = spec(30, 50, 100, Some(200));
    let old = tally(1_000, 0, 20);
    let told = judged(&spec, 1, &old, &tally(100, 0, 200));
    let Some(End::Back(why)) = told else {
        panic!("{told:?}");
    };
    assert!(
        why.starts_with("p99 ") && why.contains("at most 2x the"),
        "{why}"
    );
    // Too few calls of either, or a difference that is none.
    assert_eq!(judged(&spec, 1, &old, &tally(99, 0, 200)), None);
    assert_eq!(
        judged(&spec, 1, &tally(99, 0, 20), &tally(100, 0, 200)),
        None
    );
    assert_eq!(judged(&spec, 1, &old, &tally(100, 0, 24)), None);
    let mut micros = Tally::default();
    for _ in 0..200 {
        micros.durations.record(Duration::from_micros(60));
    }
    assert_eq!(judged(&spec, 1, &micros, &tally(100, 0, 2)), None);
}

fn observed(new: Tally) -> BTreeMap<String, Observed> {
    let one = Observed {
        old: tally(100, 0, 2),
        new,
        ..Observed::default()
    };
    BTreeMap::from([("a".to_owned(), one)])
}

#[test]
fn what_does_not_start_takes_the_revision_back() {
    let spec = spec(30, 50, 100, None);
    let services = BTreeMap::from([("a", &spec)]);
    let mut seen = observed(Tally::default());
    seen.get_mut("a").unwrap().failed = Some(("x".to_owned(), "it trapped".to_owned()));
    let ended = step(&services, &mut Time::default(), TICK, &seen);
    assert_eq!(ended, back("a does not start on x: it trapped"));
}

#[test]
fn time_counts_while_all_hosts_have_both_versions() {
    let spec = spec(2, 50, 100, None);
    let services = BTreeMap::from([("a", &spec)]);
    let mut time = Time::default();
    let mut seen = observed(tally(60, 0, 2));
    seen.get_mut("a").unwrap().missing = vec!["x".to_owned()];
    for _ in 0..MISSING.as_secs() {
        assert_eq!(step(&services, &mut time, TICK, &seen), None);
    }
    assert_eq!((time.elapsed, time.missing), (Duration::ZERO, MISSING));
    let mut late = time;
    assert_eq!(
        step(&services, &mut late, TICK, &seen),
        back("a was not there on x within 5m")
    );
    seen.get_mut("a").unwrap().missing.clear();
    assert_eq!(step(&services, &mut time, TICK, &seen), None);
    assert_eq!(
        step(&services, &mut time, TICK, &seen),
        on("a: errors 0.0% of 60 calls")
    );
}

#[test]
fn one_service_takes_all_back_and_all_have_to_go_on() {
    let (short, long) = (spec(1, 50, 100, None), spec(2, 50, 100, None));
    let services = BTreeMap::from([("a", &short), ("b", &long)]);
    let mut seen = observed(tally(60, 0, 2));
    seen.insert("b".to_owned(), seen["a"].clone());
    let mut time = Time::default();
    assert_eq!(step(&services, &mut time, TICK, &seen), None);
    let mut failing = seen.clone();
    failing.get_mut("b").unwrap().new = tally(60, 6, 2);
    assert_eq!(
        step(&services, &mut time.clone(), TICK, &failing),
        back("b: errors 10.0% of 60 calls, at most 1%")
    );
    assert!(matches!(
        step(&services, &mut time, TICK, &seen),
        Some(End::On(_))
    ));
}

fn rolled() -> Revision {
    let mut revision = Revision::of_shop(2, "rollout = { canary = \"20%\" }");
    let new = revision.specification.as_mut().unwrap();
    let digest = crate::manifest::Digest::of(b"b");
    new.components.insert("a".to_owned(), digest);
    revision.stable = Revision::of_shop(1, "").specification;
    revision
}

fn outcome(revision: u64, went_on: bool) -> Outcome {
    Outcome {
        format: crate::fleet::FORMAT,
        app: "shop".to_owned(),
        revision,
        went_on,
        why: "so".to_owned(),
        host: "x".to_owned(),
        at: String::new(),
    }
}

#[test]
fn a_revision_is_what_became_of_it() {
    let revision = rolled();
    let share = revision.rollouts()["a"].canary.share;
    assert_eq!(share, Percent(2_000));
    let [old, new] = [&revision.stable, &revision.specification].map(|s| s.clone().unwrap());
    assert_eq!(revision.works(), Some(&old));
    let went_on = revision.clone().ended(Some(&outcome(2, true)));
    assert_eq!(went_on.specification.as_ref(), Some(&new));
    assert!(went_on.rollouts().is_empty() && went_on.works() == Some(&new));
    let went_back = revision.clone().ended(Some(&outcome(2, false)));
    assert_eq!(went_back.specification.as_ref(), Some(&old));
    assert_eq!(went_back.asked(), Some(&new));
    assert!(went_back.rollouts().is_empty() && went_back.works() == Some(&old));
    // Of another revision, or of one that had no rollout.
    let other = revision.clone().ended(Some(&outcome(1, false)));
    assert_eq!(other, revision);
    let plain = Revision::of_shop(2, "");
    assert_eq!(plain.clone().ended(Some(&outcome(2, false))), plain);
}

#[test]
fn what_is_the_same_is_not_rolled_out() {
    let revision = rolled();
    let new = revision.specification.clone().unwrap();
    assert!(rollouts(&new, &new).is_empty());
    // More hosts are no new version, and a service without a rollout has none.
    let mut scaled = new.clone();
    scaled.app.services.get_mut("a").unwrap().replicas = crate::manifest::Replicas::All;
    assert!(rollouts(&new, &scaled).is_empty());
    let old = revision.stable.clone().unwrap();
    assert!(rollouts(&new, &old).is_empty());
}

proptest! {
    /// Whatever the figures are: one that is worse in nothing is never taken back, and one that is over its limit
    /// and worse is never let on.
    #[test]
    fn only_what_is_worse_goes_back(
        calls in 0u64..2_000, errors in 0u64..2_000, old_calls in 0u64..2_000, old_errors in 0u64..2_000,
        limit in 0u32..=10_000, least in 1u32..500, seconds in 0u64..60,
    ) {
        let spec = spec(30, least, limit, Some(200));
        let (errors, old_errors) = (errors.min(calls), old_errors.min(old_calls));
        let (old, new) = (tally(old_calls, old_errors, 2), tally(calls, errors, 2));
        let is_worse = above(errors, calls, old_errors, old_calls);
        let is_over = above(errors, calls, limit.into(), WHOLE);
        match judged(&spec, seconds, &old, &new) {
            Some(End::Back(_)) => prop_assert!(is_worse && (is_over || errors == calls)),
            Some(End::On(_)) => prop_assert!(seconds >= 30 && !(is_worse && is_over)),
            None => prop_assert!(seconds < 30),
        }
    }

    /// A lease that changes hands at any time loses no time that was counted, and none counts twice.
    #[test]
    fn a_rollout_goes_on_where_another_host_left_it(at in proptest::collection::vec(any::<bool>(), 1..60)) {
        let spec = spec(30, 1, 100, None);
        let services = BTreeMap::from([("a", &spec)]);
        let seen = observed(tally(60, 0, 2));
        let mut lease = Lease {
            format: 1,
            app: String::new(),
            revision: 1,
            host: String::new(),
            id: String::new(),
            elapsed_ms: 0,
            missing_ms: 0,
            services: BTreeMap::new(),
        };
        let mut counted = 0;
        for changes_hands in at {
            let mut time = lease.time();
            let passed = if changes_hands { Duration::ZERO } else { TICK };
            counted += u64::from(!changes_hands);
            let ended = step(&services, &mut time, passed, &seen);
            prop_assert_eq!(ended.is_some(), counted >= 30);
            lease.set_time(time);
            let text = serde_json::to_string(&lease).unwrap();
            lease = serde_json::from_str(&text).unwrap();
        }
    }
}
