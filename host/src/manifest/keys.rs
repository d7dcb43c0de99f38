//! Every key of the manifest, once: what it accepts, its default and its meaning.
//!
//! Reading refuses a key that has no row here, messages take the accepted form from here, and
//! [`reference()`] prints the rows, so the three cannot differ.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::values::{duration_text, size_text};

/// The value a bounded key has when it is not given, and those it accepts.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<T> {
    /// The value of a key that is not given.
    pub default: T,
    /// The smallest value accepted.
    pub min: T,
    /// The largest value accepted.
    pub max: T,
}

impl<T: PartialOrd> Bounds<T> {
    pub(super) fn contain(&self, value: &T) -> bool {
        (&self.min..=&self.max).contains(&value)
    }
}

const MIB: u64 = 1 << 20;

/// Calls that one instance serves before it is dropped. An instance costs ten to fifty times a
/// plain call, so a thousand calls make that cost vanish while a leak of 100 KiB a call still ends
/// below the default memory limit.
pub const REUSE: Bounds<u32> = Bounds {
    default: 1_000,
    min: 1,
    max: 1_000_000,
};

/// Bytes of linear memory of one instance. The maximum is what a 32-bit memory can address.
pub const MEMORY: Bounds<u64> = Bounds {
    default: 128 * MIB,
    min: 64 << 10,
    max: 4096 * MIB,
};

/// Elements of all tables of one instance. Interpreters compiled to WebAssembly need some ten
/// thousand.
pub const TABLES: Bounds<u32> = Bounds {
    default: 100_000,
    min: 1,
    max: 10_000_000,
};

/// Core instances in one instance; adapters and shared libraries make one component two to twenty.
pub const INSTANCES: Bounds<u32> = Bounds {
    default: 32,
    min: 1,
    max: 1_000,
};

/// Time that one call may take, waiting included.
pub const TIMEOUT: Bounds<Duration> = Bounds {
    default: Duration::from_secs(5),
    min: Duration::from_millis(10),
    max: Duration::from_secs(600),
};

/// Calls that a service works on at the same time.
pub const CONCURRENCY: Bounds<u32> = Bounds {
    default: 64,
    min: 1,
    max: 10_000,
};

/// Time that a call waits for its turn before it is shed.
pub const WAIT: Bounds<Duration> = Bounds {
    default: Duration::from_millis(500),
    min: Duration::ZERO,
    max: Duration::from_secs(60),
};

/// Calls of one service that may wait for their turn at the same time. Waiting costs the memory of
/// the message.
pub const QUEUE: Bounds<u32> = Bounds {
    default: 1_024,
    min: 0,
    max: 100_000,
};

/// Bytes of one message, arguments or result. NATS allows 64 MiB at most, and 1 MiB unless its
/// server is told otherwise.
pub const MESSAGE: Bounds<u64> = Bounds {
    default: MIB,
    min: 1 << 10,
    max: 64 * MIB,
};

/// Services that a call may pass through, so that a circle of imports ends.
pub const HOPS: Bounds<u8> = Bounds {
    default: 16,
    min: 1,
    max: 100,
};

/// Bytes of an HTTP request's body.
pub const BODY: Bounds<u64> = Bounds {
    default: MIB,
    min: 1 << 10,
    max: 64 * MIB,
};

/// Bytes of an HTTP request's head. The minimum is hyper's own.
pub const HEADER: Bounds<u64> = Bounds {
    default: 32 << 10,
    min: 8 << 10,
    max: MIB,
};

/// Time that an HTTP request may take from its first byte to the last of its answer.
pub const REQUEST: Bounds<Duration> = Bounds {
    default: Duration::from_secs(30),
    min: Duration::from_millis(10),
    max: Duration::from_secs(3_600),
};

/// HTTP connections open at the same time.
pub const CONNECTIONS: Bounds<u32> = Bounds {
    default: 1_024,
    min: 1,
    max: 100_000,
};

/// Times that an event is handed to a subscriber before it becomes a dead letter.
pub const ATTEMPTS: Bounds<u32> = Bounds {
    default: 5,
    min: 1,
    max: 1_000,
};

/// Each wait between two attempts. The default is that of the last step; see [`BACKOFF_STEPS`].
pub const BACKOFF: Bounds<Duration> = Bounds {
    default: Duration::from_secs(10),
    min: Duration::from_millis(1),
    max: Duration::from_secs(86_400),
};

