wit_bindgen::generate!({ path: "../../../wit", world: "bench-maker", generate_all });

use bay::bench::events;
use exports::bay::bench::maker::{Guest, Item};

struct Maker;

impl Guest for Maker {
    fn make(item: Item) -> Result<(), String> {
        events::happened(&item)
    }
}

export!(Maker);
