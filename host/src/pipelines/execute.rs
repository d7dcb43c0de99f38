//! The owner of a run of a durable function: it runs the function from its start, answers what it calls, and
//! ends with it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::attempt::Attempt;
use super::journal::{self, HEADROOM, JournalError};
use super::owner::{LAST_AGAIN, Left, Owner};
use super::recorder::{Asked, Recorder};
use super::run::{Heard, Outcome, Phase, Sequence, Slot, Version};
use super::versions::Versioned;
use super::{now, stopped};
use crate::call::{Call, CallError, Code, Kind, Trace};
use crate::interface::FunctionId;
use crate::interfaces::recorded::SEED;
use crate::interfaces::{Backend, Recorded};
use crate::plan::Import;
use crate::runtime::{Function, Service};
use crate::text::unhex;

/// Time for a function that only shows what it may have called, when the time of its run is over.
const SHOW: Duration = Duration::from_secs(10);

impl Owner<'_> {
    /// Runs the function until it has ended, or the run does not go on with it.
    pub(super) async fn execute(&mut self) -> Result<(), Left> {
        let Some(Versioned {
            version,
            service,
            imports,
        }) = self.code().await?
        else {
            return Err(self.leave(Left::Elsewhere).await);
        };
        let Some(function) = function_of(&service, &self.run.pipeline.function) else {
            return Err(self.leave(Left::Elsewhere).await);
        };
        let recorded = Recorded::new(self.seed()?, self.run.began);
        recorded.replay(!self.run.steps.is_empty());
        let (recorder, mut asked) = Recorder::new();
        let backend: Arc<dyn Backend> = Arc::new(recorder);
        let call = self.call_of_run();
        let mut executing = pin!(service.call_recorded(function, call, &backend, &recorded));
        let (mut calls, mut fetches) = (0, 0);
        let ended = loop {
            let ask = tokio::select! {
                ended = &mut executing => break ended,
                Some(ask) = asked.recv() => ask,
            };
            let sequence = ask.what.sequence();
            let made = match sequence {
                Sequence::Calls => &mut calls,
                Sequence::Fetches => &mut fetches,
            };
            let index = self.run.index_of(sequence, *made);
            *made += 1;
            let Some(heard) = self.answer(index, &ask.what, &imports, &version).await? else {
                // The guest is dropped where it stands.
                self.unwritten = true;
                return Ok(());
            };
            let (heard, at) = heard;
            recorded.ended(at);
            let (asked, all) = (self.run.asked_each_time(), self.run.steps.len());
            recorded.replay(calls < asked || fetches < all - asked);
            // The guest may have run out of time meanwhile.
            let _ = ask.answer.send(heard);
        };
        let outcome = match ended {
            Ok(reply) => Outcome::read(&function.signature, &reply.body).unwrap_or_else(|| {
                Outcome::Failed(CallError::bad_reply("the result cannot be kept"))
            }),
            // Of this host and this moment, and not of the function.
            Err(error) if matches!(error.code, Code::Overloaded | Code::Unavailable) => {
                return Err(self.leave(Left::Later(error)).await);
            }
            Err(error) => Outcome::Failed(error),
        };
        self.run.returned(calls, outcome, &version, now());
        self.unwritten = true;
        if journal::text(&self.run)?.len() > self.room() {
            self.run.overflow_result();
        }
        Ok(())
    }

    /// What the function hears of a call, and when that was so; nothing if the run does not go on with it.
    async fn answer(
        &mut self,
        index: usize,
        asked: &Asked,
        imports: &[Import],
        version: &Version,
    ) -> Result<Option<(Result<Bytes, CallError>, u64)>, Left> {
        let subject = asked.subject();
        let import = imports.iter().find(|import| {
            let rest = subject.strip_prefix(&*import.subject);
            rest.is_some_and(|rest| {
                rest.is_empty() || import.call.event.is_some() && rest.starts_with('.')
            })
        });
        let arguments = match &**asked.body() {
            [] => RawValue::from_string("{}".to_owned()),
            body => serde_json::from_slice(body),
        };
        let (Some(import), Ok(arguments)) = (import, arguments) else {
            let why = format!("{subject} is nothing that the durable function can call");
            return Ok(Some((Err(CallError::defect(why)), now())));
        };
        let (index, is_new) = match self.run.ask(index, import, arguments, version, now()) {
            Heard::Before(heard, at) => return Ok(Some((heard, at))),
            Heard::Over => return Ok(None),
            Heard::Next(index, is_new) => (index, is_new),
        };
        if is_new && journal::text(&self.run)?.len() > self.room() {
            self.run.refuse(index);
            return Ok(None);
        }
        self.make(index, asked).await
    }

    /// Calls a step until its outcome is one that the function hears.
    async fn make(
        &mut self,
        index: usize,
        asked: &Asked,
    ) -> Result<Option<(Result<Bytes, CallError>, u64)>, Left> {
        let deadline = self.run.began.saturating_add(self.run.pipeline.deadline);
        loop {
            // One that was tried by another owner may have to wait.
            if let Err(again) = self.run.settle_call(index) {
                self.rest(again.min(deadline)).await?;
                if self.run.cancelled || now() >= deadline {
                    self.run.next(now());
                    return Ok(None);
                }
            }
            self.check().await?;
            let step = self.run.pipeline.steps.get(index);
            let Some(call) = step.and_then(|step| step.call()).cloned() else {
                return Ok(None);
            };
            let (slot, began) = (Slot::of(index), now());
            let attempt = Attempt {
                slot,
                undo: false,
                began,
                id: self.run.step_id(slot, false),
                pipeline: self.run.pipeline.name.clone(),
                hops: self.run.hops.saturating_add(1),
                trace: self.run.trace.clone(),
                claims: self.run.claims.clone().map(Into::into),
                millis: call.timeout.min(deadline.saturating_sub(began)),
                subject: asked.subject().to_owned(),
                call,
            };
            let body = asked.body().clone();
            let made = attempt.make_with(self.work, body, asked.operation());
            let made = made.await;
            self.run.record_call(slot, began, now(), made.outcome);
            let heard = self.run.settle_call(index);
            self.write(&[slot]).await?;
            if self.run.phase != Phase::Running {
                return Ok(None);
            }
            if self.work.is_stopping() {
                return Err(self.leave(Left::Stopping).await);
            }
            if let Ok(heard) = heard {
                let step = self.run.steps.get(index);
                return Ok(Some((heard, step.map_or(0, |step| step.tried.ended))));
            }
        }
    }

    /// Waits until then, or until this host stops.
    async fn rest(&mut self, until: u64) -> Result<(), Left> {
        let wait = Duration::from_millis(until.saturating_sub(now()));
        let mut stopping = self.work.stopping.clone();
        let stops = timeout(wait, stopped(&mut stopping)).await.is_ok();
        if stops {
            return Err(self.leave(Left::Stopping).await);
        }
        if wait > LAST_AGAIN {
            // Somebody may have cancelled it.
            self.look().await?;
        }
        Ok(())
    }

    /// The service that runs the function here: the version that made its steps, wherever that is kept, else the
    /// present one.
    async fn code(&mut self) -> Result<Option<Versioned>, Left> {
        let present = self.work.versions.borrow().present();
        let coded = self.run.coded.as_ref();
        let wanted = coded.and_then(|coded| coded.version.as_ref());
        let durable = self.run.pipeline.durable.as_ref();
        let (Some(wanted), Some(durable), true) = (wanted, durable, present.is_some()) else {
            return Ok(present);
        };
        if let Some(same) = self.work.versions.borrow().find(wanted) {
            return Ok(Some(same));
        }
        let ready = &self.work.ready;
        let found = ready.find(&self.run.pipeline.name, &durable.service, wanted);
        match found.await {
            Ok(found) => Ok(found.or(present)),
            Err(error) => Err(self.leave(Left::Later(error)).await),
        }
    }

    fn seed(&self) -> Result<[u8; SEED], Left> {
        let seed = self.run.coded.as_ref().and_then(|coded| unhex(&coded.seed));
        seed.ok_or_else(|| {
            let why = "its seed is no 64 hexadecimal digits".to_owned();
            Left::Failed(JournalError::Unreadable(why))
        })
    }

    /// The call that the function gets.
    fn call_of_run(&self) -> Call {
        let arrived = Instant::now();
        let deadline = self.run.began.saturating_add(self.run.pipeline.deadline);
        let left = Duration::from_millis(deadline.saturating_sub(now()));
        Call {
            body: self.run.input.get().to_owned().into(),
            arrived,
            deadline: arrived + if left.is_zero() { SHOW } else { left },
            hops: self.run.hops,
            caller: Some(self.run.pipeline.name.clone()),
            trace: Trace {
                parent: self.run.trace.clone(),
                ..Trace::default()
            },
            claims: self.run.claims.clone().map(Into::into),
            identity: None,
            kind: Kind::Request,
        }
    }

    /// Bytes that the journal may have.
    fn room(&self) -> usize {
        let carried = self.work.link.max_payload().saturating_sub(HEADROOM);
        self.run.pipeline.journal.min(carried)
    }
}

/// The function of a service, in whichever compatible version it exports it.
fn function_of<'s>(service: &'s Service, id: &FunctionId) -> Option<&'s Function> {
    let mut interfaces = service.interfaces();
    let exported = interfaces.find(|exported| exported.id.compatible(&id.interface))?;
    exported.functions.get(&id.name)
}
