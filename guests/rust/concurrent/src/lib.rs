//! An asynchronous component: waits for timers and for calls, and does several things at once.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "concurrent",
    generate_all,
});

use std::sync::atomic::{AtomicU32, Ordering};

use bay::concurrent::slow;
use exports::bay::concurrent::work::Guest;
use futures_util::future::{self, Either};
use wasip3::clocks::monotonic_clock::wait_for;

struct Concurrent;

export!(Concurrent);

static CALLS: AtomicU32 = AtomicU32::new(0);

impl Guest for Concurrent {
    async fn all(texts: Vec<String>, millis: u32) -> Vec<String> {
        future::join_all(texts.into_iter().map(|text| slow::bracket(text, millis))).await
    }

    async fn first(quick: u32, late: u32) -> String {
        let quick = std::pin::pin!(slow::bracket("quick".to_owned(), quick));
        let late = std::pin::pin!(slow::bracket("late".to_owned(), late));
        match future::select(quick, late).await {
            Either::Left((text, _)) | Either::Right((text, _)) => text,
        }
    }

    async fn later(millis: u32, then_traps: bool) -> u32 {
        wit_bindgen::spawn_local(async move {
            wait_for(u64::from(millis) * 1_000_000).await;
            assert!(!then_traps, "as asked");
        });
        CALLS.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn failed() -> String {
        slow::trap(1).await;
        "not reached".to_owned()
    }

    fn plain(text: String) -> String {
        format!("<{text}>")
    }
}
