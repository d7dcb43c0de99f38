wit_bindgen::generate!({ path: "../../../wit", world: "bench-thrice", generate_all });

use bay::bench::echo;
use exports::bay::bench::thrice::{Guest, Item};

struct Thrice;

impl Guest for Thrice {
    fn thrice(item: Item) -> Item {
        echo::echo(&echo::echo(&echo::echo(&item)))
    }
}

export!(Thrice);
