//! Whom a new revision of an app breaks. Pure.
//!
//! Hosts take over a revision one after the other, so its services and those of the one before call each
//! other for a while. The services of one revision fit together, which its plan has checked; here
//! callers of one are held against what answers in the other. What durable wires have stored counts as
//! calls of the old one that come late.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::{App, Provider};
use crate::plan::{self, Description, Plan};
use crate::shape::{InterfaceDescription, Signature};

/// Begins the name under which a pipeline stands beside the services.
const PIPELINE: &str = "pipeline ";

/// An app and the descriptions of its components.
#[derive(Clone, Copy, Debug)]
pub struct Deployed<'a> {
    /// The app.
    pub app: &'a App,
    /// The component of each service.
    pub components: &'a BTreeMap<String, Description>,
}

/// Something that stops working.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Break {
    /// What breaks, such as `service "orders"`.
    pub who: String,
    /// The function.
    pub function: FunctionId,
    /// Why.
    pub why: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, function, why } = self;
        write!(f, "breaks {who}: `{function}` {why}")
    }
}

/// A function as someone calls it.
struct Caller<'a> {
    who: String,
    function: FunctionId,
    signature: &'a Signature,
}

/// What `new` breaks in the place of `old`, whatever calls it.
#[must_use]
pub fn breaks(old: Deployed<'_>, new: Deployed<'_>) -> Vec<Break> {
    let mut found = Vec::new();
    let old_plan = plan::plan(old.app, old.components).ok();
    let new_plan = plan::plan(new.app, new.components).ok();
    let [old_components, new_components] = [(old, &old_plan), (new, &new_plan)]
        .map(|(deployed, plan)| with_pipelines(deployed.components, plan.as_ref()));
    let (old, new) = (
        Deployed {
            components: &old_components,
            ..old
        },
        Deployed {
            components: &new_components,
            ..new
        },
    );
    let mut callers = importers(old, |service| {
        // Events that were stored outlive their publisher.
        format!("service \"{service}\" of the revision that runs")
    });
    callers.retain(|(service, caller)| {
        let is_kept = new.app.services.contains_key(*service);
        is_kept || is_durable(old.app, &caller.function.interface)
    });
    let mut callers: Vec<_> = callers.into_iter().map(|(_, caller)| caller).collect();
    // A route that the manifest no longer has was taken away on purpose.
    let kept: BTreeSet<_> = new.app.routes.iter().map(|route| route.label()).collect();
    let routes = old_plan.iter().flat_map(|plan| &plan.routes);
    callers.extend(
        routes
            .filter(|planned| kept.contains(&planned.route.label()))
            .map(|planned| Caller {
                who: format!("clients of route \"{}\"", planned.route.label()),
                function: planned.function.clone(),
                signature: &planned.signature,
            }),
    );
    let known: BTreeSet<_> = callers.iter().map(|c| c.function.clone()).collect();
    for caller in &callers {
        found.extend(unanswered(caller, new));
    }
    // Whoever else calls was built against what is exported now.
    for (_, export) in exports(old) {
        for (name, signature) in &export.functions {
            let function = export.id.function(name);
            let answered = find(new, &export.id, name).next().is_some();
            if known.contains(&function) || !answered {
                continue;
            }
            let who = "clients of the revision that runs".to_owned();
            let caller = Caller {
                who,
                function,
                signature,
            };
            found.extend(unanswered(&caller, new));
        }
    }
    // The other direction: new callers meet the old ones until all hosts have taken over.
    let broken: BTreeSet<_> = found.iter().map(|one| one.function.clone()).collect();
    for (_, caller) in importers(new, |service| {
        format!("service \"{service}\" of this deploy")
    }) {
        if broken.contains(&caller.function) {
            continue;
        }
        for (service, signature) in find(old, &caller.function.interface, &caller.function.name) {
            if let Err(why) = caller.signature.can_call(signature) {
                found.push(Break {
                    who: caller.who.clone(),
                    function: caller.function.clone(),
                    why: format!(
                        "cannot be answered by {} of the revision that runs beside it: {why}",
                        shown(service)
                    ),
                });
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The components, and what pipelines answer as though each were one. No service has such a name.
fn with_pipelines(
    components: &BTreeMap<String, Description>,
    plan: Option<&Plan>,
) -> BTreeMap<String, Description> {
    let mut all = components.clone();
    for pipeline in plan.iter().flat_map(|plan| &plan.pipelines) {
        let FunctionId { interface, name } = pipeline.function.clone();
        let export = InterfaceDescription {
            id: interface,
            functions: BTreeMap::from([(name, pipeline.signature.clone())]),
            types: BTreeMap::new(),
        };
        let description = Description {
            exports: vec![export],
            ..Description::default()
        };
        all.insert(format!("{PIPELINE}{}", pipeline.name), description);
    }
    all
}

/// What answers, as it is shown.
fn shown(answers: &str) -> String {
    match answers.strip_prefix(PIPELINE) {
        Some(name) => format!("pipeline \"{name}\""),
        None => format!("service \"{answers}\""),
    }
}

/// Why a caller gets no answer in `new`.
fn unanswered(caller: &Caller<'_>, new: Deployed<'_>) -> Vec<Break> {
    let FunctionId { interface, name } = &caller.function;
    let broken = |why: String| Break {
        who: caller.who.clone(),
        function: caller.function.clone(),
        why,
    };
    let mut answers = find(new, interface, name).peekable();
    if answers.peek().is_none() {
        let external = provider(new.app, interface).is_some_and(Provider::is_external);
        let is_event = is_event(new.app, interface);
        // Events without a subscriber are nothing unusual.
        return if external || is_event {
            Vec::new()
        } else {
            vec![broken("is gone".to_owned())]
        };
    }
    answers
        .filter_map(|(service, signature)| {
            let why = caller.signature.can_call(signature).err()?;
            Some(broken(format!(
                "has another type in {}: {why}",
                shown(service)
            )))
        })
        .collect()
}

/// What services import, with the service.
fn importers<'a>(of: Deployed<'a>, who: impl Fn(&str) -> String) -> Vec<(&'a str, Caller<'a>)> {
    let mut callers = Vec::new();
    for (service, component) in of.components {
        for import in &component.imports {
            for (name, signature) in &import.functions {
                let caller = Caller {
                    who: who(service),
                    function: import.id.function(name),
                    signature,
                };
                callers.push((service.as_str(), caller));
            }
        }
    }
    callers
}

/// What services export, without what a wire gives to another one.
fn exports<'a>(of: Deployed<'a>) -> Vec<(&'a str, &'a InterfaceDescription)> {
    let exports = of.components.iter().flat_map(|(service, component)| {
        let exports = component.exports.iter();
        exports.map(move |export| (service.as_str(), export))
    });
    exports
        .filter(|(service, export)| match provider(of.app, &export.id) {
            Some(Provider::Service(chosen)) => chosen == service,
            Some(Provider::External | Provider::Nest(_) | Provider::Grpc(_)) => false,
            Some(Provider::Events(_) | Provider::Exporter) | None => true,
        })
        .collect()
}

/// The services that answer on the subject of a function, and its type there.
fn find<'a>(
    of: Deployed<'a>,
    interface: &InterfaceId,
    name: &str,
) -> impl Iterator<Item = (&'a str, &'a Signature)> + use<'a> {
    let found: Vec<_> = exports(of)
        .into_iter()
        .filter(|(_, export)| export.id.compatible(interface))
        .filter_map(|(service, export)| Some((service, export.functions.get(name)?)))
        .collect();
    found.into_iter()
}