/// The waits between attempts, unless told otherwise; the last one repeats.
pub const BACKOFF_STEPS: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    BACKOFF.default,
];

/// Steps that a ladder of waits may have.
pub const MAX_STEPS: usize = 20;

/// Hundredths of a wait by which it is made longer or shorter at random.
pub const JITTER: Bounds<u8> = Bounds {
    default: 20,
    min: 0,
    max: 100,
};

/// Time that an event is kept.
pub const AGE: Bounds<Duration> = Bounds {
    default: Duration::from_secs(7 * 86_400),
    min: Duration::from_secs(1),
    max: Duration::from_secs(365 * 86_400),
};

/// Bytes of all events of a wire together. JetStream sets as much aside for the stream.
pub const SIZE: Bounds<u64> = Bounds {
    default: 128 * MIB,
    min: 64 << 10,
    max: 1024 * 1024 * MIB,
};

/// Bytes of a service's data, keys included. JetStream sets as much aside.
pub const DATA_SIZE: Bounds<u64> = Bounds {
    default: 64 * MIB,
    min: 64 << 10,
    max: 1024 * 1024 * MIB,
};

/// Servers that keep a copy of each event, as JetStream has them.
pub const REPLICAS: Bounds<u8> = Bounds {
    default: 1,
    min: 1,
    max: 5,
};

/// Time within which an event that is published again counts as the same.
pub const DEDUP: Bounds<Duration> = Bounds {
    default: Duration::from_secs(120),
    min: Duration::from_secs(1),
    max: Duration::from_secs(86_400),
};

/// Events that a subscriber may hold without having acknowledged them, all hosts together. Those
/// that wait for their next attempt are among them.
pub const IN_FLIGHT: Bounds<u32> = Bounds {
    default: 256,
    min: 1,
    max: 10_000,
};

/// The statuses that a route may answer with. 1xx are no final answers, so they are left out.
pub const STATUS: std::ops::RangeInclusive<u16> = 200..=599;

/// Methods that a route may name, in the order in which messages list them.
pub const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// One kind of table in the manifest.
pub(super) struct Table {
    /// As the reference heads it.
    head: &'static str,
    about: &'static str,
    pub(super) keys: &'static [Key],
}

pub(super) struct Key {
    pub(super) name: &'static str,
    /// A function, so that a form can be written from the bounds that reading uses.
    pub(super) form: fn() -> Form,
    meaning: &'static str,
}

/// What a key accepts.
pub(super) struct Form {
    kind: &'static str,
    default: Option<String>,
    pub(super) accepted: String,
}

impl Table {
    /// The names of the table's keys, in the order of the reference.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }
}

impl Form {
    fn new(kind: &'static str, accepted: impl Into<String>) -> Self {
        Self {
            kind,
            default: None,
            accepted: accepted.into(),
        }
    }

    fn count<T: Display>(Bounds { default, min, max }: Bounds<T>) -> Self {
        Self {
            default: Some(default.to_string()),
            ..Self::new("integer", format!("{min} to {max}"))
        }
    }

    fn size(Bounds { default, min, max }: Bounds<u64>) -> Self {
        let range = format!("{} to {}", size_text(min), size_text(max));
        Self {
            default: Some(size_text(default)),
            ..Self::new(
                "size",
                format!("\"512B\", \"64KiB\", \"64MiB\", \"1GiB\" or a number of bytes, {range}"),
            )
        }
    }

    fn time(Bounds { default, min, max }: Bounds<Duration>) -> Self {
        let range = format!("{} to {}", duration_text(min), duration_text(max));
        Self {
            default: Some(duration_text(default)),
            ..Self::new("duration", format!("\"250ms\", \"2s\" or \"1m\", {range}"))
        }
    }
}

