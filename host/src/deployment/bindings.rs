//! The bindings of a plan, the difference of two sets of bindings, and the order in which sources can
//! stop. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::events::stream::{self, Orphan, Share};
use crate::interface::InterfaceId;
use crate::manifest::{App, DeliveryPolicy, ServiceSpec};
use crate::plan::{NestServed, Plan, Publication};
use crate::subject;
use crate::transport::{Delivery, NestDelivery, NestWay, Source, Subscriber};

/// A binding by name: the service, one of its interfaces, and the delivery of its messages.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) service: String,
    pub(crate) interface: InterfaceId,
    pub(crate) delivery: Delivery,
}

/// The binding of each source.
pub(crate) type Bindings = BTreeMap<Source, Bound>;

/// The difference between the sources that are served and other bindings.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Sources that are not served yet.
    pub(crate) arriving: Vec<Source>,
    /// Sources that are served already, perhaps with another binding.
    pub(crate) staying: Vec<Source>,
    /// Sources that are served and have no binding any more.
    pub(crate) leaving: Vec<Source>,
}

/// The bindings of an app's plan.
pub(super) fn bindings(app: &App, plan: &Plan) -> Bindings {
    let mut bindings = Bindings::new();
    for (name, interfaces) in &plan.serves {
        let Some(spec) = app.services.get(name) else {
            continue;
        };
        for (interface, functions) in interfaces {
            let (sources, delivery) = interface_sources(app, plan, spec, interface, functions);
            let bound = Bound {
                service: name.clone(),
                interface: interface.clone(),
                delivery,
            };
            bindings.extend(sources.into_iter().map(|source| (source, bound.clone())));
        }
    }
    for (name, interfaces) in &plan.chosen {
        for (interface, functions) in interfaces {
            let bound = Bound {
                service: name.clone(),
                interface: interface.clone(),
                delivery: Delivery::Call,
            };
            let sources = functions.iter().map(|function| Source::Subject {
                subject: subject::of_service_function(
                    &app.name,
                    name,
                    &interface.function(function),
                ),
                group: subject::QUEUE_GROUP.to_owned(),
            });
            bindings.extend(sources.map(|source| (source, bound.clone())));
        }
    }
    for served in &plan.nest {
        if let Some(spec) = app.services.get(&served.service) {
            bindings.extend([nest_source(app, plan, spec, served)]);
        }
    }
    for (name, interface) in &plan.messages {
        if let Some(spec) = app.services.get(name) {
            bindings.extend(message_sources(app, spec, interface));
        }
    }
    bindings
}

/// The sources of the messages for an interface of a service, and their delivery.
fn interface_sources(
    app: &App,
    plan: &Plan,
    spec: &ServiceSpec,
    interface: &InterfaceId,
    functions: &[String],
) -> (Vec<Source>, Delivery) {
    let wire = plan.event_wire(interface);
    if let Some(durable) = wire.and_then(|wire| wire.spec.durable.as_ref()) {
        let stream = subject::stream(&app.name, interface);
        let sources = stream::consumers(durable, &spec.name)
            .into_iter()
            .map(|consumer| Source::Consumer {
                stream: stream.clone(),
                name: consumer.name,
            });
        let subscriber = subscriber(spec, durable.delivery(&spec.name));
        return (sources.collect(), Delivery::DurableEvent(subscriber));
    }
    let (group, delivery) = match wire {
        Some(_) => (subject::queue_group_of(&spec.name), Delivery::Event),
        None => (subject::QUEUE_GROUP.to_owned(), Delivery::Call),
    };
    // A call of a durable function is a run; what works on that calls the service.
    let functions = functions.iter().filter(|name| {
        let function = interface.function(name.as_str());
        plan.pipeline_of(&function).is_none()
    });
    // One for each function: while hosts with an older version of the interface share the queue group,
    // a function that they do not have is called only where it is.
    let sources = functions.map(|name| Source::Subject {
        subject: subject::of_function(&app.name, &interface.function(name)),
        group: group.clone(),
    });
    (sources.collect(), delivery)
}

