//! Every key of the manifest, once: its name, what it accepts and by default has, and its meaning.
//!
//! Reading refuses a key that has no row here and takes names, bounds and defaults from here, messages
//! say what a row accepts, and [`reference()`] prints the rows, so the four cannot differ. A new key is
//! a row here and the field that reads it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::kinds::{
    Address, Bounds, Documented, Flag, Hundredths, Key, Least, Or, Other, Outcomes, Rpc, Steps,
    Table,
};
use super::placement::{Copies, HostNames};
use super::shares::{Multiple, Percent, Percents, Times};

/// Methods that a route may name, in the order in which messages list them.
pub(crate) const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// The statuses that a route may answer with. 1xx are no final answers, so they are left out.
pub(super) const STATUSES: RangeInclusive<u16> = 200..=599;
const STATUS_FORM: &str = "200 to 599";

const SUBJECTS: Other =
    Other::texts(&["NATS subjects such as `orders.created`, `orders.*`, `orders.>`"]).or("none");

const DAY: u64 = 86_400;

const fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

const fn secs(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// The connections that one peer may have of so many, unless told otherwise.
pub(super) const fn half(connections: u32) -> u32 {
    connections.div_ceil(2)
}

/// Makes a module for each table: a constant for each of its rows, and `TABLE`, which lists them.
macro_rules! tables {
    ($($table:ident $head:literal $about:literal {
        $($key:ident $name:literal: $kind:ty = $values:expr => $meaning:literal;)*
    })*) => {
        $(
            #[doc = $head]
            pub(crate) mod $table {
                use super::*;

                $(
                    #[doc = $meaning]
                    pub(crate) const $key: Key<$kind> = Key {
                        name: $name,
                        values: $values,
                        meaning: $meaning,
                    };
                )*

                pub(in crate::manifest) static TABLE: Table = Table {
                    head: $head,
                    about: $about,
                    keys: &[$(&$key),*],
                };
            }
        )*

        /// All tables, in the order of the reference.
        pub(super) static TABLES: &[&Table] = &[$(&$table::TABLE),*];
    };
}

tables! {
    app "Top level" "" {
        NAME "name": Other = Other::text(&["1 to 63 of a-z, 0-9 and `-`"])
            => "The app's name, the second token of its subjects. Required.";
        SERVICE "service": Other = Other::table(&["`[service.NAME]`, at least one of them or of the jobs"])
            => "The services. NAME is words of letters and digits joined by `-`, at most 63 characters.";
        JOB "job": Other = Other::table(&["`[job.NAME]`"])
            => "Components that are run, at times or all the time, instead of called; see [jobs](jobs.md). No service has the name of one.";
        WIRE "wire": Other = Other::table(&["`[wire.\"namespace:package/interface\"]`"])
            => "Who answers an interface, where the services' exports leave it open. The version may be left out.";
        STREAM "stream": Other = Other::table(&["`[stream.NAME]`"])
            => "Subjects whose messages are stored until they are handled.";
        PIPELINE "pipeline": Other = Other::table(&["`[pipeline.NAME]`"])
            => "Functions that are made of steps, go on when a host is lost, and are undone when a step fails. See [pipelines](pipelines.md).";
        ROUTE "route": Other = Other::tables(&["`[[route]]`"])
            => "What the gateway serves, next to `POST /rpc/…`, `/healthz` and `/readyz`.";
        NEST "nest": Other = Other::tables(&["`[[nest]]`"])
            => "What clients of NestJS microservices on the same NATS call and emit. See [NestJS](nestjs.md).";
        GATEWAY "gateway": Other = Other::table(&["`[gateway]`"])
            => "Where and how the gateway listens.";
    }

    service "`[service.NAME]`" "A component under a name." {
        COMPONENT "component": Other = Other::text(&["a path from the manifest's folder", "`oci://REGISTRY/NAME:TAG`", "`oci://REGISTRY/NAME@sha256:DIGEST`"])
            => "A guest's folder, which is built when it has changed, a `.wasm` file, or a component in a [registry](registries.md). Required.";
        CONFIG "config": Other = Other::table(&["strings, numbers and booleans, nothing nested"])
            => "What the component reads through `wasi:config`, as text.";
        ENV "env": Other = Other::table(&["strings, numbers and booleans by name, 64KiB in all, nothing nested; no `=` in a name and no NUL"])
            => "What the component finds as environment variables, as text. Nothing of the host's own environment is there.";
        ARGS "args": Other = Other::texts(&["texts without NUL, 64KiB in all"]).or("none")
            => "The arguments that the component finds, after the service's name as the first one. Without any there is not even that.";
        WIRE "wire": Other = Other::table(&["`[service.NAME.wire]` with `\"namespace:package/interface\" = \"SERVICE\"`"])
            => "Which service answers an interface that this one imports, where it is another than for the rest of the app; see [a service between two others](#a-service-between-two-others). The version may be left out.";
        LIMITS "limits": Other = Other::table(&["`limits = { memory = \"64MiB\", timeout = \"2s\" }`"])
            => "What the service may use; see below.";
        // An instance costs ten to fifty times a plain call, so a thousand calls make that cost vanish
        // while a leak of 100 KiB a call still ends below the default memory limit.
        REUSE "reuse": Bounds<u32> = Bounds { default: 1_000, range: 1..=1_000_000 }
            => "Calls that one instance serves before it is dropped; 1 is a fresh instance for each call. One that trapped or ran out of time is never used again.";
        GRANTS "grants": Other = Other::table(&["`grants = { http = [\"api.example.com\"] }`"])
            => "What the component may reach outside its sandbox; see below.";
        DURABLE "durable": Other = Other::new("list or table", &["`[\"namespace:package/interface.function\"]`", "`{ functions = […], deadline = \"5m\" }`"]).or("none")
            => "Exported functions that survive their host: another one goes on with a call where it was. See [durable functions](pipelines.md#durable-functions); below is what the table has.";
        UNDO "undo": Other = Other::table(&["`[service.NAME.undo.\"namespace:package/interface.function\"]`"])
            => "What undoes the calls of an imported function when a durable function fails; see below.";
        SECRET "secret": Other = Other::table(&["`[service.NAME.secret]` with `\"namespace:package/interface.function\" = [\"$args.card\", \"$result\"]`"])
            => "Values that are never shown, in runs of durable functions and in [recordings](testing.md#record-and-replay): paths into the arguments and the result of a function that the component exports or imports.";
        REPLICAS "replicas": Copies = Copies { default: 2 }
            => "Hosts of a [fleet](fleet.md) that run the service, or as many as there are. `wasmbay up` is one host and runs all.";
        REQUIRE "require": Other = Other::table(&["labels such as `{ zone = \"a\" }`"]).or("none")
            => "Labels that a host of a fleet must have to run the service. `wasmbay up` has none and asks for none.";
        SPREAD "spread": Other = Other::text(&["the name of a label, such as `zone`"]).or("nothing")
            => "The label over whose values the hosts that run the service are spread, as evenly as there are hosts.";
        RESERVE "reserve": Or<Bounds<u64>> = Or(Bounds { default: limits::MEMORY.values.default, range: 1 << 20..=1 << 50 }, "`limits.memory`, one instance")
            => "Memory that is set aside for the service on each host of a [fleet](fleet.md) with a `--capacity`. Say more where many large instances work at the same time.";
        ROLLOUT "rollout": Other = Other::table(&["`[service.NAME.rollout]`"]).or("none")
            => "How a new version takes over in a [fleet](fleet.md#a-share-of-the-calls-first): with a share of the calls first. Without it, and where `wasmbay up` takes over changed files, it takes over at once.";
    }

    job "`[job.NAME]`" "A component that exports `wasi:cli/run`, such as a program with a `main`. It has one of `schedule`, `every`, `at` and `restart`; see [jobs](jobs.md)." {
        COMPONENT "component": Other = service::COMPONENT.values
            => "As of a service. Required.";
        SCHEDULE "schedule": Other = Other::text(&["minute, hour, day of the month, month, day of the week, such as `0 3 * * 1-5`"])
            => "The times at which it runs, in UTC, as cron has them.";
        EVERY "every": Or<Bounds<Duration>> = Or(Bounds { default: secs(60), range: secs(1)..=secs(31 * DAY) }, "none")
            => "The interval at which it runs, in whole seconds; the first time is one interval after it was deployed.";
        AT "at": Other = Other::text(&["deploy", "request"])
            => "`deploy`: it runs once when it is deployed, and again when a deployment changes its component or its settings. `request`: it runs when an operator says so, as every job but those with `restart` does.";
        RESTART "restart": Other = Other::text(&["always"])
            => "It runs all the time, on as many hosts as `replicas` says, and is started again when it ends.";
        RETRY "retry": Other = Other::table(&["`retry = { attempts = 3 }`"])
            => "How often a run is tried that fails; see below.";
        KEEP "keep": Other = Other::table(&["`keep = { runs = 100, age = \"7d\" }`"])
            => "The runs that `wasmbay jobs history` lists; see below.";
        CONFIG "config": Other = service::CONFIG.values
            => "As of a service.";
        ENV "env": Other = service::ENV.values
            => "As of a service.";
        ARGS "args": Other = service::ARGS.values
            => "As of a service.";
        WIRE "wire": Other = Other::table(&["`[job.NAME.wire]` with `\"namespace:package/interface\" = \"SERVICE\"`"])
            => "As of a service.";
        LIMITS "limits": Other = Other::table(&["`limits = { memory = \"64MiB\", timeout = \"1h\" }`"])
            => "What a run may use; see below.";
        GRANTS "grants": Other = service::GRANTS.values
            => "As of a service, but for `subscribe`.";
        REPLICAS "replicas": Or<Copies> = Or(Copies { default: 2 }, "2; 1 with `restart`")
            => "Hosts of a [fleet](fleet.md) that stand ready for it, of which one has a run. With `restart`, hosts on which it runs at the same time.";
        REQUIRE "require": Other = service::REQUIRE.values
            => "As of a service.";
        SPREAD "spread": Other = service::SPREAD.values
            => "As of a service.";
        RESERVE "reserve": Or<Bounds<u64>> = service::RESERVE.values
            => "As of a service.";
    }

    job_retry "`retry` of a job" "" {
        ATTEMPTS "attempts": Bounds<u32> = Bounds { default: 3, range: 1..=100 }
            => "How often a run is tried in all. An attempt whose host was lost or stopped does not count. Not with `restart`.";
        BACKOFF "backoff": Steps = Steps { default: &[secs(5), secs(30)], each: millis(1)..=secs(3_600), most: 20 }
            => "The waits between the attempts; the last one repeats. With `restart`, those before it is started again: 1s, 2s and so on to 60s unless given, and from the first on after it ran for a minute.";
    }

    job_keep "`keep` of a job" "" {
        RUNS "runs": Bounds<u32> = Bounds { default: 50, range: 1..=1_000 }
            => "How many of the last runs.";
        AGE "age": Bounds<Duration> = Bounds { default: secs(7 * DAY), range: secs(60)..=secs(366 * DAY) }
            => "Time after their end.";
    }

    job_limits "`limits` of a job" "" {
        MEMORY "memory": Bounds<u64> = limits::MEMORY.values
            => "Linear memory of a run.";
        TABLES "tables": Bounds<u32> = limits::TABLES.values
            => "Elements of all its tables.";
        INSTANCES "instances": Bounds<u32> = limits::INSTANCES.values
            => "Core instances that make it up.";
        TIMEOUT "timeout": Bounds<Duration> = Bounds { default: secs(600), range: millis(10)..=secs(7 * DAY) }
            => "Time for one attempt, after which it is stopped. Not with `restart`.";
        MESSAGE "message": Bounds<usize> = limits::MESSAGE.values
            => "Arguments and result of a call that it makes, each.";
        HOPS "hops": Bounds<u8> = limits::HOPS.values
            => "Services that a call which it makes may pass through.";
    }

    rollout "`rollout` of a service" "A table without keys has all defaults." {
        CANARY "canary": Percents = Percents { default: Percent(1_000), range: Percent(1)..=Percent(9_900) }
            => "The share of the calls that the new version gets on each host that runs the service.";
        FOR "for": Bounds<Duration> = Bounds { default: secs(30), range: secs(1)..=secs(DAY) }
            => "Time after which the new version gets all calls, unless its figures have taken it back. It counts while both versions run on every host that runs the service.";
        CALLS "calls": Bounds<u32> = Bounds { default: 50, range: 1..=1_000_000 }
            => "Calls of the new version, all hosts together, before its figures count. At the end of `for` what there was is judged; a version that was called less often and did not fail goes on.";
        ROLLBACK_ON "rollback-on": Other = Other::table(&["`{ errors = \"1%\", p99 = \"2x\" }`"])
            => "What takes the new version back; see below.";
    }

    rollback_on "`rollback-on` of a rollout" "" {
        ERRORS "errors": Percents = Percents { default: Percent(100), range: Percent(0)..=Percent(10_000) }
            => "The new version goes back when more of its calls than this end with an error that is not their caller's, and more than of the old version's.";
        P99 "p99": Multiple = Multiple { range: Times(110)..=Times(100_000) }
            => "The new version goes back when the 99th percentile of its calls' durations is above this many times that of the old version's, and at least 5 ms above it. Each of them needs 100 calls for that.";
    }

    durable "`durable` of a service" "" {
        FUNCTIONS "functions": Other = Other::texts(&["`namespace:package/interface.function`"])
            => "The functions; their versions may be left out. Required.";
        TIMEOUT "timeout": Bounds<Duration> = step::TIMEOUT.values
            => "Time for one attempt of a call that they make.";
        RETRY "retry": Other = step::RETRY.values
            => "How often such a call is tried when its service traps, is away or does not answer in time, before the function sees that it failed; as `retry` of a step.";
        // The function stays in memory meanwhile.
        DEADLINE "deadline": Bounds<Duration> = Bounds { default: pipeline::DEADLINE.values.default, range: secs(1)..=secs(DAY) }
            => "Time for a run. One that takes longer fails, and what it did is undone; undoing has no deadline.";
        IN_FLIGHT "in-flight": Bounds<u32> = pipeline::IN_FLIGHT.values
            => "Runs of a function that are worked on at the same time, all hosts together. Others wait.";
        JOURNAL "journal": Bounds<usize> = pipeline::JOURNAL.values
            => "Journal of one run: its arguments, and each call with arguments and outcome. Beyond it the run fails, and is undone.";
        KEEP "keep": Bounds<Duration> = pipeline::KEEP.values
            => "Time for which a run is kept that has ended.";
        SIZE "size": Bounds<u64> = pipeline::SIZE.values
            => "All runs of a function, as of a pipeline.";
    }

    limits "`limits` of a service" "" {
        // The maximum is what a 32-bit memory can address.
        MEMORY "memory": Bounds<u64> = Bounds { default: 128 << 20, range: 64 << 10..=4 << 30 }
            => "Linear memory of one instance.";
        // Interpreters compiled to WebAssembly need some ten thousand.
        TABLES "tables": Bounds<u32> = Bounds { default: 100_000, range: 1..=10_000_000 }
            => "Elements of all tables of one instance.";
        // Adapters and shared libraries make one component two to twenty.
        INSTANCES "instances": Bounds<u32> = Bounds { default: 32, range: 1..=1_000 }
            => "Core instances that make up one instance.";
        TIMEOUT "timeout": Bounds<Duration> = Bounds { default: secs(5), range: millis(10)..=secs(600) }
            => "Time for one call; a caller with less left shortens it. Then 504.";
        CONCURRENCY "concurrency": Bounds<u32> = Bounds { default: 64, range: 1..=10_000 }
            => "Calls worked on at the same time.";
        WAIT "wait": Bounds<Duration> = Bounds { default: millis(500), range: secs(0)..=secs(60) }
            => "Time that a call waits when all of `concurrency` is taken. Then 429.";
        // Waiting costs the memory of the message.
        QUEUE "queue": Bounds<u32> = Bounds { default: 1_024, range: 0..=100_000 }
            => "Calls that may wait at the same time. Beyond it 429 at once.";
        // NATS allows 64 MiB at most, and 1 MiB unless its server is told otherwise.
        MESSAGE "message": Bounds<usize> = Bounds { default: 1 << 20, range: 1 << 10..=64 << 20 }
            => "Arguments of a call, and its result. Beyond it 413.";
        // Ends a circle of imports.
        HOPS "hops": Bounds<u8> = Bounds { default: 16, range: 1..=100 }
            => "Services that a call may have passed through. Beyond it 508.";
    }

    grants "`grants` of a service" "What is not granted is refused." {
        HTTP "http": Other = Other::texts(&["`api.example.com`", "`*.example.com`", "either with `:port`"]).or("none")
            => "Hosts that outgoing HTTP may reach: on ports 80 and 443, or the one that is named. `*.` covers every name below, not the name itself.";
        TCP "tcp": Other = Other::texts(&["`db.internal:5432`", "`10.0.0.7:5432`"]).or("none")
            => "Endpoints that the component may connect to over TCP; their names are the only ones that it may look up. A name whose address is this machine's own (loopback) or link-local is refused: name that address.";
        UDP "udp": Other = Other::texts(&["`dns.internal:53`"]).or("none")
            => "Endpoints that the component may exchange datagrams with, as for `tcp`.";
        KEYVALUE "keyvalue": Other = Other::new("boolean or table", &["true, false, `{ replicas = 3, size = \"256MiB\" }`"]).or("false")
            => "Whether the component may keep data through `wasi:keyvalue`; see below. It is the service's own: no other service can reach it, and it outlives the host.";
        BLOBSTORE "blobstore": Other = Other::new("boolean or table", &["true, false, `{ replicas = 3, size = \"1GiB\" }`"]).or("false")
            => "Whether the component may keep objects of any size through `wasi:blobstore`; see below. They are the service's own, as `keyvalue` is. Durable functions cannot have it.";
        FILES "files": Other = Other::texts(&["folders within the manifest's such as `templates`, at most 16"]).or("none")
            => "Folders whose files the component may read, as `/templates`; see [files](isolation.md#files). Only `wasmbay up` has them: files do not travel with a deploy. Durable functions cannot have it.";
        PUBLISH "publish": Other = SUBJECTS
            => "Subjects on which messages may be published; see [messages](messaging.md).";
        SUBSCRIBE "subscribe": Other = SUBJECTS
            => "Subjects whose messages the component handles. No two may overlap.";
    }

    keyvalue "`grants.keyvalue`" "`true` is a table without keys. Data that exists gets what it has less of; it is never shrunk." {
        REPLICAS "replicas": Or<Bounds<u8>> = Or(wire::REPLICAS.values, "the most that a durable wire or stream has")
            => "Servers that keep a copy, as JetStream has them.";
        SIZE "size": Bounds<u64> = Bounds { default: 64 << 20, range: 64 << 10..=1 << 40 }
            => "All of the service's data, keys included; JetStream sets as much aside. Beyond it setting a key fails.";
    }

    blobstore "`grants.blobstore`" "`true` is a table without keys. What exists gets what it has less of; it is never shrunk." {
        REPLICAS "replicas": Or<Bounds<u8>> = Or(wire::REPLICAS.values, "the most that a durable wire or stream has")
            => "Servers that keep a copy, as JetStream has them.";
        SIZE "size": Bounds<u64> = Bounds { default: 256 << 20, range: 1 << 20..=1 << 40 }
            => "All of the service's objects, names included; JetStream sets as much aside. Beyond it writing an object fails.";
    }

    wire "`[wire.\"namespace:package/interface\"]`"
         "A wire for calls has one of `service` and `external`, or any of `local`, `breaker` and `fallback` without them. One with `mode = \"event\"` has neither: every service that exports the interface gets each event. All keys below `durable` need it. See [events](events.md)." {
        SERVICE "service": Other = Other::text(&["a service that exports the interface"])
            => "The service that answers; others that export the interface do not.";
        EXTERNAL "external": Other = Other::new("boolean or string", &["`true`, `\"nest\"`, `\"grpc://host:port\"`, `\"grpcs://host:port\"`"]).or("none")
            => "Something outside this app answers: on the interface's subjects, such as a program with a plain NATS client, a NestJS microservice by `patterns`, or a [gRPC](grpc.md) service.";
        PROTO_SERVICE "proto-service": Other = Other::text(&["a full name such as `acme.payments.Payments`"]).or("as the interface's")
            => "With `external = \"grpc://…\"`: the service that answers.";
        METHODS "methods": Other = Other::table(&["`{ charge = \"ChargeCard\" }`"]).or("as the functions' names")
            => "With `external = \"grpc://…\"`: the method of each function that has another name.";
        PATTERNS "patterns": Other = Other::table(&["`{ get-price = \"price.get\", watch = { cmd = \"watch\" } }`"]).or("none")
            => "With `external = \"nest\"`: the pattern by which each function's handler is found.";
        STREAMS "streams": Other = Other::texts(&["functions that return a list"]).or("none")
            => "With `external = \"nest\"`: functions whose handlers send the elements of their list one by one.";
        NEST "nest": Other = Other::table(&["`{ order-placed = \"order.placed\" }`"]).or("none")
            => "With `mode = \"event\"`: the pattern under which events of each function are published for `@EventPattern` handlers of NestJS, too.";
        LOCAL "local": Other = Other::text(&["prefer", "never"]).or("prefer")
            => "Whether a call is made in the process where its caller's host serves the interface too, or over NATS all the same.";
        BREAKER "breaker": Other = Other::table(&["`breaker = { errors = \"50%\" }`, or `{}`"]).or("none")
            => "A circuit breaker: calls are not sent for a while when too many have failed; see below.";
        FALLBACK "fallback": Other = Other::table(&["`fallback = { service = \"…\" }`, `{ values = { FUNCTION = … } }`"]).or("none")
            => "What answers while the breaker is open, instead of an error; see below.";
        MODE "mode": Other = Other::text(&["call", "event"]).or("call")
            => "Whether importing the interface calls the one that exports it, or publishes to all that do.";
        DURABLE "durable": Flag = Flag
            => "Whether events are stored until each subscriber has acknowledged them.";
        RETRY "retry": Other = Other::table(&["`retry = { attempts = 5 }`"])
            => "What happens to an event that a subscriber fails to handle; see below.";
        IN_FLIGHT "in-flight": Bounds<u32> = Bounds { default: 256, range: 1..=10_000 }
            => "Events that each subscriber may hold unacknowledged, all hosts together, those that wait for their next attempt included.";
        ORDER_BY "order-by": Other = Other::text(&["a parameter and fields of records below it, such as \"order.id\""])
            => "Events with the same value there are handled one after the other by each subscriber. Every function must have it, and it must be text, an integer, a boolean or an enum.";
        RETENTION "retention": Other = Other::table(&["`retention = { age = \"7d\", size = \"128MiB\" }`"])
            => "How long and how many events are kept; see below.";
        // As JetStream has them.
        REPLICAS "replicas": Bounds<u8> = Bounds { default: 1, range: 1..=5 }
            => "Servers of a NATS cluster that keep a copy.";
        DEDUP "dedup": Bounds<Duration> = Bounds { default: secs(120), range: secs(1)..=secs(DAY) }
            => "Time within which a second event with the same `Nats-Msg-Id` is not stored. At most `retention.age`.";
        SUBSCRIBER "subscriber": Other = Other::table(&["`[wire.\"…\".subscriber.SERVICE]`"])
            => "What is different for one subscriber; see below.";
    }

    nest "`[[nest]]`" "A request or event of a NestJS client becomes a call, and its result a response. See [NestJS](nestjs.md)." {
        PATTERN "pattern": Other = Other::new("string, integer or table", &["`\"stock.on-hand\"`, `{ cmd = \"on-hand\" }`"])
            => "What the client sends to; a table is what `{ cmd: 'on-hand' }` is there. Required.";
        CALL "call": Other = Other::text(&["`namespace:package/interface.function`"])
            => "The function that answers; of an interface that is wired as events, what is emitted is published. Required.";
        QUEUE "queue": Other = Other::text(&["a queue group"]).or("bay")
            => "The queue group that shares what comes; that of a NestJS service shares its load.";
        STREAM "stream": Flag = Flag
            => "Whether the elements of a list are answered one by one, as an observable of them is.";
    }

    breaker "`breaker` of a wire for calls"
            "Each host counts the calls that it sends. Those that fail by their caller's fault (400, 404, 413) count as good ones. See [breakers](breakers.md)." {
        ERRORS "errors": Percents = Percents { default: Percent(5_000), range: Percent(100)..=Percent(10_000) }
            => "Part of the calls within `window` that have failed for the breaker to open.";
        WINDOW "window": Bounds<Duration> = Bounds { default: secs(10), range: secs(1)..=secs(600) }
            => "Time for which calls count.";
        CALLS "calls": Bounds<u32> = Bounds { default: 10, range: 1..=1_000_000 }
            => "Calls within `window` below which it stays closed.";
        OPEN "open": Bounds<Duration> = Bounds { default: secs(5), range: millis(100)..=secs(600) }
            => "Time for which no call is sent. Then one is: if it succeeds the breaker closes, else it stays open for as long again.";
    }

    fallback "`fallback` of a wire for calls" "One of the two. It needs `breaker`. Steps of pipelines and durable functions do not use it: they try again." {
        SERVICE "service": Other = Other::text(&["a service that exports the interface"])
            => "The service that is called instead. Without `service` on the wire, the others that export the interface answer while the breaker is closed.";
        VALUES "values": Other = Other::table(&["a value for each function, such as `{ get-price = 0 }`"])
            => "What functions return instead, written as their result's JSON. Others fail with 503.";
    }

    // What a stream shares with a wire is read by the wire's rows.
    stream "`[stream.NAME]`"
           "What is published on its subjects is stored, and every service with a grant for them gets each message until it has handled it. See [messages](messaging.md#durable)." {
        SUBJECTS "subjects": Other = super::SUBJECTS
            => "What is stored. No two subjects of an app's streams may overlap. Required.";
        RETRY "retry": Other = wire::RETRY.values
            => "What happens to a message that a service fails to handle; see below.";
        IN_FLIGHT "in-flight": Bounds<u32> = wire::IN_FLIGHT.values
            => "Messages that each service may hold unacknowledged, all hosts together, those that wait for their next attempt included.";
        RETENTION "retention": Other = wire::RETENTION.values
            => "How long and how many messages are kept; see below.";
        REPLICAS "replicas": Bounds<u8> = wire::REPLICAS.values
            => "Servers of a NATS cluster that keep a copy.";
        DEDUP "dedup": Bounds<Duration> = wire::DEDUP.values
            => "Time within which a second message with the same `Nats-Msg-Id` is not stored. At most `retention.age`.";
        SUBSCRIBER "subscriber": Other = Other::table(&["`[stream.NAME.subscriber.SERVICE]`"])
            => "What is different for one service; see below.";
    }

    retry "`retry` of a durable event wire or a stream"
          "An event that fails for good, or that cannot succeed, becomes a dead letter." {
        ATTEMPTS "attempts": Bounds<u32> = Bounds { default: 5, range: 1..=1_000 }
            => "How often an event is tried in all.";
        BACKOFF "backoff": Steps = Steps { default: &[millis(100), secs(1), secs(10)], each: millis(1)..=secs(DAY), most: 20 }
            => "The waits between the attempts; the last one repeats.";
        JITTER "jitter": Hundredths = Hundredths { default: 20 }
            => "The part of a wait by which it is made longer or shorter at random.";
        ON "on": Outcomes = Outcomes
            => "What is tried again: an `err` value, a trap (also of a failed import), a timeout, a busy host. Anything else is a dead letter at once.";
    }

    retention "`retention` of a durable event wire or a stream" "" {
        AGE "age": Bounds<Duration> = Bounds { default: secs(7 * DAY), range: secs(1)..=secs(365 * DAY) }
            => "Time that an event is kept, whether it was handled or not.";
        SIZE "size": Bounds<u64> = Bounds { default: 128 << 20, range: 64 << 10..=1 << 40 }
            => "All events of the wire together; JetStream sets as much aside. Beyond it publishing fails with 503; nothing that is stored makes room.";
    }

    subscriber "`[wire.\"namespace:package/interface\".subscriber.SERVICE]`"
               "Of a stream `[stream.NAME.subscriber.SERVICE]`. What is not given is as on the wire or stream." {
        RETRY "retry": Other = wire::RETRY.values
            => "As above, key by key.";
        IN_FLIGHT "in-flight": Or<Bounds<u32>> = Or(wire::IN_FLIGHT.values, "the wire's")
            => "As above.";
    }

    pipeline "`[pipeline.NAME]`"
             "A function that is made of steps; see [pipelines](pipelines.md). NAME is as that of a service." {
        IMPLEMENTS "implements": Other = Other::text(&["`namespace:package/interface.function`"])
            => "The function that the pipeline is. No service exports its interface. Required.";
        TYPE "type": Other = Other::text(&["`func(order-id: string) -> result<string, string>`: every type written out, as `wasmbay inspect` prints it"]).or("as services import it")
            => "The function's type, where no service imports it.";
        STEP "step": Other = Other::tables(&["`[[pipeline.NAME.step]]`, 1 to 32"])
            => "What is called, one after the other; see below. Required.";
        RESULT "result": Other = Other::new("any", &["a value of the function's result, with paths in it"]).or("nothing")
            => "What the function returns when all steps are done; of a `result`, its ok side.";
        SECRET "secret": Other = Other::texts(&["paths such as `$.card`, `$charge.token`"])
            => "Values that are stored with a run and never shown: of the arguments, and of the results of steps. See [secret values](pipelines.md#secret-values).";
        DEADLINE "deadline": Bounds<Duration> = Bounds { default: secs(120), range: secs(1)..=secs(365 * DAY) }
            => "Time for all steps. A run that takes longer fails, and is undone; undoing has no deadline.";
        IN_FLIGHT "in-flight": Bounds<u32> = Bounds { default: 256, range: 1..=10_000 }
            => "Runs that are worked on at the same time, all hosts together. Others wait. One that sleeps or waits for an event is not worked on.";
        // With its headers it is one message of NATS, which carries 1 MiB unless its server is told otherwise.
        JOURNAL "journal": Bounds<usize> = Bounds { default: 256 << 10, range: 16 << 10..=16 << 20 }
            => "Journal of one run: the arguments, the steps and their results. Beyond it the run fails, and is undone; arguments that leave no room in it are refused with 413.";
        KEEP "keep": Bounds<Duration> = Bounds { default: secs(DAY), range: secs(60)..=secs(90 * DAY) }
            => "Time for which a run is kept that has ended: to be looked at, and recognised by its key. One whose undo failed is kept until it is dealt with.";
        SIZE "size": Bounds<u64> = Bounds { default: 64 << 20, range: 1 << 20..=1 << 40 }
            => "All runs of the pipeline, those that are kept included; JetStream sets as much aside, and the pipelines of an app share it. New calls fail with 503 beyond three quarters of it; the rest is for runs that have begun.";
    }

    step "`[[pipeline.NAME.step]]`" "" {
        NAME "name": Other = Other::text(&["words of letters and digits joined by `-`"])
            => "By which paths, logs and the command line mean the step. Required.";
        CALL "call": Other = Other::text(&["`namespace:package/interface.function`"])
            => "The function that is called; the version may be left out. A step has one of this, `event`, `sleep` and `wait-for`.";
        EVENT "event": Other = Other::text(&["`namespace:package/interface.function`"])
            => "The event that is published, of an interface that is wired as events.";
        SLEEP "sleep": Or<Bounds<Duration>> = Or(Bounds { default: secs(1), range: millis(10)..=secs(365 * DAY) }, "no time")
            => "Time that passes before the next step; below the pipeline's `deadline`. Of the other keys a step with `sleep` has `name`, `when` and `parallel`.";
        WAIT_FOR "wait-for": Other = Other::table(&["`{ event = \"…\", key = \"$.orderId\", equals = \"$.orderId\", timeout = \"1h\" }`"])
            => "The run waits for an event, whose arguments are the step's result; see below. Of the other keys such a step has `name`, `when`, `parallel`, `on-error` (`fail` or `continue`) and `error`.";
        WITH "with": Other = Other::table(&["`{ order-id = \"$.orderId\", channel = \"email\" }`"])
            => "The arguments by parameter: values, and paths into the pipeline's own arguments (`$`) and the results of earlier steps (`$NAME`).";
        WHEN "when": Other = Other::new("text or table", &["a path to a boolean or an option", "`{ value = \"$.payment\", is = \"card\" }`"])
            => "The step is skipped when the boolean is false or the option is none; with `is`, when the value is another case. Within the step paths lead into the option or the case; see below.";
        PARALLEL "parallel": Other = Other::text(&["words of letters and digits joined by `-`"]).or("none")
            => "A group: steps that stand one after the other and have the same are done at the same time.";
        EACH "each": Other = Other::text(&["a path to a list"])
            => "The step is done for each item of the list, which is `$item` in its paths, and its result is the list of their results.";
        AT_MOST "at-most": Bounds<u32> = Bounds { default: 100, range: 1..=1_000 }
            => "Items that the list of `each` may have. The run fails at the step if there are more.";
        AT_ONCE "at-once": Bounds<u32> = Bounds { default: 1, range: 1..=32 }
            => "Items that are worked on at the same time; 1 is one after the other.";
        ON_ERROR "on-error": Other = Other::text(&["fail", "retry", "continue"]).or("fail")
            => "What an `err` value of the function means: the run fails; the step is tried again, then the run fails; or the run goes on without a result of the step.";
        ERROR "error": Other = Other::new("any", &["a value of the pipeline's own error, with paths in it; `$error` is the step's `err` value"]).or("the step's `err` value, where its type fits")
            => "The pipeline's own `err` value when the run fails with this step's `err` value.";
        TIMEOUT "timeout": Bounds<Duration> = Bounds { default: secs(30), range: millis(10)..=secs(600) }
            => "Time for one attempt.";
        RETRY "retry": Other = Other::table(&["`retry = { attempts = 5 }`"])
            => "How often the step is tried when its service traps, is away or does not answer in time; see below.";
        UNDO "undo": Other = Other::table(&["`undo = { call = \"…\", with = { … } }`"]).or("nothing")
            => "What undoes the step when the run fails after it; see below.";
    }

    undo "`undo` of a step, or of a function that durable ones call" "" {
        CALL "call": Other = step::CALL.values
            => "The function that undoes the step. An undo has this or `event`.";
        EVENT "event": Other = step::EVENT.values
            => "The event that undoes the step.";
        WITH "with": Other = step::WITH.values
            => "Its arguments, as of the step, whose own result is `$NAME` here; for what durable functions call, `$args` and `$result` are its arguments and its result, and `$` the arguments of the durable function.";
        TIMEOUT "timeout": Bounds<Duration> = step::TIMEOUT.values
            => "Time for one attempt.";
        RETRY "retry": Other = step::RETRY.values
            => "As of the step, for an `err` value too. After the last attempt the run is kept for a person.";
    }

    condition "`when` of a step" "" {
        VALUE "value": Other = Other::text(&["a path to a variant, an enum, an option or a boolean"])
            => "The value that decides. Required.";
        IS "is": Other = Other::new("text or boolean", &["a case of the variant or the enum", "`some`", "`none`", "true", "false"])
            => "What it has to be. Required.";
    }

    wait "`wait-for` of a step" "" {
        EVENT "event": Other = Other::text(&["`namespace:package/interface.function`"])
            => "The event, of an interface that is wired as events with `durable = true`. Required.";
        KEY "key": Other = Other::text(&["a path from `$`, the event's arguments, to a text, an integer, a boolean, a character or an enum"])
            => "What has to be equal in the event. Required.";
        EQUALS "equals": Other = Other::new("any", &["a value of the same type, or a path to one, as in `with`"])
            => "What it has to be equal to in the run. Required.";
        TIMEOUT "timeout": Bounds<Duration> = Bounds { default: secs(3_600), range: millis(10)..=secs(365 * DAY) }
            => "Time after which the step fails; below the pipeline's `deadline`.";
    }

    attempts "`retry` of a step or its undo" "" {
        ATTEMPTS "attempts": Bounds<u32> = Bounds { default: 5, range: 1..=1_000 }
            => "How often it is tried in all.";
        BACKOFF "backoff": Steps = Steps { default: &[millis(100), secs(1), secs(10)], each: millis(1)..=secs(3_600), most: 20 }
            => "The waits between the attempts; the last one repeats.";
    }

    route "`[[route]]`"
          "With `call`, a request becomes a call of a function; with `service`, a component that exports `wasi:http/incoming-handler` or `wasi:http/handler` gets the request as it is; with `events`, the client follows events." {
        METHOD "method": Other = Other::text(&METHODS)
            => "The request's method. Required with `call`, not accepted with `service`, which gets every method.";
        PATH "path": Other = Other::text(&["`/products/{sku}`", "`/files/{*rest}`; with `service` a prefix `/files/*`"])
            => "The request's path. `{sku}` is one segment or part of one, `{*rest}` everything to the end. Required.";
        CALL "call": Other = Other::text(&["`namespace:package/interface.function`"])
            => "The function to call. The version may be left out.";
        SERVICE "service": Other = Other::text(&["a service's name"])
            => "The HTTP component that answers below the prefix.";
        EVENTS "events": Other = Other::text(&["`namespace:package/interface.function`"])
            => "The events that a client follows, of an interface that is wired as events; see [following events](gateway.md#following-events). The method is GET.";
        FILTER "filter": Other = Other::table(&["`{ id = \"order.id\" }`: for each parameter of the path a parameter of the event and fields of records below it"]).or("none: all events")
            => "With `events`: what has to be equal in an event for the client to get it. It is text, an integer, a boolean or an enum.";
        QUERY "query": Other = Other::texts(&["names of the function's parameters"])
            => "Parameters read from the query string. With methods other than POST, PUT and PATCH, all are that the path leaves.";
        STATUS "status": Other = Other::integer(&[STATUS_FORM]).or("200, or 204 without a value")
            => "The status of a result.";
        ERRORS "errors": Other = Other::table(&["`{ unknown-sku = 404, \"*\" = 422 }`", STATUS_FORM]).or("none: 422")
            => "The status of each case of the function's error; `*` is any other.";
        AUTH "auth": Other = auth::DEFAULT.values.or("`default` of `[gateway.auth]`")
            => "How a client has to say who it is; see [who may call](gateway.md#who-may-call).";
        SCOPES "scopes": Other = Other::texts(&["names such as `orders:write`"]).or("none")
            => "What the client's token or key has to allow, all of it. Else 403.";
        RATE "rate": Other = gateway::RATE.values.or("the gateway's")
            => "How many requests a client may make here.";
    }

    gateway "`[gateway]`" "" {
        LISTEN "listen": Address = Address { default: "the command line's", example: "127.0.0.1:8080" }
            => "Where the gateway listens; port 0 is any free one.";
        ADMIN "admin": Address = Address { default: "the command line's, or none", example: "127.0.0.1:8081" }
            => "Where [a page shows what is going on](page.md), and the same is served as JSON. Anything but a loopback address takes `--admin-token-file`.";
        HOSTS "hosts": HostNames = HostNames
            => "The names (`Host` headers) by which requests reach the app at the gateway of a [fleet](fleet.md), which has one gateway for all apps. `wasmbay up` has one app, which answers to every name.";
        RPC "rpc": Rpc = Rpc
            => "Which functions have [an RPC path](gateway.md#functions-at-their-rpc-path): all for clients on this machine, all for everybody, none, or those of these interfaces for everybody. Without a version an interface stands for all of its versions.";
        OPENAPI "openapi": Documented = Documented
            => "Whether `/openapi.json` [describes](gateway.md) what is served, and whether `/openapi` is a page to read and try it.";
        BODY "body": Bounds<usize> = Bounds { default: 1 << 20, range: 1 << 10..=64 << 20 }
            => "Body of a request. Beyond it 413.";
        // The minimum is hyper's own.
        HEADER "header": Bounds<usize> = Bounds { default: 32 << 10, range: 8 << 10..=1 << 20 }
            => "Request line and headers together. Beyond it 431.";
        TIMEOUT "timeout": Bounds<Duration> = Bounds { default: secs(30), range: millis(10)..=secs(3_600) }
            => "Time from a request's first byte to the last of its answer. Then 504.";
        CONNECTIONS "connections": Bounds<u32> = Bounds { default: 1_024, range: 1..=100_000 }
            => "Connections open at the same time. The longest idle makes room for the next; where all are busy, 503 except for health checks.";
        PEER_CONNECTIONS "peer-connections": Or<Bounds<u32>> = Or(Bounds { default: half(CONNECTIONS.values.default), ..CONNECTIONS.values }, "half of `connections`")
            => "Those among them that one peer may have: an IPv4 address, or a /64 of IPv6. As many as `connections` where a proxy stands before the gateway.";
        AUTH "auth": Other = Other::table(&["`[gateway.auth]`"]).or("none: everybody may call")
            => "Who may call; see [who may call](gateway.md#who-may-call).";
        TLS "tls": Other = Other::table(&["`[gateway.tls]`"]).or("none: HTTP")
            => "Certificates; see [TLS](gateway.md#tls). In a fleet they are those of its hosts: `wasmbay host --gateway-certificate`.";
        CORS "cors": Other = Other::table(&["`[gateway.cors]`"]).or("none")
            => "Pages of other origins that may call functions; see [browsers](gateway.md#browsers).";
        RATE "rate": Other = Other::table(&["`rate = { requests = 100, window = \"1m\" }`"]).or("none")
            => "How many requests a client may make; see [limits for clients](gateway.md#limits-for-clients).";
        TRUSTED_PROXIES "trusted-proxies": Other = Other::texts(&["networks such as `10.0.0.0/8`, `::1`, at most 256"]).or("none")
            => "The proxies that are believed for whom a request is; see [behind a proxy](gateway.md#behind-a-proxy).";
        COMPRESS "compress": Least = Least { default: 1 << 10, range: 64..=64 << 20 }
            => "From which size on results are compressed for clients that take gzip. What components write themselves goes out as it is.";
    }

    cors "`[gateway.cors]`" "" {
        ORIGINS "origins": Other = Other::texts(&["`https://app.example.com`", "`*`"])
            => "The origins. Required.";
        METHODS "methods": Other = Other::texts(&super::METHODS).or("all")
            => "Methods that requests of these pages may have.";
        HEADERS "headers": Other = Other::texts(&["names of headers"]).or("those that the gateway reads")
            => "Headers that requests of these pages may have.";
        CREDENTIALS "credentials": Flag = Flag
            => "Whether browsers send cookies and certificates along. Tokens and keys that the page itself sends need none of that.";
        MAX_AGE "max-age": Bounds<Duration> = Bounds { default: secs(600), range: secs(0)..=secs(DAY) }
            => "Time for which browsers remember that they may.";
    }

    rate "`rate` of the gateway, and of a route" "A route with a limit of its own has that in place of the gateway's. Each host counts for itself." {
        REQUESTS "requests": Or<Bounds<u32>> = Or(Bounds { default: 100, range: 1..=1_000_000 }, "")
            => "Requests within `window`; they come back one by one. Required.";
        WINDOW "window": Bounds<Duration> = Bounds { default: secs(60), range: secs(1)..=secs(DAY) }
            => "Time for `requests`.";
        BURST "burst": Or<Bounds<u32>> = Or(REQUESTS.values.0, "`requests`")
            => "Requests at once.";
        BY "by": Other = Other::text(&["address", "client", "`claim:NAME`"]).or("address")
            => "What one client is: an address (of IPv6 a /64); a token's `sub`, a key or a certificate's subject, else the address; or what a token says under NAME.";
    }

    tls "`[gateway.tls]`" "The paths are from the manifest's folder. A file that has changed is read again." {
        CERTIFICATE "certificate": Other = Other::text(&["a path to a PEM file"])
            => "The certificate, followed by those between it and its authority. Required.";
        KEY "key": Other = Other::text(&["a path to a PEM file"])
            => "The certificate's private key. Required.";
        CLIENT_CA "client-ca": Other = Other::text(&["a path to a PEM file"]).or("none")
            => "The authorities of clients' certificates.";
        CLIENT "client": Other = Other::text(&["none", "optional", "required"]).or("required with `client-ca`, else none")
            => "Whether a client needs a certificate. One that is `optional` has to be valid all the same.";
    }

    auth "`[gateway.auth]`" "Tokens and keys by which clients say who they are." {
        DEFAULT "default": Other = Other::text(&["none", "jwt", "key", "any", "cert"]).or("none")
            => "What everything that is served asks for, unless its route says otherwise: nothing, a token, a key, either of these, or a client certificate. RPC paths and `/openapi.json` are asked for the same, health checks for nothing.";
        SCOPES "scopes": Other = route::SCOPES.values
            => "What a token or key has to allow for everything that asks for `default`: RPC paths, gRPC, `/openapi.json`, and routes with neither `auth` nor `scopes` of their own.";
        JWT "jwt": Other = Other::table(&["`[gateway.auth.jwt]`"]).or("none")
            => "Which JSON Web Tokens are taken; see below.";
        KEY "key": Other = Other::table(&["`[gateway.auth.key.NAME]`, at most 1000"]).or("none")
            => "API keys, which clients send as `X-Api-Key`. NAME is words of letters and digits joined by `-`.";
        KEY_FILE "key-file": Other = Other::text(&["a path from the manifest's folder; in a fleet an absolute one"]).or("none")
            => "A TOML file with further keys, a table `[NAME]` with `sha256` and `scopes` for each. It is read again when it has changed.";
    }

    jwt "`[gateway.auth.jwt]`" "A token needs `exp`. One of more than 8 KiB is refused." {
        ISSUER "issuer": Other = Other::text(&["a text such as \"https://id.example.com\""])
            => "The `iss` that tokens have to have. Required.";
        AUDIENCE "audience": Other = Other::texts(&["texts such as `shop`"]).or("none")
            => "The `aud` that tokens have to have, one of these. Without it, only tokens without `aud` are taken.";
        JWKS "jwks": Other = Other::text(&["an `https://` address", "an `http://` address of this machine", "a path from the manifest's folder; in a fleet an absolute one"])
            => "Where the issuer's public keys are, as a JWK set. Required.";
        ALGORITHMS "algorithms": Other = Other::texts(&["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "HS256", "HS384", "HS512"]).or("RS256, ES256, EdDSA")
            => "The algorithms by which tokens may be signed. The last three need a secret (`oct`) in the set.";
        SKEW "skew": Bounds<Duration> = Bounds { default: secs(30), range: secs(0)..=secs(300) }
            => "How much the issuer's clock may differ.";
        REFRESH "refresh": Bounds<Duration> = Bounds { default: secs(600), range: secs(1)..=secs(DAY) }
            => "Time after which the keys are fetched again. A token with an unknown key has them fetched at once, at most every ten seconds. While that fails, the last ones hold.";
        SCOPE_CLAIM "scope-claim": Other = Other::text(&["the name of a claim, such as `scope`, `scp`, `permissions`"]).or("scope")
            => "The claim that has the scopes: a text of words, or a list of texts.";
    }

    api_key "`[gateway.auth.key.NAME]`" "" {
        SHA256 "sha256": Other = Other::text(&["64 hexadecimal digits"])
            => "The SHA-256 of the key, of which no more is written down: `printf %s \"$KEY\" | sha256sum`. Required.";
        SCOPES "scopes": Other = route::SCOPES.values
            => "What the key allows.";
    }
}

/// Every key of the manifest as Markdown, a table for each of its tables.
#[must_use]
pub fn reference() -> String {
    let mut text = String::new();
    for table in TABLES {
        table.describe(&mut text);
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}
