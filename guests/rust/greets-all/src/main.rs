//! A program, not a service: it has a `main`, and calls the service that exports the greeter.

wit_bindgen::generate!({ path: "../../../wit", world: "greets-all", generate_all });

use bay::hello::greeter::greet;

fn main() {
    for name in std::env::args().skip(1) {
        println!("{}", greet(&name));
    }
}