pub(super) static APP: Table = Table {
    head: "Top level",
    about: "",
    keys: &[
        Key {
            name: "name",
            form: || Form::new("string", "1 to 63 of a-z, 0-9 and `-`"),
            meaning: "The app's name, the second token of its subjects. Required.",
        },
        Key {
            name: "service",
            form: || Form::new("table", "`[service.NAME]`, at least one"),
            meaning: "The services. NAME is words of letters and digits joined by `-`, at most 63 characters.",
        },
        Key {
            name: "wire",
            form: || Form::new("table", "`[wire.\"namespace:package/interface\"]`"),
            meaning: "Who answers an interface, where the services' exports leave it open. The version may be left out.",
        },
        Key {
            name: "stream",
            form: || Form::new("table", "`[stream.NAME]`"),
            meaning: "Subjects whose raw messages are stored until they are handled.",
        },
        Key {
            name: "route",
            form: || Form::new("array of tables", "`[[route]]`"),
            meaning: "What the gateway serves, next to `POST /rpc/…`, `/healthz` and `/readyz`.",
        },
        Key {
            name: "gateway",
            form: || Form::new("table", "`[gateway]`"),
            meaning: "Where and how the gateway listens.",
        },
    ],
};

pub(super) static SERVICE: Table = Table {
    head: "`[service.NAME]`",
    about: "A component under a name.",
    keys: &[
        Key {
            name: "component",
            form: || Form::new("string", "a path from the manifest's folder"),
            meaning: "A guest's folder, which is built when it has changed, or a `.wasm` file. Required.",
        },
        Key {
            name: "config",
            form: || Form::new("table", "strings, numbers and booleans, nothing nested"),
            meaning: "What the component reads through `wasi:config`, as text.",
        },
        Key {
            name: "limits",
            form: || {
                Form::new(
                    "table",
                    "`limits = { memory = \"64MiB\", timeout = \"2s\" }`",
                )
            },
            meaning: "What the service may use; see below.",
        },
        Key {
            name: "reuse",
            form: || Form::count(REUSE),
            meaning: "Calls that one instance serves before it is dropped; 1 is a fresh instance for each call. One that trapped or ran out of time is never used again.",
        },
        Key {
            name: "grants",
            form: || Form::new("table", "`grants = { http = [\"api.example.com\"] }`"),
            meaning: "What the component may reach outside its sandbox; see below.",
        },
    ],
};

pub(super) static LIMITS: Table = Table {
    head: "`limits` of a service",
    about: "",
    keys: &[
        Key {
            name: "memory",
            form: || Form::size(MEMORY),
            meaning: "Linear memory of one instance.",
        },
        Key {
            name: "tables",
            form: || Form::count(TABLES),
            meaning: "Elements of all tables of one instance.",
        },
        Key {
            name: "instances",
            form: || Form::count(INSTANCES),
            meaning: "Core instances that make up one instance.",
        },
        Key {
            name: "timeout",
            form: || Form::time(TIMEOUT),
            meaning: "Time for one call; a caller with less left shortens it. Then 504.",
        },
        Key {
            name: "concurrency",
            form: || Form::count(CONCURRENCY),
            meaning: "Calls worked on at the same time.",
        },
        Key {
            name: "wait",
            form: || Form::time(WAIT),
            meaning: "Time that a call waits when all of `concurrency` is taken. Then 429.",
        },
        Key {
            name: "queue",
            form: || Form::count(QUEUE),
            meaning: "Calls that may wait at the same time. Beyond it 429 at once.",
        },
        Key {
            name: "message",
            form: || Form::size(MESSAGE),
            meaning: "Arguments of a call, and its result. Beyond it 413.",
        },
        Key {
            name: "hops",
            form: || Form::count(HOPS),
            meaning: "Services that a call may have passed through. Beyond it 508.",
        },
    ],
};

pub(super) static GRANTS: Table = Table {
    head: "`grants` of a service",
    about: "What is not granted is refused.",
    keys: &[
        Key {
            name: "http",
            form: || Form {
                default: Some("none".to_owned()),
                ..Form::new(
                    "array of strings",
                    "`api.example.com`, `*.example.com`, either with `:port`",
                )
            },
            meaning: "Hosts that outgoing HTTP may reach: on ports 80 and 443, or the one that is named. `*.` covers every name below, not the name itself.",
        },
        Key {
            name: "keyvalue",
            form: || Form {
                default: Some("false".to_owned()),
                ..Form::new(
                    "boolean or table",
                    "true, false, `{ replicas = 3, size = \"256MiB\" }`",
                )
            },
            meaning: "Whether the component may keep data through `wasi:keyvalue`; see below. It is the service's own: no other service can reach it, and it outlives the host.",
        },
        Key {
            name: "publish",
            form: subjects,
            meaning: "Subjects on which raw messages may be published; see [raw messages](messaging.md).",
        },
        Key {
            name: "subscribe",
            form: subjects,
            meaning: "Subjects whose raw messages the component handles. No two may overlap.",
        },
    ],
};

