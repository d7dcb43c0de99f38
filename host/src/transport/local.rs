//! Local calls: a call of a function that this host serves is made in the process, with the meaning
//! that it has over NATS.
//!
//! [`Local`] has the functions that the host serves, by subject. Every worker has its own
//! [`LocalCalls`], so that a call shares nothing with other threads but its service. What a local call
//! cannot do alike goes over NATS: a call for which the service has no room, since other hosts may
//! have some, and one near a limit of the connection, which decides exactly.
//!
//! A caller that gives up does not stop what it called, as it could not over NATS; a drain does.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::runtime;
use tokio::sync::{oneshot, watch};

use super::{Binding, Slot};
use crate::call::{Call, CallError};
use crate::interfaces::{Answer, Backend, Pending, Values};
use crate::json::Measure;
use crate::manifest::LocalCall;
use crate::per_core::PerCore;
use crate::poll;
use crate::subject;
use crate::value::Value;

/// The functions that a host serves itself, by subject.
type Functions = HashMap<String, Arc<Slot>>;

/// The functions that a host serves itself. Changes reach every worker with its next call.
#[derive(Default)]
pub(crate) struct Local(watch::Sender<Arc<Functions>>);

impl Local {
    /// Has these functions called in the process, or not any more. Others that are served are as
    /// before, until they are drained.
    pub(crate) fn serve(&self, functions: Vec<(String, Arc<Slot>, LocalCall)>) {
        self.0.send_modify(|present| {
            let mut next = Functions::clone(present);
            next.retain(|_, slot| !slot.local.is_closed());
            for (subject, slot, local) in functions {
                match local {
                    LocalCall::Prefer => next.insert(subject, slot),
                    LocalCall::Never => next.remove(&subject),
                };
            }
            *present = Arc::new(next);
        });
    }

    /// What is behind the functions that are called in the process and not drained.
    pub(crate) fn slots(&self) -> Vec<Arc<Slot>> {
        let functions = self.0.borrow();
        let slots = functions.values().filter(|slot| !slot.local.is_closed());
        slots.cloned().collect()
    }
}

/// The local calls of a source that are under way.
#[derive(Default)]
pub(super) struct UnderWay {
    /// A call may end on another thread than it began on, so only the sum means something.
    counts: PerCore<AtomicUsize>,
    /// No further call may begin.
    closed: AtomicBool,
    /// Those that are under way end now.
    given_up: watch::Sender<bool>,
}

impl UnderWay {
    /// Lets no further call begin and waits for those that are under way, looking from time to time.
    /// Those that have not ended at the deadline end with [`CallError::stopped`]; returns their number.
    pub(super) async fn drain(&self, deadline: Instant) -> usize {
        const LOOK: Duration = Duration::from_millis(5);
        self.closed.store(true, Ordering::SeqCst);
        while self.count() > 0 {
            if Instant::now() >= deadline {
                self.given_up.send_replace(true);
                return self.count();
            }
            tokio::time::sleep(LOOK).await;
        }
        0
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn count(&self) -> usize {
        let counts = self.counts.all();
        counts.fold(0, |sum, count| {
            sum.wrapping_add(count.load(Ordering::SeqCst))
        })
    }
}

/// Counts a call for as long as it is under way.
struct Counted {
    here: Arc<Here>,
    /// Whether it is a call of a new version that has a share.
    is_of_canary: bool,
}

impl Counted {
    /// Counts a call that begins now, unless its version has no room for it or none may begin any more.
    fn new(here: &Arc<Here>, subject: &str) -> Option<Self> {
        let binding = match here.binding.canary {
            Some(_) => here.binding.chosen_for(&function_name(subject)),
            None => &here.binding,
        };
        if binding.service.free() == 0 {
            return None;
        }
        let under_way = &here.slot.local;
        // Counted first and asked then: a drain closes first and counts then.
        under_way.counts.own().fetch_add(1, Ordering::SeqCst);
        let counted = Self {
            here: Arc::clone(here),
            is_of_canary: !std::ptr::eq(binding, &here.binding),
        };
        (!under_way.is_closed()).then_some(counted)
    }

    /// What it is a call of.
    fn binding(&self) -> &Binding {
        match &self.here.binding.canary {
            Some(canary) if self.is_of_canary => &canary.binding,
            _ => &self.here.binding,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let counts = &self.here.slot.local.counts;
        counts.own().fetch_sub(1, Ordering::SeqCst);
    }
}

/// A function as one worker calls it: with its own copy of the binding, whose references no other
/// thread counts.
struct Here {
    slot: Arc<Slot>,
    binding: Binding,
}

/// The local calls of one worker.
pub(crate) struct LocalCalls(Mutex<View>);

/// The functions as a worker last saw them.
struct View {
    functions: watch::Receiver<Arc<Functions>>,
    seen: HashMap<String, (watch::Receiver<Arc<Binding>>, Arc<Here>)>,
}

impl LocalCalls {
    /// The calls of a worker of the host that serves `local`.
    pub(crate) fn new(local: &Local) -> Self {
        let mut functions = local.0.subscribe();
        functions.mark_changed();
        let seen = HashMap::new();
        Self(Mutex::new(View { functions, seen }))
    }

