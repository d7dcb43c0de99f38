//! Calls of a service that somebody wants to see: what came, what the guest called, and how each ended.
//!
//! Nothing is kept unless it was asked for within the last seconds, and a call costs one look at a flag then.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::Function;
use crate::call::{Call, CallError, Code};
use crate::interface::FunctionId;
use crate::interfaces::calls::Import;
use crate::interfaces::recorded::SEED;
use crate::interfaces::{
    Answer, Backend, Blobs, Expected, Feed, Fetch, Fetched, KeyValue, Message, OutgoingMessage,
    Pending, Recorded, Source, Values,
};
use crate::manifest::{BlobstoreGrant, KeyValueGrant};
use crate::plan::Event;
use crate::shape::Signature;

/// Time for which calls are kept after they were asked for.
const LEASE: Duration = Duration::from_secs(5);

/// Upper bound of the calls that are kept until they are asked for again.
const MAX_CALLS: usize = 100;

/// Upper bound of their bytes: they travel in one message.
const MAX_BYTES: usize = 384 << 10;

/// Where the calls of a service are kept.
#[derive(Default)]
pub(crate) struct Tape {
    on: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    until: Option<Instant>,
    calls: Vec<TapedCall>,
    bytes: usize,
    left_out: LeftOut,
}

/// Calls that were not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// There were too many.
    pub(crate) room: u64,
    /// They used what no stub can answer: data, objects, messages, streams or HTTP.
    pub(crate) outside: u64,
    /// They ended for a reason of the host and the moment.
    pub(crate) moment: u64,
}

/// A call that has ended.
#[derive(Clone, Debug)]
pub(crate) struct TapedCall {
    pub(crate) function: FunctionId,
    pub(crate) signature: Signature,
    pub(crate) arguments: Bytes,
    /// When it began.
    pub(crate) at: SystemTime,
    /// What time and random followed from, if that was given: since 1970, in milliseconds.
    pub(crate) given: Option<([u8; SEED], u64)>,
    pub(crate) imports: Vec<TapedImport>,
    pub(crate) ended: Result<Bytes, CallError>,
}

/// A call that a guest has made.
#[derive(Clone, Debug)]
pub(crate) struct TapedImport {
    pub(crate) function: FunctionId,
    pub(crate) signature: Signature,
    pub(crate) arguments: Bytes,
    pub(crate) ended: Result<Bytes, CallError>,
}

/// A call under way that is kept.
pub(super) struct Listening {
    arguments: Bytes,
    at: SystemTime,
    given: Option<([u8; SEED], u64)>,
    heard: Arc<Heard>,
    backend: Arc<dyn Backend>,
}