/// The source of what clients of NestJS send to a pattern, and what stands behind it.
fn nest_source(app: &App, plan: &Plan, spec: &ServiceSpec, served: &NestServed) -> (Source, Bound) {
    let function = &served.function;
    let wire = plan.event_wire(&function.interface);
    let publication = wire.and_then(|wire| Publication::new(&app.name, wire, &function.name));
    let way = match publication {
        Some(publication) => NestWay::Publish(publication),
        None if plan.pipeline_of(function).is_some() => {
            let limit = Duration::from_millis(plan.pipeline_of(function).map_or(0, |p| p.deadline));
            NestWay::Run(subject::of_function(&app.name, function), limit)
        }
        None => NestWay::Service,
    };
    let source = Source::Subject {
        subject: served.pattern.subject(),
        group: served.queue.clone(),
    };
    let delivery = Delivery::Nest(Arc::new(NestDelivery {
        function: function.name.clone(),
        signature: served.signature.clone(),
        stream: served.stream,
        way,
        permits: Semaphore::new((spec.limits.concurrency + spec.limits.queue) as usize),
    }));
    let bound = Bound {
        service: spec.name.clone(),
        interface: function.interface.clone(),
        delivery,
    };
    (source, bound)
}

/// The sources of the messages that a service handles: its one consumer on each stream, and
/// subjects that no stream stores.
fn message_sources(
    app: &App,
    spec: &ServiceSpec,
    interface: &InterfaceId,
) -> BTreeMap<Source, Bound> {
    let source = |pattern| {
        let stored_by = spec.grants.stream_behind(pattern);
        let stored = app.streams.iter().find(|s| Some(&*s.stream) == stored_by);
        match stored {
            Some(stored) => {
                let source = Source::Consumer {
                    stream: stored.stream.clone(),
                    name: spec.name.clone(),
                };
                let subscriber = subscriber(spec, stored.durable.delivery(&spec.name));
                (source, Delivery::DurableMessage(subscriber))
            }
            None => {
                let source = Source::Subject {
                    subject: pattern.to_string(),
                    group: subject::queue_group_of_messages(&app.name, &spec.name),
                };
                (source, Delivery::Message)
            }
        }
    };
    let sources = spec.grants.subscribe.iter().map(source);
    let bound = |(source, delivery)| {
        let bound = Bound {
            service: spec.name.clone(),
            interface: interface.clone(),
            delivery,
        };
        (source, bound)
    };
    sources.map(bound).collect()
}

/// What stands behind the consumer of an earlier version of an interface, beside what the plan says.
pub(crate) fn orphaned(app: &App, plan: &Plan, orphan: &Orphan) -> Option<(Source, Bound)> {
    let Orphan {
        stream,
        consumer,
        service,
        interface,
        misfit,
    } = orphan;
    let spec = app.services.get(service)?;
    let durable = plan.event_wire(interface)?.spec.durable.as_ref()?;
    let subscriber = subscriber(spec, durable.delivery(service));
    let source = Source::Consumer {
        stream: stream.clone(),
        name: consumer.clone(),
    };
    let bound = Bound {
        service: service.clone(),
        interface: interface.clone(),
        delivery: match misfit {
            None => Delivery::DurableEvent(subscriber),
            Some(why) => Delivery::Orphaned(subscriber, why.as_str().into()),
        },
    };
    Some((source, bound))
}

/// What stands behind a further consumer of messages, beside what the plan says.
pub(crate) fn shared(app: &App, plan: &Plan, share: &Share) -> Option<(Source, Bound)> {
    let (spec, interface) = (
        app.services.get(&share.service)?,
        plan.messages.get(&share.service)?,
    );
    let stored = app.streams.iter().find(|s| s.stream == share.stream)?;
    let policy = stored.durable.delivery(&share.service).clone();
    let subscriber = Subscriber::new(policy, spec.limits.concurrency);
    let source = Source::Consumer {
        stream: share.stream.clone(),
        name: share.consumer.clone(),
    };
    let bound = Bound {
        service: share.service.clone(),
        interface: interface.clone(),
        delivery: Delivery::DurableMessage(Arc::new(subscriber.except(share.elsewhere.clone()))),
    };
    Some((source, bound))
}

