use std::collections::BTreeMap;
use std::path::Path;

use super::Secret;
use crate::manifest::{App, Manifest};
use crate::plan::{Description, Plan, Token, plan};
use crate::shape::InterfaceDescription;

fn interface(id: &str, functions: &[(&str, &str)]) -> InterfaceDescription {
    let functions = functions.iter();
    InterfaceDescription {
        id: id.parse().unwrap(),
        functions: functions
            .map(|(name, signature)| ((*name).to_owned(), signature.parse().unwrap()))
            .collect(),
        types: BTreeMap::new(),
    }
}

fn components() -> BTreeMap<String, Description> {
    let stock = || {
        interface(
            "shop:stock/stock@1.2.0",
            &[
                (
                    "reserve",
                    "func(order: string, count: u32) -> result<record { id: string }, string>",
                ),
                ("release", "func(id: string) -> result<_, string>"),
            ],
        )
    };
    let desk = Description {
        exports: vec![interface(
            "shop:desk/desk@1.0.0",
            &[
                ("place", "func(id: string) -> result<string, string>"),
                ("quote", "func() -> u32"),
            ],
        )],
        imports: vec![
            stock(),
            interface("shop:desk/events@1.0.0", &[("placed", "func(id: string)")]),
        ],
        ..Description::default()
    };
    let other = Description {
        exports: vec![stock()],
        ..Description::default()
    };
    [("desk", desk), ("stock", other)]
        .map(|(name, component)| (name.to_owned(), component))
        .into()
}

const EVENTS: &str = "[wire.'shop:desk/events']\nmode = 'event'\n";

fn app(lines: &str, more: &str) -> App {
    let text = format!(
        "name = 'app'\n[service.stock]\ncomponent = 'stock'\n{more}[service.desk]\ncomponent = 'desk'\n{lines}\n{EVENTS}"
    );
    let read = Manifest::parse(Path::new("wasmbay.toml"), &text);
    read.unwrap_or_else(|error| panic!("{error}")).app
}

fn planned(lines: &str, more: &str) -> Result<Plan, String> {
    let plan = plan(&app(lines, more), &components());
    plan.map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        errors.join("\n")
    })
}

const PLACE: &str = "durable = ['shop:desk/desk.place']\n";

#[test]
fn a_durable_function_is_planned_with_what_it_calls() {
    let undo = "[service.desk.undo.'shop:stock/stock.reserve']\ncall = 'shop:stock/stock.release'\nwith = { id = '$result.id' }";
    let plan = planned(&format!("{PLACE}{undo}"), "").unwrap();
    let [pipeline] = &plan.pipelines[..] else {
        panic!()
    };
    assert_eq!(pipeline.name, "desk-place");
    let imports = &pipeline.durable.as_ref().unwrap().imports;
    let known: Vec<_> = imports
        .iter()
        .filter(|import| import.subject.starts_with("bay."))
        .map(|import| {
            (
                &*import.subject,
                import.call.event.is_some(),
                import.undo.is_some(),
            )
        })
        .collect();
    let expected = [
        ("bay.app.shop.stock.stock.v1.release", false, false),
        ("bay.app.shop.stock.stock.v1.reserve", false, true),
        ("bay.app.shop.desk.events.v1.placed", true, false),
    ];
    assert_eq!(known, expected);
}

#[test]
fn it_is_written_and_read_as_part_of_an_app() {
    for lines in [
        PLACE,
        "durable = { functions = ['shop:desk/desk.place'], deadline = '5m', timeout = '2s', retry = { attempts = 2 } }\n\
         [service.desk.undo.'shop:stock/stock.reserve']\ncall = 'shop:stock/stock.release'\nwith = { id = '$args.order' }",
    ] {
        let app = app(lines, "");
        let written = serde_json::to_value(&app).unwrap();
        assert_eq!(serde_json::from_value::<App>(written).unwrap(), app);
    }
}

