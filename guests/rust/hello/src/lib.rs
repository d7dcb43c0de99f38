wit_bindgen::generate!({ path: "../../../wit", world: "hello" });

struct Hello;

impl exports::bay::hello::greeter::Guest for Hello {
    fn greet(name: String) -> String {
        format!("Hello, {name}!")
    }
}

export!(Hello);