    /// The call of a function here. It is given back if this host does not serve the function or has no
    /// room for one more call of it.
    ///
    /// # Limits
    ///
    /// A result above `carried` bytes, which is what NATS carries, is an error.
    ///
    /// # Cancel safety
    ///
    /// Once polled, the call goes to its end without its caller too.
    pub(super) fn start(
        &self,
        subject: &str,
        call: Call,
        carried: usize,
        backend: Arc<dyn Backend>,
    ) -> Result<Pending<'static, Bytes>, Call> {
        let Some(counted) = self.find(subject, true) else {
            return Err(call);
        };
        let name = function_name(subject);
        let call = arriving(call);
        let is_concurrent = counted.binding().service.is_concurrent();
        Ok(to_its_end(is_concurrent, async move {
            let called = async {
                let Binding {
                    service, exported, ..
                } = counted.binding();
                let function = exported.function(&name)?;
                service.call(function, call, &backend).await
            };
            let reply = counted.here.bounded(called).await?;
            super::check_result(reply.body.len(), carried)?;
            Ok(reply.body)
        }))
    }

    /// As [`Self::start`] with values, if the function has the caller's own type and nothing comes near a
    /// limit, of the caller, the callee or the wire.
    ///
    /// # Cancel safety
    ///
    /// As for [`Self::start`].
    pub(super) fn start_with(
        &self,
        subject: &str,
        values: Values<'_>,
        call: Call,
        carried: usize,
        backend: Arc<dyn Backend>,
    ) -> Result<Pending<'static, Answer>, (Vec<Value>, Call)> {
        let name = function_name(subject);
        let Values {
            arguments,
            signature,
            identity,
            limits,
        } = values;
        // Where a new version has a share of the calls, each is chosen for once: by `start`.
        let counted = self.find(subject, false).filter(|counted| {
            let Binding {
                service, exported, ..
            } = counted.binding();
            let measure = Measure::of_arguments(&arguments, signature);
            let function = exported.functions.get(&name);
            function.is_some_and(|function| function.identity == identity)
                && measure.is_within(&limits)
                && service.takes(measure)
        });
        let Some(counted) = counted else {
            return Err((arguments, call));
        };
        let call = arriving(call);
        let is_concurrent = counted.binding().service.is_concurrent();
        let (early, given) = match signature.result_has_stream() {
            true => {
                let (early, given) = oneshot::channel();
                (Some(early), Some(given))
            }
            false => (None, None),
        };
        let pending = to_its_end(is_concurrent, async move {
            let called = async {
                let Binding {
                    service, exported, ..
                } = counted.binding();
                let function = exported.function(&name)?;
                let called =
                    service.call_values(function, arguments, limits, call, &backend, early);
                called.await
            };
            let answer = counted.here.bounded(called).await?;
            if let Answer::Json(body) = &answer {
                super::check_result(body.len(), carried)?;
            }
            Ok(answer)
        });
        let Some(mut given) = given else {
            return Ok(pending);
        };
        // What gives streams is asynchronous, so it is a task that goes on.
        Ok(Box::pin(async move {
            tokio::select! {
                biased;
                Ok(value) = &mut given => Ok(Answer::Value(Some(value))),
                ended = pending => match given.try_recv() {
                    Ok(value) => Ok(Answer::Value(Some(value))),
                    Err(_) => ended,
                },
            }
        }))
    }

    /// The function of this subject, if one more call of it has room here; of one with a new version only if it
    /// may be `chosen` for.
    fn find(&self, subject: &str, chosen: bool) -> Option<Counted> {
        let mut view = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        view.follow();
        let (changes, here) = view.seen.get_mut(subject)?;
        if changes.has_changed().unwrap_or_default() {
            *here = Arc::new(Here {
                slot: Arc::clone(&here.slot),
                binding: Binding::clone(&changes.borrow_and_update()),
            });
        }
        if here.binding.canary.is_some() && !chosen {
            return None;
        }
        Counted::new(here, subject)
    }
}

fn function_name(subject: &str) -> String {
    let name = subject::function_name(subject);
    name.unwrap_or_default().to_owned()
}

/// The call as it arrives at its service now, which is when it would over NATS: what was before is no
/// wait of the service's.
fn arriving(call: Call) -> Call {
    Call {
        arrived: Instant::now(),
        ..call
    }
}

