//! Calls of a service's functions: with JSON, and with values from the same process.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::http::HttpHandler;
use super::tape::Listening;
use super::{Admitted, Early, Function, Instance, Of, Service, Term};
use crate::call::{Call, CallError, Kind, Reply};
use crate::interfaces::{Answer, Backend, CurrentCall, Recorded};
use crate::json::{self, Measure, Streams, UnknownKeys};
use crate::stats::Tally;
use crate::value::Value;
use crate::value::streams::{self, NotWhole};

impl Service {
    /// The calls of all of its functions since it was started. An HTTP answer with a status from 500 is an error
    /// here.
    pub(crate) fn tally(&self) -> Tally {
        let mut tally = Tally::of(self.counted().map(|(_, stats)| stats));
        tally.errors += self.http.as_ref().map_or(0, HttpHandler::refusals);
        tally
    }

    /// Calls a function of one of this service's interfaces: JSON arguments to JSON result.
    ///
    /// A guest's own `err` value is a result. The call is counted in the function's [`Stats`](super::Stats).
    ///
    /// # Errors
    ///
    /// Every way in which a call ends without a result; see [`Code`](crate::call::Code).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the guest and drops its instance.
    pub fn call(
        &self,
        function: &Function,
        call: Call,
        backend: &Arc<dyn Backend>,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send {
        self.call_admitted(Admitted(None), function, call, backend)
    }

    /// As [`Service::call`], by a turn that was taken before.
    pub(crate) async fn call_admitted(
        &self,
        admitted: Admitted<'_>,
        function: &Function,
        mut call: Call,
        backend: &Arc<dyn Backend>,
    ) -> Result<Reply, CallError> {
        let term = self.term(&call);
        let account = self.account(function.counted(), &mut call, term);
        let listening = self.listen(function, &call, backend, || Some(call.body.clone()));
        let backend = listening.as_deref().map_or(backend, Listening::backend);
        let work = || async {
            let arguments = self.decode(function, &call)?;
            let current = CurrentCall::new(&call, term.deadline, backend);
            let result = self
                .invoke_whole(function, &arguments, current, term)
                .await?;
            self.encode(function, result.as_ref())
        };
        let ran = self.run(account, term, admitted, work, Reply::refusal);
        let ended = ran.await;
        if let Some(listening) = listening {
            self.tape.keep(*listening, function, body_of(&ended));
        }
        ended
    }

    /// What keeps a call that begins now, if calls are kept.
    fn listen(
        &self,
        function: &Function,
        call: &Call,
        backend: &Arc<dyn Backend>,
        arguments: impl FnOnce() -> Option<Bytes>,
    ) -> Option<Box<Listening>> {
        let unseen = || function.gives_streams || self.acts_unseen(call);
        self.tape.listen(&self.imports, backend, arguments, unseen)
    }

    /// As [`Service::call`] in a fresh instance for a run, with its time and its random. It may take until the
    /// call's deadline, whatever the service's own limit, and waits for its turn as long as it takes.
    pub(crate) async fn call_recorded(
        &self,
        function: &Function,
        mut call: Call,
        backend: &Arc<dyn Backend>,
        recorded: &Arc<Recorded>,
    ) -> Result<Reply, CallError> {
        let admitted = self.admit().await;
        let term = Term {
            deadline: call.deadline,
            ..self.term(&call)
        };
        let account = self.account(function.counted(), &mut call, term);
        let mut listening = self.listen(function, &call, backend, || Some(call.body.clone()));
        if let Some(listening) = &mut listening {
            listening.given(recorded);
        }
        let backend = listening.as_deref().map_or(backend, Listening::backend);
        let work = || async {
            let arguments = self.decode(function, &call)?;
            let instance = Box::pin(Instance::of(&self.blueprint, Of::Run(recorded))).await?;
            let current = CurrentCall::new(&call, term.deadline, backend);
            let invoked = instance
                .invoke(function.place(), &arguments, current, None)
                .await;
            let (_, result) = invoked?;
            self.encode(function, result.as_ref())
        };
        let ran = self.run(account, term, admitted, work, Reply::refusal);
        let ended = ran.await;
        if let Some(listening) = listening {
            self.tape.keep(*listening, function, body_of(&ended));
        }
        ended
    }

    /// As [`Service::call`] with values of the function's own type, whose bounds were checked. What the
    /// caller may not get as a value within its `limits` is JSON, as is what the service may not return.
    ///
    /// A result with streams goes through `early` when the guest returns it; the call ends when they are written.
    pub(crate) async fn call_values(
        &self,
        function: &Function,
        arguments: Vec<Value>,
        limits: json::Limits,
        mut call: Call,
        backend: &Arc<dyn Backend>,
        early: Option<Early>,
    ) -> Result<Answer, CallError> {
        let term = self.term(&call);
        let account = self.account(function.counted(), &mut call, term);
        let listening = self.listen(function, &call, backend, || {
            json::encode_arguments(&arguments, &function.signature, &self.limits)
                .ok()
                .map(Into::into)
        });
        let backend = listening.as_deref().map_or(backend, Listening::backend);
        let work = || async {
            let current = CurrentCall::new(&call, term.deadline, backend);
            let invoked = self.invoke(function, &arguments, current, term, early);
            let result = invoked.await?;
            let measure = Measure::of_result(result.as_ref(), &function.signature);
            if measure.is_within(&self.limits) && measure.is_within(&limits) {
                return Ok(Answer::Value(result));
            }
            let reply = self.encode(function, result.as_ref())?;
            Ok(Answer::Json(reply.body))
        };
        let refusal = |answer: &Answer| match answer {
            Answer::Value(Some(value @ Value::Result(Err(_)))) => {
                self.encode(function, Some(value)).ok()?.refusal()
            }
            _ => None,
        };
        let ran = self.run(account, term, Admitted(None), work, refusal);
        let ended = ran.await;
        if let Some(listening) = listening {
            let body = match &ended {
                Ok(Answer::Json(body)) => Ok(body.clone()),
                Ok(Answer::Value(value)) => self
                    .encode(function, value.as_ref())
                    .map(|reply| reply.body),
                Err(error) => Err(error.clone()),
            };
            self.tape.keep(*listening, function, body);
        }
        ended
    }

    /// Runs a function in an instance.
    async fn invoke(
        &self,
        function: &Function,
        arguments: &[Value],
        current: CurrentCall,
        term: Term,
        early: Option<Early>,
    ) -> Result<Option<Value>, CallError> {
        let instance = self.instance().await?;
        let invoked = instance
            .invoke(function.place(), arguments, current, early)
            .await;
        let (instance, result) = invoked?;
        self.put_back(instance, term.started);
        Ok(result)
    }

    /// The same with all that the streams of its result give.
    async fn invoke_whole(
        &self,
        function: &Function,
        arguments: &[Value],
        current: CurrentCall,
        term: Term,
    ) -> Result<Option<Value>, CallError> {
        if !function.gives_streams {
            return self.invoke(function, arguments, current, term, None).await;
        }
        // Boxed: else every call would have room for its state.
        Box::pin(async {
            let (early, given) = oneshot::channel();
            let read = async {
                // Without a value there are no streams to be read.
                let Ok(value) = given.await else {
                    return Ok(None);
                };
                let whole = streams::whole(value, self.limits.bytes, self.limits.nodes).await;
                whole.map(Some)
            };
            let invoked = self.invoke(function, arguments, current, term, Some(early));
            let (read, invoked) = tokio::join!(read, invoked);
            let returned = invoked?;
            let read = read.map_err(|error| match error {
                NotWhole::Broken(broken) => CallError::trap(broken),
                error @ NotWhole::TooLarge { .. } => CallError::result_too_large(error),
            })?;
            Ok(returned.or(read))
        })
        .await
    }

    pub(crate) fn decode(&self, function: &Function, call: &Call) -> Result<Vec<Value>, CallError> {
        let limits = json::Limits {
            unknown_keys: match call.caller {
                // Services are deployed one at a time, so a caller may know a later type.
                Some(_) => UnknownKeys::Ignore,
                None => UnknownKeys::Refuse,
            },
            streams: match call.kind {
                Kind::Streaming => Streams::Named,
                Kind::Request | Kind::Event | Kind::Job => Streams::Whole,
            },
            ..self.limits
        };
        let decoded = json::decode_arguments(&call.body, &function.signature, &limits);
        decoded.map_err(|error| {
            let why = format!("arguments: {error}");
            if error.is_too_large() {
                CallError::request_too_large(why)
            } else {
                CallError::bad_arguments(why)
            }
        })
    }

    pub(crate) fn encode(
        &self,
        function: &Function,
        result: Option<&Value>,
    ) -> Result<Reply, CallError> {
        let reply = json::encode_reply(result, &function.signature, &self.limits);
        reply.map_err(|error| {
            let why = format!("result: {error}");
            if error.is_too_large() {
                CallError::result_too_large(why)
            } else {
                CallError::trap(why)
            }
        })
    }

    /// Whether the service takes arguments of this size.
    pub(crate) fn takes(&self, measure: Measure) -> bool {
        measure.is_within(&self.limits)
    }
}

fn body_of(ended: &Result<Reply, CallError>) -> Result<Bytes, CallError> {
    let body = ended.as_ref().map(|reply| reply.body.clone());
    body.map_err(Clone::clone)
}