impl Tape {
    /// What keeps a call that begins now, if calls are kept.
    pub(super) fn listen(
        &self,
        imports: &[Arc<Import>],
        backend: &Arc<dyn Backend>,
        arguments: impl FnOnce() -> Option<Bytes>,
        acts_unseen: impl FnOnce() -> bool,
    ) -> Option<Box<Listening>> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        {
            let mut kept = self.kept();
            if kept.until.is_none_or(|until| until < Instant::now()) {
                // Nobody asks any more.
                *kept = Kept::default();
                self.on.store(false, Ordering::Relaxed);
                return None;
            }
        }
        let heard = Arc::new(Heard {
            inner: Arc::clone(backend),
            known: imports.to_vec(),
            imports: Mutex::default(),
            bytes: AtomicUsize::new(0),
            outside: AtomicBool::new(acts_unseen()),
        });
        Some(Box::new(Listening {
            arguments: arguments()?,
            at: SystemTime::now(),
            given: None,
            backend: Arc::clone(&heard) as _,
            heard,
        }))
    }

    /// Keeps a call that has ended.
    pub(super) fn keep(
        &self,
        listening: Listening,
        function: &Function,
        ended: Result<Bytes, CallError>,
    ) {
        let Listening {
            arguments,
            at,
            given,
            heard,
            ..
        } = listening;
        let mut kept = self.kept();
        let passing =
            |error: &CallError| matches!(error.code, Code::Overloaded | Code::Unavailable);
        if ended.as_ref().is_err_and(passing) {
            kept.left_out.moment += 1;
            return;
        }
        if heard.outside.load(Ordering::Relaxed) {
            kept.left_out.outside += 1;
            return;
        }
        let result = ended.as_ref().map_or(0, Bytes::len);
        let bytes = arguments.len() + result + heard.bytes.load(Ordering::Relaxed);
        if kept.calls.len() >= MAX_CALLS || kept.bytes + bytes > MAX_BYTES {
            kept.left_out.room += 1;
            return;
        }
        kept.bytes += bytes;
        let imports = std::mem::take(&mut *lock(&heard.imports));
        kept.calls.push(TapedCall {
            function: function.id.clone(),
            signature: function.signature.clone(),
            arguments,
            at,
            given,
            imports,
            ended,
        });
    }

    /// What was kept since it was asked for the last time. Calls are kept for some seconds from now on.
    pub(crate) fn take(&self) -> (Vec<TapedCall>, LeftOut) {
        let mut kept = self.kept();
        let was = std::mem::take(&mut *kept);
        kept.until = Some(Instant::now() + LEASE);
        self.on.store(true, Ordering::Relaxed);
        (was.calls, was.left_out)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.kept)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Listening {
    /// Carries what the call's guest calls.
    pub(super) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Notes what time and random follow from.
    pub(super) fn given(&mut self, recorded: &Recorded) {
        self.given = Some(recorded.given());
    }
}

/// The backend of a call that is kept.
struct Heard {
    inner: Arc<dyn Backend>,
    known: Vec<Arc<Import>>,
    imports: Mutex<Vec<TapedImport>>,
    bytes: AtomicUsize,
    /// Whether the call cannot be kept.
    outside: AtomicBool,
}

impl Heard {
    fn keep(&self, subject: &str, arguments: Bytes, ended: &Result<Bytes, CallError>) {
        let import = self.known.iter().find(|import| import.is_at(subject));
        let bytes = arguments.len() + ended.as_ref().map_or(0, Bytes::len);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let Some(import) = import.filter(|_| before + bytes <= MAX_BYTES) else {
            return self.leave();
        };
        lock(&self.imports).push(TapedImport {
            function: import.id.clone(),
            signature: import.signature().clone(),
            arguments,
            ended: ended.clone(),
        });
    }

    fn leave(&self) {
        self.outside.store(true, Ordering::Relaxed);
    }
}

impl Backend for Heard {
    fn call<'a>(&'a self, subject: &'a str, call: Call) -> Pending<'a, Bytes> {
        Box::pin(async move {
            let arguments = call.body.clone();
            let ended = self.inner.call(subject, call).await;
            self.keep(subject, arguments, &ended);
            ended
        })
    }

