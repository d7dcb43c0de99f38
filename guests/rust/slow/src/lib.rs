//! Answers after a while, for tests of what goes on meanwhile.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "slow",
    generate_all,
});

use exports::bay::concurrent::slow::Guest;
use wasip3::clocks::monotonic_clock::wait_for;

struct Slow;

export!(Slow);

impl Guest for Slow {
    async fn bracket(text: String, millis: u32) -> String {
        wait_for(u64::from(millis) * 1_000_000).await;
        format!("<{text}>")
    }

    async fn trap(millis: u32) {
        wait_for(u64::from(millis) * 1_000_000).await;
        panic!("as asked");
    }
}
