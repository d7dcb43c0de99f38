//! What is wired as events, and messages that are stored.

use std::time::Duration;

use super::{accepted, parse, problem};
use crate::manifest::{DeliveryPolicy, Outcome, Provider, Retry};

#[test]
fn event_wires_are_read_with_their_defaults() {
    let wire = |text: &str| {
        let mut app = accepted(&format!(
            "[service.b]\ncomponent = 'b'\n[wire.'a:b/c']\n{text}"
        ));
        match app.wires.remove(0).provider {
            Provider::Events(spec) => *spec,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wire("mode = 'event'").durable, None);
    assert_eq!(wire("mode = 'event'\ndurable = false").durable, None);
    let durable = wire("mode = 'event'\ndurable = true").durable.unwrap();
    assert_eq!(
        durable.delivery,
        DeliveryPolicy {
            retry: Retry {
                attempts: 5,
                backoff: [100, 1_000, 10_000].map(Duration::from_millis).to_vec(),
                jitter: 20,
                on: Outcome::ALL.to_vec(),
            },
            in_flight: 256,
        }
    );
    assert_eq!(durable.retention.age, Duration::from_secs(604_800));
    assert_eq!(
        (durable.retention.size, durable.replicas, durable.order_by),
        (128 << 20, 1, None)
    );
    assert_eq!(durable.dedup, Duration::from_secs(120));
    assert!(durable.subscribers.is_empty());
}

#[test]
fn a_stream_stores_what_services_are_granted() {
    let text = "name = 'a'\n[service.b]\ncomponent = 'b'\ngrants = { publish = ['x.>'], subscribe = ['x.a', 'y'] }\n\
                [service.c]\ncomponent = 'c'\ngrants = { publish = ['z'] }\n\
                [stream.s]\nsubjects = ['x.*', 'z.>']\nin-flight = 7\n\
                [stream.s.subscriber.b]\nretry = { attempts = 1 }\n";
    let app = parse(text).unwrap();
    let [stream] = &*app.streams else {
        panic!("{:?}", app.streams);
    };
    assert_eq!(stream.stream, "bay_a_messages_s");
    assert_eq!(stream.durable.delivery.in_flight, 7);
    assert_eq!(stream.durable.delivery("b").retry.attempts, 1);
    let grants = &app.services["b"].grants;
    assert_eq!(grants.stream_of("x.a"), Some("bay_a_messages_s"));
    assert_eq!(grants.stream_of("x.a.b"), None);
    let behind = |i: usize| grants.stream_behind(&grants.subscribe[i]);
    assert_eq!((behind(0), behind(1)), (Some("bay_a_messages_s"), None));
    assert!(app.services["c"].grants.stored.is_empty());
}

#[test]
fn a_stream_that_cannot_be_is_refused() {
    let stored = |service: &str, streams: &str| {
        let text = format!("name = 'a'\n[service.a]\ncomponent = 'a'\n{service}\n{streams}");
        parse(&text).unwrap_err().to_string()
    };
    let refused = |streams: &str| stored("", streams);
    for (streams, why) in [
        ("[stream.s]", "`subjects` is missing"),
        (
            "[stream.s]\nsubjects = ['bay.>']",
            "`bay.>` cannot be granted",
        ),
        (
            "[stream.s_t]\nsubjects = ['x']",
            "this is no name of a stream",
        ),
        (
            "[stream.s]\nsubjects = ['x.>', 'x.a']",
            "`x.a` and `x.>` of stream `s` overlap",
        ),
        (
            "[stream.s]\nsubjects = ['x.*']\n[stream.t]\nsubjects = ['y', '*.x', 'x.>']",
            "`x.>` and `x.*` of stream `s` overlap",
        ),
        (
            "[stream.s]\nsubjects = ['x']\norder-by = 'a'",
            "unknown key `order-by`",
        ),
        (
            "[stream.s]\nsubjects = ['x']\n[stream.s.subscriber.b]\nin-flight = 1",
            "there is no service `b`",
        ),
    ] {
        let refused = refused(streams);
        assert!(refused.contains(why), "{refused}");
    }
    let part = stored(
        "grants = { subscribe = ['x.>'] }",
        "[stream.s]\nsubjects = ['x.a']",
    );
    assert_eq!(
        part.split_once("`subscribe`").unwrap().1,
        ": stream `s` stores `x.a`, which is a part of `x.>`; grant what is stored and what is not apart"
    );
}

#[test]
fn a_subscriber_changes_single_keys_of_its_wire() {
    let text = "[wire.'a:b/c']\nmode = 'event'\ndurable = true\nin-flight = 9\norder-by = 'order.customer-id'\n\
                retention = { age = '12h', size = '64KiB' }\nreplicas = 3\ndedup = '1m'\n\
                retry = { attempts = 7, backoff = ['1s', '1h'], jitter = 0.05, on = ['err', 'trap'] }\n\
                [wire.'a:b/c'.subscriber.a]\nretry = { attempts = 1, jitter = 1 }\n";
    let Provider::Events(spec) = accepted(text).wires.remove(0).provider else {
        panic!("no event wire");
    };
    let durable = spec.durable.unwrap();
    let wire = &durable.delivery;
    assert_eq!((wire.in_flight, wire.retry.jitter), (9, 5));
    assert_eq!(
        durable.order_by.as_deref(),
        Some(&["order".to_owned(), "customer-id".to_owned()][..])
    );
    let own = durable.delivery("a");
    assert_eq!(
        (own.retry.attempts, own.retry.jitter, own.in_flight),
        (1, 100, 9)
    );
    assert_eq!(
        (&own.retry.backoff, &own.retry.on),
        (&wire.retry.backoff, &wire.retry.on)
    );
    assert_eq!(durable.delivery("other"), wire);
}

#[test]
fn event_wires_are_checked() {
    let found = |text: &str| problem(&format!("[wire.'a:b/c']\n{text}"));
    let refused = |text: &str| found(&format!("mode = 'event'\ndurable = true\n{text}"));
    assert_eq!(
        found("service = 'a'\nretry = { attempts = 5 }"),
        "6:1: wire \"a:b/c\": `retry` is for events; accepted: with `mode = \"event\"`"
    );
    assert_eq!(
        found("mode = 'event'\nservice = 'a'"),
        "6:1: wire \"a:b/c\": `service` is for calls: every service that exports the interface hears of its events"
    );
    assert_eq!(
        found("mode = 'event'\norder-by = 'id'"),
        "6:1: wire \"a:b/c\": `order-by` needs `durable = true`"
    );
    assert_eq!(
        found("mode = 'events'"),
        "5:8: wire \"a:b/c\": `mode` is 'events'; accepted: call, event"
    );
    assert_eq!(
        refused("retry = { on = ['err', 'panic'] }"),
        "7:16: wire \"a:b/c\": retry: `on` is ['err', 'panic']; accepted: err, trap, timeout, overload"
    );
    assert!(refused("retry = { backoff = [] }").contains("`backoff` is []; accepted: 1 to 20 of"));
    assert!(refused("retry = { backoff = ['2d'] }").contains("each 1ms to 1d"));
    assert!(refused("retry = { jitter = 1.5 }").contains("accepted: 0 to 1"));
    assert!(refused("retry = { attempts = 0 }").contains("accepted: 1 to 1000"));
    assert!(refused("order-by = 'order..id'").contains("`order-by` is 'order..id'; accepted:"));
    assert_eq!(
        refused("dedup = '2m'\nretention = { age = '1m' }"),
        "7:1: wire \"a:b/c\": `dedup` is longer than `retention.age`, which is 1m"
    );
    assert_eq!(
        refused("[wire.'a:b/c'.subscriber.aa]\nin-flight = 1"),
        "7:26: wire \"a:b/c\": there is no service `aa`; did you mean `a`? (services: a)"
    );
    assert!(refused("[wire.'a:b/c'.subscriber.a]\ndedup = '1s'").contains("unknown key `dedup`"));
}
