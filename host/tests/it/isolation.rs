//! What one guest can cost the others: every host function at its worst, and what the host keeps.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::{Duration, Instant};

use wasmbay::call::{Blame, Call, Code};
use wasmbay::runtime::EPOCH_TICK;

use std::sync::Arc;

use crate::service::{Guest, Other, guest_on, limits, runtime};
use crate::support::components::{GUEST, PROBE};

fn probe() -> Guest {
    guest_on(
        &runtime(5),
        PROBE,
        Other::Fails,
        limits(|l| {
            l.timeout = Duration::from_secs(20);
            l.wait = Duration::from_secs(20);
        }),
    )
}

/// The output of a future, and the longest time that it kept its thread.
async fn longest_poll<F: Future>(future: F) -> (F::Output, Duration) {
    let mut future = pin!(future);
    let mut longest = Duration::ZERO;
    let output = poll_fn(|context| {
        let started = Instant::now();
        let polled = future.as_mut().poll(context);
        longest = longest.max(started.elapsed());
        polled
    });
    (output.await, longest)
}

/// The longest time that a guest which computes keeps its thread, on this machine as it is now.
async fn tick(guest: &Guest) -> Duration {
    let call = Call {
        deadline: Instant::now() + Duration::from_millis(300),
        ..Guest::message("")
    };
    longest_poll(guest.send("spin", call)).await.1
}

#[tokio::test]
async fn no_host_function_keeps_its_thread() {
    let guest = probe();
    let baseline = tick(&guest).await;
    // As much as each of them takes, and more than each of them takes.
    for (function, most, beyond) in [
        ("random", 64 << 10, 64 << 20),
        ("log", 5 << 20, 100 << 20),
        ("poll", 15_000, 60_000),
        ("list-fields", 2_000, 80_000),
        ("list-fields", 2_000, 4 << 20),
        ("handles", 8_000, 20_000),
    ] {
        // A fresh instance, whose memory has to grow first.
        let _ = guest.call(function, r#"{"n":1}"#).await;
        let (within, took) = longest_poll(guest.call(function, &format!("[{most}]"))).await;
        within.unwrap();
        assert!(
            took < 8 * baseline,
            "{function}({most}): {took:?}, {baseline:?}"
        );
        let (over, took) = longest_poll(guest.call(function, &format!("[{beyond}]"))).await;
        let over = over.unwrap_err();
        assert_eq!((over.code, over.blame), (Code::Trap, Blame::Guest));
        assert!(over.message.contains("limit"), "{}", over.message);
        assert!(
            took < 8 * baseline,
            "{function}({beyond}): {took:?}, {baseline:?}"
        );
    }
}

#[tokio::test]
async fn what_the_host_holds_for_an_instance_is_bounded() {
    let guest = probe();
    guest.call("keep-fields", "[100]").await.unwrap();
    let error = guest.call("keep-fields", "[100000]").await.unwrap_err();
    assert_eq!((error.code, error.blame), (Code::Trap, Blame::Guest));
    assert!(
        error
            .message
            .contains("limit of 16777216 bytes that the host holds"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn an_instance_that_holds_too_much_is_not_used_again() {
    // Too little for a tick to notice, too much after a few calls.
    let guest = probe();
    for _ in 0..20 {
        guest.call("keep-fields", "[40]").await.unwrap();
    }
}

#[tokio::test]
async fn a_result_is_bounded_before_it_is_copied() {
    let guest = guest_on(&runtime(5), GUEST, Other::Fails, |_| {});
    let error = guest
        .call("repeat", r#"{"length":100000000}"#)
        .await
        .unwrap_err();
    assert_eq!((error.code, error.blame), (Code::TooLarge, Blame::Guest));
    assert!(
        error.message.contains("message limit of 1048576 bytes"),
        "{}",
        error.message
    );
}

/// Exports `test:bytes/api@1.0.0`, whose `echo` returns its argument and `zeros` so many bytes.
const BYTES: &str = r#"
(component
  (core module $code
    (memory (export "memory") 200)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
    (func (export "return") (param $at i32) (param $length i32) (result i32)
      (i32.store (i32.const 16) (local.get $at))
      (i32.store (i32.const 20) (local.get $length))
      (i32.const 16))
    (func (export "zeros") (param $length i32) (result i32)
      (i32.store (i32.const 16) (i32.const 1024))
      (i32.store (i32.const 20) (local.get $length))
      (i32.const 16)))
  (core instance $core (instantiate $code))
  (alias core export $core "memory" (core memory $memory))
  (alias core export $core "realloc" (core func $realloc))
  (func $echo (param "bytes" (list u8)) (result (list u8))
    (canon lift (core func $core "return") (memory (core memory $memory)) (realloc (core func $realloc))))
  (func $zeros (param "length" u32) (result (list u8))
    (canon lift (core func $core "zeros") (memory (core memory $memory))))
  (instance $api (export "echo" (func $echo)) (export "zeros" (func $zeros)))
  (export "test:bytes/api@1.0.0" (instance $api)))
"#;

#[tokio::test]
async fn a_list_of_bytes_is_as_large_as_a_message_can_hold() {
    let guest = guest_on(&runtime(5), BYTES, Other::Fails, |_| {});
    let text = format!("\"{}\"", "QUJD".repeat((1 << 18) - 2));
    let echoed = guest.call("echo", &format!("[{text}]")).await.unwrap();
    assert!(echoed == text);
    // The first is more than a message can hold, the second more than is copied to find that out.
    for length in [800_000, 10_000_000] {
        let error = guest
            .call("zeros", &format!("[{length}]"))
            .await
            .unwrap_err();
        assert_eq!((error.code, error.blame), (Code::TooLarge, Blame::Guest));
    }
}

#[tokio::test]
async fn guests_that_compute_do_not_starve_others_on_their_thread() {
    const SPINNING: u32 = 64;
    let runtime = runtime(80);
    let spinning = guest_on(&runtime, GUEST, Other::Fails, |spec| {
        spec.limits.timeout = Duration::from_secs(60);
        spec.limits.concurrency = SPINNING;
        spec.limits.wait = Duration::from_secs(60);
    });
    let tick = tick(&spinning).await.max(EPOCH_TICK);
    let spinning = Arc::new(spinning);
    let neighbour = guest_on(&runtime, GUEST, Other::Fails, |_| {});
    neighbour.service.warm().await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..SPINNING {
        let spinning = Arc::clone(&spinning);
        calls.spawn(async move {
            let call = Call {
                deadline: Instant::now() + Duration::from_secs(60),
                ..Guest::message("")
            };
            spinning.send("spin", call).await
        });
        // As a subscription does it, which lets others go after each call that it begins.
        tokio::task::yield_now().await;
    }
    let mut took = Vec::new();
    for _ in 0..40 {
        let called = Instant::now();
        // The call comes in by the runtime's driver, as a message does.
        tokio::time::sleep(Duration::from_millis(1)).await;
        neighbour.call("echo", r#"["x"]"#).await.unwrap();
        took.push(called.elapsed());
    }
    took.sort();
    let p95 = took[38];
    // In turn with all that spin it would be 64 ticks.
    assert!(p95 < 8 * tick, "{p95:?}, a tick is {tick:?}");
    assert!(calls.try_join_next().is_none(), "they still spin");
}
