wit_bindgen::generate!({ path: "../../../wit", world: "bench-relay", generate_all });

use bay::bench::echo;
use exports::bay::bench::relay::{Guest, Item};

struct Relay;

impl Guest for Relay {
    fn relay(item: Item) -> Item {
        echo::echo(&item)
    }
}

export!(Relay);