#[test]
fn an_asynchronous_component_has_no_durable_functions() {
    let mut components = components();
    components.get_mut("desk").unwrap().concurrent = true;
    plan(&app("", ""), &components).unwrap();
    let errors = plan(&app(PLACE, ""), &components).unwrap_err();
    let [error] = &errors[..] else {
        panic!("{errors:?}")
    };
    assert_eq!(
        error.to_string(),
        "wasmbay.toml:6:12: service \"desk\": `durable`: shop:desk/desk.place@1.0.0 is of an asynchronous component, which would \
         not take the same way when it is run again; build it for WASI 0.2, with plain functions"
    );
}

#[test]
fn what_cannot_be_durable_is_refused_by_name() {
    let undo = |of: &str, call: &str, with: &str| {
        format!("{PLACE}[service.desk.undo.'{of}']\ncall = '{call}'\nwith = {with}")
    };
    let reserve = "shop:stock/stock.reserve";
    let release = "shop:stock/stock.release";
    for (lines, more, why) in [
        (
            "durable = ['shop:desk/desk.plac']".to_owned(),
            "",
            "wasmbay.toml:6:12: service \"desk\": `durable`: it does not export shop:desk/desk.plac; did you mean `shop:desk/desk.place@1.0.0`?",
        ),
        (
            PLACE.to_owned(),
            "[service.third]\ncomponent = 'third'\nwire = { 'shop:desk/desk' = 'desk' }\n",
            "would call it past its runs",
        ),
        (
            undo("shop:stock/stock.reserv", release, "{ id = '$result.id' }"),
            "",
            "service \"desk\": `undo`: it does not import shop:stock/stock.reserv",
        ),
        (
            undo(reserve, release, "{ id = '$args.count' }"),
            "",
            "wasmbay.toml:9:15: service \"desk\": `undo` of shop:stock/stock.reserve@1.2.0: `with.id`: `$args.count` is u32; expected string",
        ),
        (
            undo(reserve, release, "{ id = '$result.name' }"),
            "",
            "`$result` is record { id: string }, which has no `name`",
        ),
        (
            undo(reserve, release, "{ id = '$reserve.id' }"),
            "",
            "no step before this one has the name `reserve`",
        ),
    ] {
        let refused = planned(&lines, more).unwrap_err();
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn names_of_runs_are_told_apart() {
    let pipeline = "[pipeline.desk-place]\nimplements = 'shop:more/more.run'\ntype = 'func()'\n[[pipeline.desk-place.step]]\n\
                    name = 'a'\ncall = 'shop:stock/stock.release'\nwith = { id = 'x' }\n";
    let refused = planned(&format!("{PLACE}{pipeline}"), "").unwrap_err();
    assert!(
        refused.contains("would have the name \"desk-place\""),
        "{refused}"
    );
}

#[test]
fn secret_values_of_durable_functions_are_planned() {
    let secret = "[service.desk.secret]\n'shop:desk/desk.place' = ['$args.id', '$result']\n\
                  'shop:stock/stock.reserve' = ['$args.order', '$result.id']\n";
    let plan = planned(&format!("{PLACE}{secret}"), "").unwrap();
    let pipeline = &plan.pipelines[0];
    let key = |key: &str| vec![Token::Key(key.to_owned())];
    assert_eq!(pipeline.secret, [Secret::of_input(key("id"))]);
    assert_eq!(pipeline.secret_result, [vec![]]);
    let imports = &pipeline.durable.as_ref().unwrap().imports;
    let reserve = imports
        .iter()
        .find(|import| import.call.function.name == "reserve")
        .unwrap();
    let secrets = &reserve.secrets;
    assert_eq!(
        (&secrets.arguments, &secrets.result),
        (&vec![key("order")], &vec![key("id")])
    );
    for (secret, expected) in [
        (
            "'shop:stock/stock.reserv' = ['$args.order']",
            "`secret`: it neither exports nor imports shop:stock/stock.reserv",
        ),
        (
            "'shop:stock/stock.reserve' = ['$args.card']",
            "`secret` of shop:stock/stock.reserve@1.2.0: `$args.card`: `$args` is record {",
        ),
        (
            "'shop:desk/desk.qote' = ['$result']",
            "`secret`: it neither exports nor imports shop:desk/desk.qote",
        ),
    ] {
        let errors = planned(&format!("{PLACE}[service.desk.secret]\n{secret}\n"), "").unwrap_err();
        assert!(errors.contains(expected), "{errors}");
    }
}
