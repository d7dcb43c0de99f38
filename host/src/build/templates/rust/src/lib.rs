wit_bindgen::generate!({ path: "../wit", world: "{{name}}", generate_all });

struct Service;

impl exports::demo::{{snake}}::greetings::Guest for Service {
    fn greet(who: String) -> String {
        format!("Hello, {who}!")
    }
}

export!(Service);

#[cfg(test)]
mod tests {
    use super::*;
    use exports::demo::{{snake}}::greetings::Guest as _;

    #[test]
    fn it_greets() {
        assert_eq!(Service::greet("you".to_owned()), "Hello, you!");
    }
}