fn subscriber(spec: &ServiceSpec, policy: &DeliveryPolicy) -> Arc<Subscriber> {
    Arc::new(Subscriber::new(policy.clone(), spec.limits.concurrency))
}

/// The difference between the sources that are served and these bindings.
pub(crate) fn difference<'s>(
    served: impl IntoIterator<Item = &'s Source>,
    wanted: &Bindings,
) -> Difference {
    let served: BTreeSet<&Source> = served.into_iter().collect();
    let (staying, arriving) = wanted
        .keys()
        .cloned()
        .partition(|source| served.contains(source));
    let leaving = served
        .into_iter()
        .filter(|source| !wanted.contains_key(source))
        .cloned()
        .collect();
    Difference {
        arriving,
        staying,
        leaving,
    }
}

/// The sources in the order in which they can stop: first those of services that no other service
/// among them calls, so that a call under way still finds what it needs. `calls` says whether a
/// service calls what is bound.
pub(crate) fn drain_order(
    bindings: &Bindings,
    calls: impl Fn(&str, &Bound) -> bool,
) -> Vec<Vec<Source>> {
    let mut left: Vec<(&Source, &Bound)> = bindings.iter().collect();
    let mut layers = Vec::new();
    while !left.is_empty() {
        let needed = |(_, callee): &(&Source, &Bound)| {
            left.iter().any(|(_, caller)| {
                caller.service != callee.service && calls(&caller.service, callee)
            })
        };
        let (kept, free): (Vec<_>, Vec<_>) = left.iter().partition(|bound| needed(bound));
        // Services that call each other in a circle stop together.
        let (kept, free) = if free.is_empty() {
            (Vec::new(), kept)
        } else {
            (kept, free)
        };
        layers.push(free.into_iter().map(|(source, _)| source.clone()).collect());
        left = kept;
    }
    layers
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::manifest::Manifest;
    use crate::plan::{Description, plan};
    use crate::shape::{InterfaceDescription, Signature};

    fn interface(id: &str) -> InterfaceDescription {
        let signature = Signature {
            params: Box::default(),
            result: None,
        };
        InterfaceDescription {
            id: id.parse().unwrap(),
            functions: BTreeMap::from([("run".to_owned(), signature)]),
            types: BTreeMap::new(),
        }
    }

    fn component(exports: &[&str], imports: &[&str]) -> Description {
        Description {
            exports: exports.iter().map(|id| interface(id)).collect(),
            imports: imports.iter().map(|id| interface(id)).collect(),
            ..Description::default()
        }
    }

    fn bound(manifest: &str, components: &[(&str, Description)]) -> Bindings {
        let app = Manifest::parse(Path::new("wasmbay.toml"), manifest)
            .unwrap()
            .app;
        let components = components
            .iter()
            .map(|(name, component)| ((*name).to_owned(), component.clone()))
            .collect();
        bindings(&app, &plan(&app, &components).unwrap())
    }

    fn subject(subject: &str, group: &str) -> Source {
        let (subject, group) = (subject.to_owned(), group.to_owned());
        Source::Subject { subject, group }
    }

    fn consumer(stream: &str, name: &str) -> Source {
        let (stream, name) = (stream.to_owned(), name.to_owned());
        Source::Consumer { stream, name }
    }

    const SHOP: &str = "
        name = \"shop\"
        [service.orders]
        component = \"orders.wasm\"
        [service.stock]
        component = \"stock.wasm\"
        [service.mail]
        component = \"mail.wasm\"
    ";

    fn shop(wires: &str) -> Bindings {
        let components = [
            (
                "orders",
                component(
                    &["a:orders/api@1.0.0"],
                    &["a:stock/api@1.0.0", "a:orders/events@1.0.0"],
                ),
            ),
            ("stock", component(&["a:stock/api@1.0.0"], &[])),
            ("mail", component(&["a:orders/events@1.0.0"], &[])),
        ];
        bound(&format!("{SHOP}\n{wires}"), &components)
    }

    #[test]
    fn a_call_has_a_subject_that_all_hosts_share() {
        let bindings = shop("");
        let source = subject("bay.shop.a.stock.api.v1.run", "bay");
        let bound = &bindings[&source];
        assert_eq!(bound.service, "stock");
        assert!(matches!(bound.delivery, Delivery::Call));
    }

    #[test]
    fn a_service_that_another_one_chose_has_a_subject_of_its_own() {
        let api = "a:stock/api@1.0.0";
        let components = [
            ("orders", component(&[], &[api])),
            ("stock", component(&[api], &[])),
            ("mail", component(&[api], &[api])),
        ];
        let wires = "[wire.\"a:stock/api\"]\nservice = \"mail\"\n[service.mail.wire]\n\"a:stock/api\" = \"stock\"";
        let bindings = bound(&format!("{SHOP}\n{wires}"), &components);
        let service = |source| bindings[&subject(source, "bay")].service.as_str();
        assert_eq!(service("bay.shop.a.stock.api.v1.run"), "mail");
        assert_eq!(service("bay.shop._.stock.a.stock.api.v1.run"), "stock");
        assert_eq!(bindings.len(), 2);
    }

    #[test]
    fn an_event_has_a_group_for_each_service() {
        let bindings = shop("[wire.\"a:orders/events\"]\nmode = \"event\"");
        let bound = &bindings[&subject("bay.shop.a.orders.events.v1.run", "bay.mail")];
        assert!(matches!(bound.delivery, Delivery::Event));
    }

    #[test]
    fn a_durable_event_has_a_consumer_for_each_service() {
        let bindings =
            shop("[wire.\"a:orders/events\"]\nmode = \"event\"\ndurable = true\nin-flight = 7");
        let bound = &bindings[&consumer("bay_shop_a_orders_events_v1", "mail")];
        let Delivery::DurableEvent(subscriber) = &bound.delivery else {
            panic!("{bound:?}");
        };
        assert_eq!(subscriber.policy.in_flight, 7);
        assert_eq!(subscriber.permits.available_permits(), 7);
    }

    #[test]
    fn messages_come_from_granted_subjects_and_streams() {
        let manifest = "
            name = \"shop\"
            [service.mail]
            component = \"mail.wasm\"
            grants = { subscribe = [\"news.*\", \"orders.>\"] }
            [stream.orders]
            subjects = [\"orders.>\"]
        ";
        let mail = Description {
            messages: Some("wasmcloud:messaging/handler@0.2.0".parse().unwrap()),
            ..Description::default()
        };
        let bindings = bound(manifest, &[("mail", mail)]);
        let core = &bindings[&subject("news.*", "bay.shop.mail")];
        assert!(matches!(core.delivery, Delivery::Message));
        let stored = &bindings[&consumer("bay_shop_messages_orders", "mail")];
        assert!(matches!(stored.delivery, Delivery::DurableMessage(_)));
    }

    #[test]
    fn a_difference_is_what_arrives_stays_and_leaves() {
        let wanted = shop("");
        let (stays, leaves) = (
            subject("bay.shop.a.stock.api.v1.run", "bay"),
            subject("bay.shop.a.stock.api.v2.run", "bay"),
        );
        let difference = difference([&stays, &leaves], &wanted);
        assert_eq!(difference.staying, [stays]);
        assert_eq!(difference.leaving, [leaves]);
        assert_eq!(difference.arriving.len(), wanted.len() - 1);
    }

    #[test]
    fn the_same_bindings_again_change_nothing() {
        let wanted = shop("");
        let served: Vec<_> = wanted.keys().cloned().collect();
        let difference = difference(&served, &wanted);
        assert!(difference.arriving.is_empty() && difference.leaving.is_empty());
    }

    #[test]
    fn callers_stop_before_what_they_call() {
        let calls = |service: &str, callee: &Bound| {
            service == "orders" && callee.interface.package == "stock"
        };
        let layers = drain_order(&shop(""), calls);
        let stock = subject("bay.shop.a.stock.api.v1.run", "bay");
        assert_eq!(layers.len(), 2);
        assert_eq!(layers[1], [stock]);
    }

    #[test]
    fn services_in_a_circle_stop_together() {
        let bindings = shop("");
        let layers = drain_order(&bindings, |_, _| true);
        assert_eq!(layers.len(), 1);
        assert_eq!(layers[0].len(), bindings.len());
    }
}