fn provider<'a>(app: &'a App, interface: &InterfaceId) -> Option<&'a Provider> {
    app.wire(interface).map(|wire| &wire.provider)
}

fn is_event(app: &App, interface: &InterfaceId) -> bool {
    matches!(provider(app, interface), Some(Provider::Events(_)))
}

fn is_durable(app: &App, interface: &InterfaceId) -> bool {
    match provider(app, interface) {
        Some(Provider::Events(spec)) => spec.durable.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::Manifest;

    type Components = BTreeMap<String, Description>;

    fn interface(id: &str, functions: &[(&str, &str)]) -> InterfaceDescription {
        let functions = functions
            .iter()
            .map(|(name, signature)| ((*name).to_owned(), signature.parse().unwrap()));
        InterfaceDescription {
            id: id.parse().unwrap(),
            functions: functions.collect(),
            types: BTreeMap::new(),
        }
    }

    const PAYMENTS: &str = "shop:payment/payments@1.0.0";

    /// An app in which `orders` calls `charge` of `payment`, with these types.
    fn components(exported: &str, imported: &str) -> Components {
        let payment = Description {
            exports: vec![interface(PAYMENTS, &[("charge", exported)])],
            ..Description::default()
        };
        let orders = Description {
            imports: vec![interface(PAYMENTS, &[("charge", imported)])],
            ..Description::default()
        };
        BTreeMap::from([
            ("payment".to_owned(), payment),
            ("orders".to_owned(), orders),
        ])
    }

    fn app(lines: &str) -> App {
        let text = format!(
            "name = \"shop\"\n[service.orders]\ncomponent = \"o.wasm\"\n[service.payment]\ncomponent = \"p.wasm\"\n{lines}"
        );
        Manifest::parse(Path::new("wasmbay.toml"), &text)
            .unwrap()
            .app
    }

    fn between(app: &App, old: &Components, new: &Components) -> Vec<String> {
        let [old, new] = [old, new].map(|components| Deployed { app, components });
        breaks(old, new).iter().map(ToString::to_string).collect()
    }

    const OLD: &str = "func(amount: u32)";

    #[test]
    fn the_same_breaks_nothing() {
        let same = components(OLD, OLD);
        assert!(between(&app(""), &same, &same).is_empty());
    }

    #[test]
    fn an_optional_parameter_breaks_nothing() {
        let new = "func(amount: u32, note: option<string>)";
        let found = between(&app(""), &components(OLD, OLD), &components(new, new));
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_required_parameter_breaks_who_does_not_send_it() {
        let new = "func(amount: u32, currency: string)";
        let found = between(&app(""), &components(OLD, OLD), &components(new, new));
        assert_eq!(
            found,
            [
                "breaks service \"orders\" of the revision that runs: `shop:payment/payments.charge@1.0.0` has another type in service \"payment\": currency: it is required and does not come"
            ]
        );
        // The way back has the other direction.
        let back = between(&app(""), &components(new, new), &components(OLD, OLD));
        assert_eq!(
            back,
            [
                "breaks service \"orders\" of this deploy: `shop:payment/payments.charge@1.0.0` cannot be answered by service \"payment\" of the revision that runs beside it: currency: it is required and does not come"
            ]
        );
    }

    #[test]
    fn a_function_that_is_gone_breaks_who_calls_it() {
        let old = components(OLD, OLD);
        let mut new = components(OLD, OLD);
        for component in new.values_mut() {
            component.exports.clear();
            component.imports.clear();
        }
        assert_eq!(
            between(&app(""), &old, &new),
            [
                "breaks service \"orders\" of the revision that runs: `shop:payment/payments.charge@1.0.0` is gone"
            ]
        );
    }

    #[test]
    fn clients_that_nobody_knows_count_while_the_function_is_there() {
        let mut old = components(OLD, OLD);
        old.get_mut("orders").unwrap().imports.clear();
        let mut new = components("func(amount: string)", OLD);
        new.get_mut("orders").unwrap().imports.clear();
        let found = between(&app(""), &old, &new);
        assert!(
            found.len() == 1 && found[0].starts_with("breaks clients of the revision that runs: "),
            "{found:?}"
        );
        new.get_mut("payment").unwrap().exports.clear();
        assert!(between(&app(""), &old, &new).is_empty());
    }

    #[test]
    fn what_a_pipeline_answers_is_there() {
        let same = components(OLD, OLD);
        let with = |more: &str| {
            app(&format!(
                "[pipeline.buy]\nimplements = \"shop:cards/cards.buy\"\ntype = \"func(amount: u32{more})\"\n\
                 [[pipeline.buy.step]]\nname = \"charge\"\ncall = \"shop:payment/payments.charge\"\nwith = {{ amount = \"$.amount\" }}\n\
                 [[route]]\nmethod = \"POST\"\npath = \"/cards\"\ncall = \"shop:cards/cards.buy\"\n"
            ))
        };
        let [old, other] = [with(""), with(", note: string")];
        assert!(plan::plan(&old, &same).is_ok());
        let between = |old: &App, new: &App| -> Vec<String> {
            let [old, new] = [old, new].map(|app| Deployed {
                app,
                components: &same,
            });
            breaks(old, new).iter().map(ToString::to_string).collect()
        };
        assert!(between(&old, &old).is_empty());
        let found = between(&old, &other);
        let why = "has another type in pipeline \"buy\": note: it is required and does not come";
        assert!(found.len() == 1 && found[0].ends_with(why), "{found:?}");
        let without = app("");
        assert!(between(&old, &without).is_empty(), "its route went with it");
    }

    #[test]
    fn stored_events_outlive_their_publisher() {
        let old = components(OLD, OLD);
        let new = "func(amount: u32, currency: string)";
        let mut new = components(new, new);
        new.remove("orders");
        let text = "name = \"shop\"\n[service.payment]\ncomponent = \"p.wasm\"\n";
        let wire = "[wire.\"shop:payment/payments\"]\nmode = \"event\"\n";
        let count = |wire: &str| {
            let without = format!("{text}{wire}");
            let without = Manifest::parse(Path::new("wasmbay.toml"), &without).unwrap();
            let old = Deployed {
                app: &app(wire),
                components: &old,
            };
            let new = Deployed {
                app: &without.app,
                components: &new,
            };
            let found = breaks(old, new);
            found
                .iter()
                .filter(|one| one.who.contains("orders"))
                .count()
        };
        assert_eq!(count(wire), 0);
        assert_eq!(count(&format!("{wire}durable = true\n")), 1);
    }
}
