use super::*;

fn secret(paths: &str) -> Result<Plan, Vec<String>> {
    let reserve = RESERVE.replace("implements =", &format!("secret = {paths}\nimplements ="));
    checkout(&reserve, CHARGE, RESULT)
}

#[test]
fn secret_values_are_planned() {
    let plan = secret("['$.order-id', '$reserve.id', '$charge', '$.customer']").unwrap();
    let pipeline = &plan.pipelines[0];
    let of = |of, path: &[&str]| Secret {
        of,
        path: path
            .iter()
            .map(|key| Token::Key((*key).to_owned()))
            .collect(),
    };
    assert_eq!(
        pipeline.secret,
        [
            of(Root::Input, &["orderId"]),
            of(Root::Step(0), &["id"]),
            of(Root::Step(1), &[]),
            of(Root::Input, &["customer"]),
        ]
    );
    let text = serde_json::to_string(pipeline).unwrap();
    assert_eq!(serde_json::from_str::<Pipeline>(&text).unwrap(), *pipeline);
}

#[test]
fn secret_values_that_are_not_there_are_refused() {
    for (paths, expected) in [
        (
            "['$.order-id', '$.card']",
            "wasmbay.toml:6:25: pipeline \"checkout\": `secret`: `$.card`: `$` is record {",
        ),
        (
            "['$.customer.name']",
            "`$.customer` is option<record { name: string }>, which may be none",
        ),
        (
            "['$pack.id']",
            "no step before this one has the name `pack`",
        ),
        ("['$error']", "`$error` is accepted in `error` only"),
        (
            "['$item']",
            "`$item` is accepted in a step with `each` only",
        ),
    ] {
        let errors = secret(paths).unwrap_err();
        assert!(errors[0].contains(expected), "{errors:#?}");
    }
    for typed in ["['card']", "'$.card'", "[1]"] {
        let text = format!(
            "name = 'app'\n[pipeline.p]\nimplements = 'a:b/c.d'\nsecret = {typed}\n[[pipeline.p.step]]\nname = 'x'\ncall = 'a:b/c.e'\n"
        );
        let error = Manifest::parse(Path::new("wasmbay.toml"), &text)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("`secret`: accepted: a list of paths"),
            "{error}"
        );
    }
}
