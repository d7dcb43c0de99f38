wit_bindgen::generate!({ path: "../../../wit", world: "bench-publishes", generate_all });

use bay::bench::events;
use exports::bay::bench::publisher::{Guest, Item};

struct Publishes;

impl Guest for Publishes {
    fn publish(item: Item) -> Result<(), String> {
        events::happened(&item)
    }
}

export!(Publishes);
