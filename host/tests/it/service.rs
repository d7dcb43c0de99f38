//! One service without NATS: every way in which a call can end, and every limit gone over.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmbay::call::{Blame, Call, CallError, Code, Trace};
use wasmbay::interfaces::Backend;
use wasmbay::manifest::{Limits, ServiceSpec};
use wasmbay::plan::Event;
use wasmbay::runtime::{Component, Engine, EngineOptions, Runtime, Service};

use crate::support::components::{CALLER, GUEST, SLEEPER};
use crate::support::until;

/// The answers to the service's imports.
pub(crate) enum Other {
    Answers(&'static str),
    Fails,
    NeverAnswers,
}

/// A backend with these answers, which counts the calls.
struct Imports {
    other: Other,
    calls: AtomicUsize,
}

impl Backend for Imports {
    fn call<'a>(
        &'a self,
        subject: &'a str,
        call: Call,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send + 'a>> {
        assert!(
            subject.starts_with("bay.app.test.other.api.v1."),
            "{subject}"
        );
        assert_eq!((call.hops, call.caller.as_deref()), (1, Some("guest")));
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            match self.other {
                Other::Answers(json) => Ok(Bytes::from_static(json.as_bytes())),
                Other::Fails => Err(CallError::new(
                    Code::Unavailable,
                    Blame::Network,
                    "no responders",
                )),
                Other::NeverAnswers => pending().await,
            }
        })
    }

    fn publish<'a>(
        &'a self,
        event: Event,
    ) -> Pin<Box<dyn Future<Output = Result<(), CallError>> + Send + 'a>> {
        panic!("nothing is wired as events: {event:?}")
    }
}

pub(crate) struct Guest {
    pub(crate) service: Service,
    imports: Arc<Imports>,
    pub(crate) backend: Arc<dyn Backend>,
}

pub(crate) fn runtime(instances: u32) -> Runtime {
    let engine = Engine::new(EngineOptions {
        instances,
        cache: None,
    });
    Runtime::new(engine.unwrap()).unwrap()
}

pub(crate) fn spec(change: impl FnOnce(&mut ServiceSpec)) -> ServiceSpec {
    let mut spec = ServiceSpec::new("guest");
    change(&mut spec);
    spec
}

pub(crate) fn guest_on(
    runtime: &Runtime,
    text: &str,
    other: Other,
    change: impl FnOnce(&mut ServiceSpec),
) -> Guest {
    let component = Arc::new(Component::new(runtime.engine(), text.as_bytes()).unwrap());
    let service = Service::new(runtime, "app", component, Arc::new(spec(change))).unwrap();
    let calls = AtomicUsize::new(0);
    let imports = Arc::new(Imports { other, calls });
    Guest {
        service,
        backend: Arc::clone(&imports) as _,
        imports,
    }
}

fn guest(change: impl FnOnce(&mut ServiceSpec)) -> Guest {
    guest_on(&runtime(20), GUEST, Other::Fails, change)
}

pub(crate) fn limits(change: impl FnOnce(&mut Limits)) -> impl FnOnce(&mut ServiceSpec) {
    |spec| change(&mut spec.limits)
}

impl Guest {
    pub(crate) fn message(arguments: &str) -> Call {
        Call {
            body: Bytes::copy_from_slice(arguments.as_bytes()),
            arrived: Instant::now(),
            deadline: Instant::now() + Duration::from_secs(20),
            hops: 0,
            caller: None,
            trace: Trace::default(),
            claims: None,
            identity: None,
            kind: wasmbay::call::Kind::Request,
        }
    }

    pub(crate) async fn send(&self, function: &str, call: Call) -> Result<String, CallError> {
        let exported = self.service.interfaces().next().unwrap();
        let function = &exported.functions[function];
        let reply = self.service.call(function, call, &self.backend).await?;
        Ok(String::from_utf8(reply.body.to_vec()).unwrap())
    }

    pub(crate) async fn call(&self, function: &str, arguments: &str) -> Result<String, CallError> {
        self.send(function, Self::message(arguments)).await
    }

    pub(crate) async fn code(&self, function: &str, arguments: &str) -> Code {
        self.call(function, arguments).await.unwrap_err().code
    }
}

