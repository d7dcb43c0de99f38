//! The [`Backend`] of a case: answers from its stubs, keeps data in memory, and notes everything that the case
//! does not have. Nothing leaves the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::Value;

use super::check::{Answer, Case, Stub, value_of};
use super::diff::{differences, show};
use super::file::TimesFile;
use super::run::Problem;
use crate::call::{Blame, Call, CallError, Code};
use crate::interface::FunctionId;
use crate::interfaces::memory::MemoryBucket;
use crate::interfaces::{
    Backend, Blobs, Expected, Fetch, Fetched, KeyValue, Message, OutgoingMessage, Pending,
};
use crate::manifest::{BlobstoreGrant, KeyValueGrant, ServiceSpec};
use crate::plan::{Description, Event};
use crate::subject;

pub(super) struct Stubs {
    /// Functions by the subjects on which they are called.
    functions: HashMap<String, FunctionId>,
    stubs: Vec<Stub>,
    bucket: Arc<MemoryBucket>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many calls each stub has answered.
    answered: Vec<u32>,
    problems: Vec<Problem>,
}

impl Stubs {
    pub(super) fn new(app: &str, component: &Description, spec: &ServiceSpec, case: &Case) -> Self {
        let mut functions = HashMap::new();
        for interface in &component.imports {
            for name in interface.functions.keys() {
                let id = interface.id.function(name);
                let subject = match spec.exporter_of(&interface.id) {
                    Some(service) => subject::of_service_function(app, service, &id),
                    None => subject::of_function(app, &id),
                };
                functions.insert(subject, id);
            }
        }
        let before = case.keyvalue.before.iter();
        let bucket = before.map(|(key, value)| (key.clone(), Bytes::from(value.clone())));
        Self {
            functions,
            stubs: case.stubs.clone(),
            bucket: Arc::new(MemoryBucket::of(bucket)),
            state: Mutex::new(State {
                answered: vec![0; case.stubs.len()],
                problems: Vec::new(),
            }),
        }
    }

    /// What was called without a stub, and the stubs that were not called as often as they say.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems = std::mem::take(&mut state.problems);
        for (stub, answered) in self.stubs.iter().zip(&state.answered) {
            if let TimesFile::Number(times) = stub.times
                && *answered < times.get()
            {
                problems.push(Problem::Uncalled {
                    function: stub.function.to_string(),
                    arguments: stub.arguments.as_ref().map(show),
                    times: times.get(),
                    answered: *answered,
                });
            }
        }
        problems
    }

    /// The data at the end.
    pub(super) fn kept(&self) -> Value {
        let entries = self.bucket.entries().into_iter();
        let text = |value: Bytes| Value::String(String::from_utf8_lossy(&value).into_owned());
        entries.map(|(key, value)| (key, text(value))).collect()
    }

    fn answer(&self, subject: &str, body: &[u8]) -> Result<Bytes, CallError> {
        let Some(function) = self.functions.get(subject) else {
            return Err(self.outside(format!("called {subject}")));
        };
        let arguments = value_of(body);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { answered, problems } = &mut *state;
        let mut open = self.stubs.iter().zip(answered).filter(|(stub, answered)| {
            stub.function == *function && is_open(stub.times, **answered)
        });
        let mut nearest = None;
        let found = open.find(|(stub, _)| {
            let wanted = stub.arguments.as_ref();
            let found = wanted.map(|wanted| differences(wanted, &arguments, &stub.ignore));
            let fits = found.as_ref().is_none_or(Vec::is_empty);
            if !fits && nearest.is_none() {
                nearest = found;
            }
            fits
        });
        let Some((stub, answered)) = found else {
            problems.push(Problem::Unstubbed {
                function: function.to_string(),
                arguments: show(&arguments),
                differences: nearest.unwrap_or_default(),
            });
            let why = format!("the case has no stub for this call of {function}");
            return Err(CallError::new(Code::Unavailable, Blame::Network, why));
        };
        *answered = answered.saturating_add(1);
        match &stub.answer {
            Answer::Returns(body, _) => Ok(Bytes::from(body.clone())),
            Answer::Fails(code, message) => {
                let message = match message.as_str() {
                    "" => format!("the stub of {function} fails"),
                    message => message.to_owned(),
                };
                Err(CallError::new(*code, blame(*code), message))
            }
        }
    }

    /// Notes what no case can have a stub for.
    fn outside(&self, what: String) -> CallError {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let why = format!("a case reaches nothing outside: it {what}");
        state.problems.push(Problem::Outside { what });
        CallError::new(Code::Unavailable, Blame::Host, why)
    }
}

const fn is_open(times: TimesFile, answered: u32) -> bool {
    match times {
        TimesFile::Number(times) => answered < times.get(),
        TimesFile::Any(_) => true,
    }
}

/// Whose fault a failure of this kind usually is.
const fn blame(code: Code) -> Blame {
    match code {
        Code::BadArguments | Code::NotFound | Code::TooLarge | Code::TooManyHops => Blame::Caller,
        Code::Trap | Code::Dependency | Code::Deadline => Blame::Guest,
        Code::Accepted | Code::Overloaded => Blame::Host,
        Code::Unavailable => Blame::Network,
    }
}

fn now<'a, T: Send + 'a>(result: Result<T, CallError>) -> Pending<'a, T> {
    Box::pin(std::future::ready(result))
}

impl Backend for Stubs {
    fn call<'a>(&'a self, subject: &'a str, call: Call) -> Pending<'a, Bytes> {
        now(self.answer(subject, &call.body))
    }

    fn publish(&self, event: Event) -> Pending<'_, ()> {
        now(self.answer(&event.subject, &event.call.body).map(drop))
    }

    fn open<'a>(&'a self, _: &'a str, _: KeyValueGrant) -> Pending<'a, Arc<dyn KeyValue>> {
        now(Ok(Arc::clone(&self.bucket) as Arc<dyn KeyValue>))
    }

    fn blobs<'a>(&'a self, _: &'a str, _: BlobstoreGrant) -> Pending<'a, Arc<dyn Blobs>> {
        now(Err(self.outside("opened its objects".to_owned())))
    }

    fn send(&self, message: OutgoingMessage) -> Pending<'_, ()> {
        now(Err(self.outside(format!(
            "published a message on {}",
            message.subject
        ))))
    }

    fn fetch(&self, fetch: Fetch) -> Pending<'_, Fetched> {
        now(Err(self.outside(format!(
            "made an HTTP request to {}",
            fetch.host()
        ))))
    }

    fn request(&self, message: OutgoingMessage, _: Expected) -> Pending<'_, Vec<Message>> {
        now(Err(self.outside(format!(
            "asked for a reply on {}",
            message.subject
        ))))
    }
}
