wit_bindgen::generate!({ path: "../../../wit", world: "bench-chain", generate_all });

use bay::bench::relay;
use exports::bay::bench::chain::{Guest, Item};

struct Chain;

impl Guest for Chain {
    fn chain(item: Item) -> Item {
        relay::relay(&item)
    }
}

export!(Chain);