#[tokio::test]
async fn json_arguments_come_back_as_a_json_result() {
    let guest = guest(|_| {});
    assert_eq!(
        guest.call("echo", r#"{"text":"hé\n"}"#).await.unwrap(),
        r#""hé\n""#
    );
    assert_eq!(
        guest.call("echo", r#"["positional"]"#).await.unwrap(),
        r#""positional""#
    );
    assert_eq!(guest.call("count", "").await.unwrap(), "1");
}

#[tokio::test]
async fn an_err_value_is_a_result() {
    let guest = guest(|_| {});
    assert_eq!(
        guest.call("check", r#"{"number":3}"#).await.unwrap(),
        r#"{"ok":3}"#
    );
    assert_eq!(
        guest.call("check", r#"{"number":30}"#).await.unwrap(),
        r#"{"err":30}"#
    );
}

#[tokio::test]
async fn arguments_that_do_not_decode_are_the_callers_fault() {
    let guest = guest(|_| {});
    let error = guest.call("echo", r#"{"text":7}"#).await.unwrap_err();
    assert_eq!(
        (error.code, error.blame),
        (Code::BadArguments, Blame::Caller)
    );
    assert!(error.message.contains("$.text"), "{}", error.message);
    assert!(
        error
            .message
            .starts_with(r#"service "guest": test:guest/api.echo@1.0.0: "#)
    );
}

#[tokio::test]
async fn a_trap_costs_its_caller_an_error_and_the_instance_its_life() {
    let guest = guest(|_| {});
    assert_eq!(guest.call("count", "").await.unwrap(), "1");
    assert_eq!(guest.call("count", "").await.unwrap(), "2");
    let error = guest.call("trap", "").await.unwrap_err();
    assert_eq!((error.code, error.blame), (Code::Trap, Blame::Guest));
    assert!(error.message.contains("unreachable"), "{}", error.message);
    assert_eq!(guest.call("count", "").await.unwrap(), "1");
}

#[tokio::test]
async fn an_instance_is_used_as_often_as_the_service_says() {
    let fresh = guest(|spec| spec.reuse = 1);
    let thrice = guest(|spec| spec.reuse = 3);
    for expected in ["1", "2", "3", "1"] {
        assert_eq!(fresh.call("count", "").await.unwrap(), "1");
        assert_eq!(thrice.call("count", "").await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_guest_that_spins_is_stopped_at_its_deadline() {
    let guest = guest(limits(|l| {
        l.timeout = Duration::from_millis(100);
        l.concurrency = 1;
    }));
    let started = Instant::now();
    let error = guest.call("spin", "").await.unwrap_err();
    assert_eq!((error.code, error.blame), (Code::Deadline, Blame::Guest));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        guest.call("count", "").await.unwrap(),
        "1",
        "its permit is free again"
    );
}

#[tokio::test]
async fn a_guest_that_spins_lets_others_run_on_the_same_thread() {
    let guest = guest(limits(|l| l.timeout = Duration::from_secs(1)));
    let spin = guest.call("spin", "");
    let others = async {
        for _ in 0..20 {
            guest.call("echo", r#"["x"]"#).await.unwrap();
        }
        Instant::now()
    };
    let ((spun, ended), finished) = tokio::join!(async { (spin.await, Instant::now()) }, others);
    assert_eq!(spun.unwrap_err().code, Code::Deadline);
    assert!(
        finished < ended,
        "the others had to wait for the one that spins"
    );
}

#[tokio::test]
async fn a_guest_blocked_in_an_import_is_stopped_at_its_deadline() {
    let timeout = limits(|l| l.timeout = Duration::from_millis(50));
    let guest = guest_on(&runtime(5), CALLER, Other::NeverAnswers, timeout);
    assert_eq!(guest.code("ask", r#"{"n":1}"#).await, Code::Deadline);
}

#[tokio::test]
async fn a_guest_asleep_is_stopped_at_its_deadline() {
    let timeout = limits(|l| l.timeout = Duration::from_millis(200));
    let guest = guest_on(&runtime(5), SLEEPER, Other::Fails, timeout);
    guest.call("sleep", r#"{"milliseconds":1}"#).await.unwrap();
    assert_eq!(
        guest.code("sleep", r#"{"milliseconds":60000}"#).await,
        Code::Deadline
    );
}

#[tokio::test]
async fn the_callers_deadline_counts_when_it_is_the_earlier() {
    let guest = guest(|_| {});
    let call = Call {
        deadline: Instant::now() + Duration::from_millis(50),
        ..Guest::message("")
    };
    let error = guest.send("spin", call).await.unwrap_err();
    assert_eq!(error.code, Code::Deadline);
    assert!(
        error.message.contains("that the caller had left"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn memory_has_a_limit() {
    let guest = guest(limits(|l| l.memory = 2 << 20));
    guest.call("take-memory", r#"{"pages":30}"#).await.unwrap();
    let error = guest
        .call("take-memory", r#"{"pages":30}"#)
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::Trap);
    assert!(
        error.message.contains("memory limit of 2097152 bytes"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn tables_have_a_limit() {
    let guest = guest(limits(|l| l.tables = 100));
    guest
        .call("take-table", r#"{"elements":50}"#)
        .await
        .unwrap();
    let error = guest
        .call("take-table", r#"{"elements":50}"#)
        .await
        .unwrap_err();
    assert!(
        error.message.contains("limit of 100 table elements"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn core_instances_have_a_limit() {
    let guest = guest_on(
        &runtime(5),
        CALLER,
        Other::Fails,
        limits(|l| l.instances = 1),
    );
    let error = guest.service.warm().await.unwrap_err();
    assert!(
        error.message.contains("instance count too high"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn calls_beyond_the_concurrency_wait_and_are_then_shed() {
    let change = limits(|l| {
        l.concurrency = 1;
        l.wait = Duration::from_millis(50);
        l.timeout = Duration::from_secs(2);
    });
    let guest = guest_on(&runtime(5), CALLER, Other::NeverAnswers, change);
    let (first, second) = tokio::join!(
        guest.code("ask", r#"{"n":1}"#),
        guest.call("ask", r#"{"n":2}"#)
    );
    assert_eq!(first, Code::Deadline);
    let second = second.unwrap_err();
    assert_eq!((second.code, second.blame), (Code::Overloaded, Blame::Host));
}

#[tokio::test]
async fn calls_beyond_the_queue_are_shed_at_once() {
    let change = limits(|l| {
        l.concurrency = 1;
        l.queue = 0;
        l.wait = Duration::from_secs(10);
        l.timeout = Duration::from_millis(200);
    });
    let guest = guest_on(&runtime(5), CALLER, Other::NeverAnswers, change);
    let (first, second) = tokio::join!(
        guest.code("ask", r#"{"n":1}"#),
        guest.code("ask", r#"{"n":2}"#)
    );
    assert_eq!((first, second), (Code::Deadline, Code::Overloaded));
}

#[tokio::test]
async fn messages_have_a_limit_both_ways() {
    let guest = guest(limits(|l| l.message = 1_000));
    let long = format!(r#"["{}"]"#, "x".repeat(1_000));
    let error = guest.call("echo", &long).await.unwrap_err();
    assert_eq!((error.code, error.blame), (Code::TooLarge, Blame::Caller));
    assert_eq!(
        guest
            .call("repeat", r#"{"length":900}"#)
            .await
            .unwrap()
            .len(),
        902
    );
    let error = guest
        .call("repeat", r#"{"length":1000}"#)
        .await
        .unwrap_err();
    assert_eq!((error.code, error.blame), (Code::TooLarge, Blame::Guest));
}

#[tokio::test]
async fn hops_have_a_limit() {
    let guest = guest(limits(|l| l.hops = 2));
    let hops = |hops| Call {
        hops,
        ..Guest::message("")
    };
    guest.send("count", hops(2)).await.unwrap();
    assert_eq!(
        guest.send("count", hops(3)).await.unwrap_err().code,
        Code::TooManyHops
    );
}

#[tokio::test]
async fn an_import_reaches_another_service() {
    let guest = guest_on(&runtime(5), CALLER, Other::Answers(r#"{"ok":41}"#), |_| {});
    assert_eq!(
        guest.call("try", r#"{"n":1}"#).await.unwrap(),
        r#"{"ok":41}"#
    );
    let guest = guest_on(&runtime(5), CALLER, Other::Answers("41"), |_| {});
    assert_eq!(guest.call("ask", r#"{"n":1}"#).await.unwrap(), "41");
}

#[tokio::test]
async fn a_failed_import_is_a_value_where_the_type_has_a_place_for_it() {
    let guest = guest_on(&runtime(5), CALLER, Other::Fails, |_| {});
    assert_eq!(
        guest.call("try", r#"{"n":1}"#).await.unwrap(),
        r#"{"err":"no responders"}"#
    );
}

#[tokio::test]
async fn a_failed_import_traps_where_the_type_has_no_place_for_it() {
    let guest = guest_on(&runtime(5), CALLER, Other::Fails, |_| {});
    let error = guest.call("ask", r#"{"n":1}"#).await.unwrap_err();
    assert_eq!(
        (error.code, error.blame),
        (Code::Dependency, Blame::Network)
    );
    assert!(
        error
            .message
            .ends_with("test:other/api.ask@1.0.0 failed: no responders"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn a_reply_of_the_wrong_type_is_the_other_services_fault() {
    let guest = guest_on(&runtime(5), CALLER, Other::Answers(r#""many""#), |_| {});
    let error = guest.call("ask", r#"{"n":1}"#).await.unwrap_err();
    assert_eq!((error.code, error.blame), (Code::Dependency, Blame::Guest));
}

#[tokio::test]
async fn an_exhausted_pool_sheds() {
    let runtime = runtime(2);
    let busy = busy_on(&runtime);
    let calls = (
        busy.code("ask", r#"{"n":1}"#),
        busy.code("ask", r#"{"n":2}"#),
        later(&busy, &busy, "ask", r#"{"n":3}"#),
    );
    let (a, b, third) = tokio::join!(calls.0, calls.1, calls.2);
    assert_eq!((a, b), (Code::Deadline, Code::Deadline));
    let third = third.unwrap_err();
    assert_eq!((third.code, third.blame), (Code::Overloaded, Blame::Host));
    assert!(
        third.message.contains("all 2 instances"),
        "{}",
        third.message
    );
}

/// A service whose calls wait for their import until they are out of time.
fn busy_on(runtime: &Runtime) -> Guest {
    guest_on(runtime, CALLER, Other::NeverAnswers, |spec| {
        spec.limits.timeout = Duration::from_secs(1);
    })
}

/// A call that begins when two calls of `busy` have their instances.
async fn later(
    busy: &Guest,
    guest: &Guest,
    function: &str,
    arguments: &str,
) -> Result<String, CallError> {
    until("both calls have their instances", || {
        busy.imports.calls.load(Ordering::SeqCst) == 2
    })
    .await;
    guest.call(function, arguments).await
}

#[tokio::test]
async fn a_service_takes_idle_instances_of_others_but_not_the_last_that_there_can_be() {
    let runtime = runtime(3);
    let other = guest_on(&runtime, GUEST, Other::Fails, |_| {});
    // Two instances of it stay idle.
    let (a, b) = tokio::join!(other.call("count", ""), other.call("count", ""));
    a.and(b).unwrap();
    let busy = busy_on(&runtime);
    let (a, b, third, of_other) = tokio::join!(
        busy.code("ask", r#"{"n":1}"#),
        busy.code("ask", r#"{"n":2}"#),
        later(&busy, &busy, "ask", r#"{"n":3}"#),
        later(&busy, &other, "count", ""),
    );
    assert_eq!((a, b), (Code::Deadline, Code::Deadline), "both got one");
    let third = third.unwrap_err();
    assert_eq!((third.code, third.blame), (Code::Overloaded, Blame::Host));
    let why = "the service has 2 of the host's 3 instances";
    assert!(third.message.contains(why), "{}", third.message);
    of_other.unwrap();
}

#[tokio::test]
async fn calls_are_counted() {
    let guest = guest(|_| {});
    guest.call("count", "").await.unwrap();
    guest.call("count", "").await.unwrap();
    guest.call("count", "7").await.unwrap_err();
    let exported = guest.service.interfaces().next().unwrap();
    let stats = exported.functions["count"].stats.read();
    assert_eq!((stats.requests, stats.errors), (3, 1));
    assert!(stats.time > Duration::ZERO);
    assert!(stats.last_error.starts_with("400:"), "{}", stats.last_error);
}