pub(super) static WIRE: Table = Table {
    head: "`[wire.\"namespace:package/interface\"]`",
    about: "A wire for calls has one of `service` and `external`. One with `mode = \"event\"` has neither: every service \
            that exports the interface hears of each event. All keys below `durable` need it. See [events](events.md).",
    keys: &[
        Key {
            name: "service",
            form: || Form::new("string", "a service that exports the interface"),
            meaning: "The service that answers; others that export the interface do not.",
        },
        Key {
            name: "external",
            form: || Form::new("boolean", "true"),
            meaning: "Something outside this app answers on the interface's subjects, such as a program with a plain NATS client.",
        },
        Key {
            name: "mode",
            form: || Form {
                default: Some("call".to_owned()),
                ..Form::new("string", "call, event")
            },
            meaning: "Whether importing the interface calls the one that exports it, or publishes to all that do.",
        },
        Key {
            name: "durable",
            form: || Form {
                default: Some("false".to_owned()),
                ..Form::new("boolean", "true, false")
            },
            meaning: "Whether events are stored until each subscriber has acknowledged them.",
        },
        Key {
            name: "retry",
            form: || Form::new("table", "`retry = { attempts = 5 }`"),
            meaning: "What happens to an event that a subscriber fails to handle; see below.",
        },
        Key {
            name: "in-flight",
            form: || Form::count(IN_FLIGHT),
            meaning: "Events that each subscriber may hold unacknowledged, all hosts together, those that wait for their next attempt included.",
        },
        Key {
            name: "order-by",
            form: || {
                Form::new(
                    "string",
                    "a parameter and fields of records below it, such as \"order.id\"",
                )
            },
            meaning: "Events with the same value there are handled one after the other by each subscriber. Every function must have it, and it must be text, an integer, a boolean or an enum.",
        },
        Key {
            name: "retention",
            form: || Form::new("table", "`retention = { age = \"7d\", size = \"128MiB\" }`"),
            meaning: "How long and how many events are kept; see below.",
        },
        Key {
            name: "replicas",
            form: || Form::count(REPLICAS),
            meaning: "Servers of a NATS cluster that keep a copy.",
        },
        Key {
            name: "dedup",
            form: || Form::time(DEDUP),
            meaning: "Time within which a second event with the same `Nats-Msg-Id` is not stored. At most `retention.age`.",
        },
        Key {
            name: "subscriber",
            form: || Form::new("table", "`[wire.\"…\".subscriber.SERVICE]`"),
            meaning: "What is different for one subscriber; see below.",
        },
    ],
};

pub(super) static STREAM: Table = Table {
    head: "`[stream.NAME]`",
    about: "What is published on its subjects is stored, and every service that is granted to hear them gets each message \
            until it has handled it. See [raw messages](messaging.md#durable).",
    keys: &[
        Key {
            name: "subjects",
            form: subjects,
            meaning: "What is stored. No two subjects of an app's streams may overlap. Required.",
        },
        Key {
            name: "retry",
            form: || Form::new("table", "`retry = { attempts = 5 }`"),
            meaning: "What happens to a message that a service fails to handle; see below.",
        },
        Key {
            name: "in-flight",
            form: || Form::count(IN_FLIGHT),
            meaning: "Messages that each service may hold unacknowledged, all hosts together, those that wait for their next attempt included.",
        },
        Key {
            name: "retention",
            form: || Form::new("table", "`retention = { age = \"7d\", size = \"128MiB\" }`"),
            meaning: "How long and how many messages are kept; see below.",
        },
        Key {
            name: "replicas",
            form: || Form::count(REPLICAS),
            meaning: "Servers of a NATS cluster that keep a copy.",
        },
        Key {
            name: "dedup",
            form: || Form::time(DEDUP),
            meaning: "Time within which a second message with the same `Nats-Msg-Id` is not stored. At most `retention.age`.",
        },
        Key {
            name: "subscriber",
            form: || Form::new("table", "`[stream.NAME.subscriber.SERVICE]`"),
            meaning: "What is different for one service; see below.",
        },
    ],
};