    fn call_streams<'a>(
        &'a self,
        subject: &'a str,
        values: Values<'a>,
        call: Call,
    ) -> Pending<'a, Answer> {
        self.leave();
        self.inner.call_streams(subject, values, call)
    }

    fn misfit<'a>(
        &'a self,
        subject: &'a str,
        wanted: &'a Signature,
        deadline: Instant,
    ) -> BoxFuture<'a, Option<String>> {
        self.inner.misfit(subject, wanted, deadline)
    }

    fn publish(&self, event: Event) -> Pending<'_, ()> {
        Box::pin(async move {
            let (subject, arguments) = (event.subject.clone(), event.call.body.clone());
            let ended = self.inner.publish(event).await;
            let kept = ended.as_ref().map(|()| Bytes::new()).map_err(Clone::clone);
            self.keep(&subject, arguments, &kept);
            ended
        })
    }

    fn follow(&self, source: Source, after: Option<u64>) -> Pending<'_, Box<dyn Feed>> {
        self.leave();
        self.inner.follow(source, after)
    }

    fn open<'a>(
        &'a self,
        bucket: &'a str,
        granted: KeyValueGrant,
    ) -> Pending<'a, Arc<dyn KeyValue>> {
        self.leave();
        self.inner.open(bucket, granted)
    }

    fn blobs<'a>(
        &'a self,
        bucket: &'a str,
        granted: BlobstoreGrant,
    ) -> Pending<'a, Arc<dyn Blobs>> {
        self.leave();
        self.inner.blobs(bucket, granted)
    }

    fn send(&self, message: OutgoingMessage) -> Pending<'_, ()> {
        self.leave();
        self.inner.send(message)
    }

    fn fetch(&self, fetch: Fetch) -> Pending<'_, Fetched> {
        self.leave();
        self.inner.fetch(fetch)
    }

    fn request(&self, message: OutgoingMessage, expected: Expected) -> Pending<'_, Vec<Message>> {
        self.leave();
        self.inner.request(message, expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::memory::MemoryBackend;
    use crate::manifest::ServiceSpec;
    use crate::runtime::{Component, Engine, EngineOptions, Runtime, Service};

    /// Exports `test:same/api@1.0.0`, whose `same` returns its argument.
    const SAME: &str = r#"
(component
  (core module $code (func (export "same") (param i32) (result i32) (local.get 0)))
  (core instance $core (instantiate $code))
  (func $same (param "n" u32) (result u32) (canon lift (core func $core "same")))
  (instance $api (export "same" (func $same)))
  (export "test:same/api@1.0.0" (instance $api)))
"#;

    fn service() -> Service {
        let engine = Engine::new(EngineOptions {
            instances: 4,
            cache: None,
        });
        let runtime = Runtime::new(engine.unwrap()).unwrap();
        let component = Component::new(runtime.engine(), SAME.as_bytes()).unwrap();
        let spec = Arc::new(ServiceSpec::new("same"));
        Service::new(&runtime, "app", Arc::new(component), spec).unwrap()
    }

    async fn call(service: &Service, body: impl Into<Bytes>) {
        let backend: Arc<dyn Backend> = Arc::new(MemoryBackend::default());
        let exported = service.interfaces().next().unwrap();
        let function = exported.function("same").unwrap();
        let call = Call::new(body.into(), Duration::from_secs(20));
        service.call(function, call, &backend).await.unwrap();
    }

    #[tokio::test]
    async fn calls_are_kept_from_the_first_question_on() {
        let service = service();
        call(&service, "[1]").await;
        assert_eq!(service.taped().0.len(), 0);
        call(&service, "[2]").await;
        let (calls, left_out) = service.taped();
        assert_eq!((calls.len(), left_out), (1, LeftOut::default()));
        assert_eq!(calls[0].arguments, "[2]");
        assert_eq!(calls[0].ended.as_ref().unwrap(), "2");
        assert_eq!(service.taped().0.len(), 0);
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_calls_and_bytes() {
        let service = service();
        service.taped();
        for _ in 0..=MAX_CALLS {
            call(&service, "[1]").await;
        }
        let (calls, left_out) = service.taped();
        assert_eq!((calls.len(), left_out.room), (MAX_CALLS, 1));
        let spaces = " ".repeat(MAX_BYTES);
        call(&service, format!("[1{spaces}]")).await;
        let (calls, left_out) = service.taped();
        assert_eq!((calls.len(), left_out.room), (0, 1));
    }

    #[tokio::test]
    async fn nothing_is_kept_when_nobody_asks_any_more() {
        let service = service();
        service.taped();
        call(&service, "[1]").await;
        service.tape.kept().until = Instant::now().checked_sub(LEASE);
        call(&service, "[2]").await;
        assert!(!service.tape.on.load(Ordering::Relaxed));
        assert_eq!(service.tape.kept().calls.len(), 0);
    }
}