impl View {
    fn follow(&mut self) {
        if !self.functions.has_changed().unwrap_or_default() {
            return;
        }
        let functions = Arc::clone(&self.functions.borrow_and_update());
        let seen = functions.iter().map(|(subject, slot)| {
            let mut changes = slot.changes();
            let binding = Binding::clone(&changes.borrow_and_update());
            let slot = Arc::clone(slot);
            let here = Arc::new(Here { slot, binding });
            (subject.clone(), (changes, here))
        });
        self.seen = seen.collect();
    }
}

impl Here {
    /// The outcome of a call here, which a drain and a defect of the host end too.
    async fn bounded<T>(
        &self,
        called: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        // A defect of the host in one call must not end its caller's.
        let mut called = pin!(AssertUnwindSafe(called).catch_unwind());
        let ended = match poll::once(&mut called).await {
            Poll::Ready(ended) => ended,
            Poll::Pending => {
                let mut given_up = self.slot.local.given_up.subscribe();
                tokio::select! {
                    biased;
                    ended = called => ended,
                    _ = given_up.wait_for(|given_up| *given_up) => return Err(CallError::stopped()),
                }
            }
        };
        ended.unwrap_or_else(|_| {
            let service = &self.binding.service.spec.name;
            Err(CallError::host_failed().within(format_args!("service \"{service}\"")))
        })
    }
}

/// A call that goes to its end without its caller too. It is polled within the caller, unless its callee is
/// asynchronous: the caller may be, and wasmtime runs no such store within another.
fn to_its_end<T: Send + 'static>(
    is_concurrent: bool,
    call: impl Future<Output = Result<T, CallError>> + Send + 'static,
) -> Pending<'static, T> {
    if !is_concurrent {
        return Box::pin(ToItsEnd::new(call));
    }
    Box::pin(async move {
        let ended = tokio::spawn(call).await;
        ended.unwrap_or_else(|_| Err(CallError::host_failed()))
    })
}

/// A future that goes on as a task when it is dropped after it has begun.
struct ToItsEnd<F: Future<Output: Send> + Send + 'static> {
    future: Option<Pin<Box<F>>>,
    began: bool,
}

impl<F: Future<Output: Send> + Send + 'static> ToItsEnd<F> {
    fn new(future: F) -> Self {
        Self {
            future: Some(Box::pin(future)),
            began: false,
        }
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for ToItsEnd<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.began = true;
        let Some(future) = &mut self.future else {
            return Poll::Pending;
        };
        let polled = future.as_mut().poll(context);
        if polled.is_ready() {
            self.future = None;
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for ToItsEnd<F> {
    fn drop(&mut self) {
        // The task ends by the call's deadline, and with the drain of its function.
        if let Some(future) = self.future.take().filter(|_| self.began)
            && let Ok(runtime) = runtime::Handle::try_current()
        {
            runtime.spawn(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::sync::Notify;

    use super::*;

    /// A future that ends when it is told to, and what says that it did.
    fn waits() -> (
        ToItsEnd<impl Future<Output = ()> + Send>,
        Arc<Notify>,
        Arc<Notify>,
    ) {
        let (end, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, tells) = (Arc::clone(&end), Arc::clone(&ended));
        let future = ToItsEnd::new(async move {
            told.notified().await;
            tells.notify_one();
        });
        (future, end, ended)
    }

    #[tokio::test]
    async fn what_has_begun_goes_on_without_its_caller() {
        let (mut future, end, ended) = waits();
        let polled = poll_fn(|context| Poll::Ready(Pin::new(&mut future).poll(context)));
        assert!(polled.await.is_pending());
        drop(future);
        end.notify_one();
        ended.notified().await;
    }

    #[tokio::test]
    async fn what_has_not_begun_never_does() {
        let (future, _end, ended) = waits();
        drop(future);
        assert_eq!(Arc::strong_count(&ended), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_what_is_under_way_and_gives_up_the_rest() {
        let under_way = Arc::new(UnderWay::default());
        let deadline = || Instant::now() + Duration::from_secs(1);
        under_way.counts.own().fetch_add(2, Ordering::SeqCst);
        let other = Arc::clone(&under_way);
        // Ended by another thread than the one that began it.
        let end = std::thread::spawn(move || other.counts.own().fetch_sub(1, Ordering::SeqCst));
        end.join().unwrap();
        let given_up = under_way.given_up.subscribe();
        assert_eq!(under_way.drain(Instant::now()).await, 1);
        assert!(under_way.is_closed() && *given_up.borrow());
        under_way.counts.own().fetch_sub(1, Ordering::SeqCst);
        assert_eq!(under_way.drain(deadline()).await, 0);
    }
}