pub(super) static RETRY: Table = Table {
    head: "`retry` of a durable event wire or a stream",
    about: "An event that fails for good, or that cannot succeed, becomes a dead letter.",
    keys: &[
        Key {
            name: "attempts",
            form: || Form::count(ATTEMPTS),
            meaning: "How often an event is tried in all.",
        },
        Key {
            name: "backoff",
            form: || {
                let range = format!(
                    "1 to {MAX_STEPS} of \"100ms\", \"10s\", \"1h\", each {} to {}",
                    duration_text(BACKOFF.min),
                    duration_text(BACKOFF.max)
                );
                Form {
                    default: Some(BACKOFF_STEPS.map(duration_text).join(", ")),
                    ..Form::new("array of durations", range)
                }
            },
            meaning: "The waits between the attempts; the last one repeats.",
        },
        Key {
            name: "jitter",
            form: || Form {
                default: Some(format!("{}", f64::from(JITTER.default) / 100.0)),
                ..Form::new("number", "0 to 1, at most two decimal places")
            },
            meaning: "The part of a wait by which it is made longer or shorter at random.",
        },
        Key {
            name: "on",
            form: || Form {
                default: Some("all".to_owned()),
                ..Form::new("array of strings", OUTCOMES.join(", "))
            },
            meaning: "What is tried again: an `err` value, a trap (also of a failed import), a timeout, a busy host. Anything else is a dead letter at once.",
        },
    ],
};

pub(super) static KEYVALUE: Table = Table {
    head: "`grants.keyvalue`",
    about: "`true` is a table without keys. Data that exists gets what it has less of; it is never shrunk.",
    keys: &[
        Key {
            name: "replicas",
            form: || Form {
                default: Some("the most that a durable wire or stream has".to_owned()),
                ..Form::count(REPLICAS)
            },
            meaning: "Servers that keep a copy, as JetStream has them.",
        },
        Key {
            name: "size",
            form: || Form::size(DATA_SIZE),
            meaning: "All of the service's data, keys included; JetStream sets as much aside. Beyond it setting a key fails.",
        },
    ],
};

pub(super) static RETENTION: Table = Table {
    head: "`retention` of a durable event wire or a stream",
    about: "",
    keys: &[
        Key {
            name: "age",
            form: || Form::time(AGE),
            meaning: "Time that an event is kept, whether it was handled or not.",
        },
        Key {
            name: "size",
            form: || Form::size(SIZE),
            meaning: "All events of the wire together; JetStream sets as much aside. Beyond it publishing fails with 503; nothing that is stored makes room.",
        },
    ],
};

pub(super) static SUBSCRIBER: Table = Table {
    head: "`[wire.\"namespace:package/interface\".subscriber.SERVICE]`",
    about: "Of a stream `[stream.NAME.subscriber.SERVICE]`. What is not given is as on the wire or stream.",
    keys: &[
        Key {
            name: "retry",
            form: || Form::new("table", "`retry = { attempts = 5 }`"),
            meaning: "As above, key by key.",
        },
        Key {
            name: "in-flight",
            form: || Form {
                default: Some("the wire's".to_owned()),
                ..Form::count(IN_FLIGHT)
            },
            meaning: "As above.",
        },
    ],
};

/// What a retry can be for, by the names that `retry.on` accepts.
pub const OUTCOMES: [&str; 4] = ["err", "trap", "timeout", "overload"];

pub(super) static ROUTE: Table = Table {
    head: "`[[route]]`",
    about: "With `call`, a request becomes a call of a function; with `service`, a component that exports \
            `wasi:http/incoming-handler` gets the request as it is.",
    keys: &[
        Key {
            name: "method",
            form: || Form::new("string", METHODS.join(", ")),
            meaning: "The request's method. Required with `call`, not accepted with `service`, which gets every method.",
        },
        Key {
            name: "path",
            form: || {
                Form::new(
                    "string",
                    "`/products/{sku}`, `/files/{*rest}`; with `service` a prefix `/files/*`",
                )
            },
            meaning: "The request's path. `{sku}` is one segment or part of one, `{*rest}` everything to the end. Required.",
        },
        Key {
            name: "call",
            form: || Form::new("string", "`namespace:package/interface.function`"),
            meaning: "The function to call. The version may be left out.",
        },
        Key {
            name: "service",
            form: || Form::new("string", "a service's name"),
            meaning: "The HTTP component that answers below the prefix.",
        },
        Key {
            name: "query",
            form: || Form::new("array of strings", "names of the function's parameters"),
            meaning: "Parameters read from the query string. With methods other than POST, PUT and PATCH, all are that the path leaves.",
        },
        Key {
            name: "status",
            form: || Form {
                default: Some("200, or 204 without a value".to_owned()),
                ..status()
            },
            meaning: "The status of a result.",
        },
        Key {
            name: "errors",
            form: || Form {
                default: Some("none: 422".to_owned()),
                ..Form::new(
                    "table",
                    format!(
                        "`{{ unknown-sku = 404, \"*\" = 422 }}`, {}",
                        status().accepted
                    ),
                )
            },
            meaning: "The status of each case of the function's error; `*` is any other.",
        },
    ],
};

