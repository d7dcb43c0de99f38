wit_bindgen::generate!({ path: "../../../wit", world: "bench-sink" });

use exports::bay::bench::events::{Guest, Item};

struct Sink;

impl Guest for Sink {
    fn happened(_item: Item) -> Result<(), String> {
        Ok(())
    }
}

export!(Sink);
