wit_bindgen::generate!({ path: "../wit", world: "{{name}}", generate_all });

struct Service;

impl exports::demo::{{snake}}::greetings::Guest for Service {
    fn greet(who: String) -> String {
        format!("Hello, {who}!")
    }
}

export!(Service);