pub(super) static GATEWAY: Table = Table {
    head: "`[gateway]`",
    about: "",
    keys: &[
        Key {
            name: "listen",
            form: || Form {
                default: Some("the command line's".to_owned()),
                ..Form::new("string", "`host:port`, such as \"127.0.0.1:8080\"")
            },
            meaning: "Where the gateway listens; port 0 is any free one.",
        },
        Key {
            name: "admin",
            form: || Form {
                default: Some("the command line's, or none".to_owned()),
                ..Form::new("string", "`host:port`, such as \"127.0.0.1:8081\"")
            },
            meaning: "Where [dead letters are served as JSON](events.md#over-http). Whoever can reach it can read, change and drop them, so it belongs on a loopback address.",
        },
        Key {
            name: "rpc",
            form: || Form {
                default: Some("true".to_owned()),
                ..Form::new(
                    "boolean or array of strings",
                    "true, false, `[\"shop:catalog/products\"]`",
                )
            },
            meaning: "Which functions have [an RPC path](gateway.md#functions-at-their-rpc-path): all, none, or those of these interfaces. Without a version an interface stands for all of its versions.",
        },
        Key {
            name: "body",
            form: || Form::size(BODY),
            meaning: "Body of a request. Beyond it 413.",
        },
        Key {
            name: "header",
            form: || Form::size(HEADER),
            meaning: "Request line and headers together. Beyond it 431.",
        },
        Key {
            name: "timeout",
            form: || Form::time(REQUEST),
            meaning: "Time from a request's first byte to the last of its answer. Then 504.",
        },
        Key {
            name: "connections",
            form: || Form::count(CONNECTIONS),
            meaning: "Connections open at the same time. The longest idle makes room for the next; where all are busy, 503 except for health checks.",
        },
        Key {
            name: "peer-connections",
            form: || Form {
                default: Some("half of `connections`".to_owned()),
                ..Form::count(CONNECTIONS)
            },
            meaning: "Those among them that one peer may have: an IPv4 address, or a /64 of IPv6. As many as `connections` where a proxy stands before the gateway.",
        },
    ],
};

fn subjects() -> Form {
    Form {
        default: Some("none".to_owned()),
        ..Form::new(
            "array of strings",
            "NATS subjects such as `orders.created`, `orders.*`, `orders.>`",
        )
    }
}

fn status() -> Form {
    Form::new("integer", format!("{} to {}", STATUS.start(), STATUS.end()))
}

/// Every key of the manifest as Markdown, a table for each of its tables.
#[must_use]
pub fn reference() -> String {
    let mut text = String::new();
    let tables = [
        &APP,
        &SERVICE,
        &LIMITS,
        &GRANTS,
        &KEYVALUE,
        &WIRE,
        &STREAM,
        &RETRY,
        &RETENTION,
        &SUBSCRIBER,
        &ROUTE,
        &GATEWAY,
    ];
    for table in tables {
        let Table { head, about, keys } = table;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "### {head}\n");
        if !about.is_empty() {
            let _ = writeln!(text, "{about}\n");
        }
        text.push_str("| key | type | accepted | default | meaning |\n|---|---|---|---|---|\n");
        for Key {
            name,
            form,
            meaning,
        } in *keys
        {
            let Form {
                kind,
                default,
                accepted,
            } = form();
            let default = default.unwrap_or_default();
            let _ = writeln!(
                text,
                "| `{name}` | {kind} | {accepted} | {default} | {meaning} |"
            );
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}
