wit_bindgen::generate!({ path: "../../../wit", world: "bench" });

use exports::bay::bench::echo::{Guest, Item};

struct Bench;

impl Guest for Bench {
    fn echo(item: Item) -> Item {
        item
    }
}

export!(Bench);
