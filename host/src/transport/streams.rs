//! Streams between hosts. Each has a subject of its own at the host of its writer, where whoever reads it asks
//! for the next items: one reply for each request, so nothing is sent that nobody has room for. Its name travels
//! in the body of a call or a reply, in the stream's place.

use std::time::{Duration, Instant};

use async_nats::StatusCode;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;

use crate::call::CallError;
use crate::headers::Headers;
use crate::json::{self, Limits};
use crate::nats::{Link, Message, Subscription};
use crate::shape::{Shape, Signature};
use crate::subject;
use crate::value::Value;
use crate::value::streams::{self, Items, Stream};
use crate::wire;

/// Bytes of items in one reply. A longer item has a reply of its own, as far as NATS carries it.
const REPLY: usize = 256 << 10;

/// Time after which a request for items is answered without any, so that its sender knows that they may still
/// come.
const PATIENCE: Duration = Duration::from_secs(1);

/// Time within which such a request is answered by a host that lives.
const ANSWER: Duration = Duration::from_secs(4);

/// Time for which a stream is asked for again when nobody answers: in a cluster it takes a moment until all servers
/// know its subject.
const APPEARS: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(10);

/// What the streams of one call go over.
#[derive(Clone, Copy)]
pub(super) struct Wire<'a> {
    pub(super) link: &'a Link,
    pub(super) app: &'a str,
    /// When the call ends, and with it its streams.
    pub(super) deadline: Instant,
    pub(super) limits: Limits,
}

impl Wire<'_> {
    /// Gives the streams of arguments names by which their callee reads them.
    ///
    /// # Errors
    ///
    /// The connection is closed, or one is read already.
    pub(super) fn offer_arguments(
        &self,
        arguments: &[Value],
        signature: &Signature,
    ) -> Result<(), CallError> {
        let pairs = arguments.iter().zip(&signature.params);
        self.each(
            pairs.map(|(value, param)| (value, &param.shape)),
            Self::offer,
        )
    }

    /// The same for a result and its caller.
    ///
    /// # Errors
    ///
    /// As for [`Self::offer_arguments`].
    pub(super) fn offer_result(
        &self,
        result: &Value,
        signature: &Signature,
    ) -> Result<(), CallError> {
        self.each([result].into_iter().zip(&signature.result), Self::offer)
    }

    /// Has the named streams of arguments be read from their host.
    ///
    /// # Errors
    ///
    /// The connection is closed, or one has a name that none can have.
    pub(super) fn follow_arguments(
        &self,
        arguments: &[Value],
        signature: &Signature,
    ) -> Result<(), CallError> {
        let pairs = arguments.iter().zip(&signature.params);
        self.each(
            pairs.map(|(value, param)| (value, &param.shape)),
            Self::follow,
        )
    }

    /// The same for a result.
    ///
    /// # Errors
    ///
    /// As for [`Self::follow_arguments`].
    pub(super) fn follow_result(
        &self,
        result: &Value,
        signature: &Signature,
    ) -> Result<(), CallError> {
        self.each([result].into_iter().zip(&signature.result), Self::follow)
    }

    fn each<'v>(
        &self,
        values: impl Iterator<Item = (&'v Value, &'v Shape)>,
        each: impl Fn(&Self, &Stream, &Shape) -> Result<(), CallError>,
    ) -> Result<(), CallError> {
        let mut outcome = Ok(());
        for (value, shape) in values {
            streams::visit_shaped(value, shape, &mut |stream, item| {
                if outcome.is_ok() {
                    outcome = each(self, stream, item);
                }
            });
        }
        outcome
    }

    fn offer(&self, stream: &Stream, item: &Shape) -> Result<(), CallError> {
        let items = stream.take();
        let items = items.ok_or_else(|| CallError::defect("a stream is read twice"))?;
        let name = format!("{:032x}", rand::random::<u128>());
        let asked = self
            .link
            .subscribe(&subject::of_stream(self.app, &name), None);
        let asked = asked.map_err(CallError::unavailable)?;
        let (link, deadline) = (self.link.clone(), self.deadline);
        let written = Written {
            shape: Shape::List(Box::new(item.clone())),
            limits: self.limits,
            link,
        };
        // It ends with its last item, with its reader or with the call, whichever is first.
        tokio::spawn(async move {
            let served = written.serve(asked, items);
            let _ = tokio::time::timeout_at(deadline.into(), served).await;
        });
        stream.set_name(name);
        Ok(())
    }

    fn follow(&self, stream: &Stream, item: &Shape) -> Result<(), CallError> {
        let name = stream.name().unwrap_or_default();
        let is_name = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_name {
            return Err(CallError::bad_arguments(
                "a stream has a name that none can have",
            ));
        }
        let inbox = self.link.new_inbox();
        let answers = self.link.subscribe(&inbox, None);
        let (sender, items, account) = Items::channel();
        let mut read = Read {
            link: self.link.clone(),
            subject: subject::of_stream(self.app, &name),
            inbox,
            answers: answers.map_err(CallError::unavailable)?,
            shape: Shape::List(Box::new(item.clone())),
            limits: self.limits,
        };
        let deadline = self.deadline;
        tokio::spawn(async move {
            let ended = tokio::time::timeout_at(deadline.into(), read.all(&sender)).await;
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => account.fail(error.message),
                Err(_) => account.fail("it was not read to its end before the call's deadline"),
            }
        });
        stream.set_items(items);
        Ok(())
    }
}

/// A stream that others read.
struct Written {
    /// A list of its items.
    shape: Shape,
    limits: Limits,
    link: Link,
}

impl Written {
    /// Answers those who ask for items, until there are no more or nobody reads them.
    async fn serve(self, mut asked: Subscription, mut items: Items) {
        while let Some(request) = asked.next().await {
            if wire::stream_state(request.headers.as_ref()) == Some(STOP) {
                return;
            }
            let reply = request.reply.filter(|reply| !subject::is_reserved(reply));
            let Some(reply) = reply else {
                continue;
            };
            let next = tokio::time::timeout(PATIENCE, self.next(&mut items)).await;
            let (state, answer) = match next {
                Ok(Ok(Some(body))) => (MORE, Ok(body)),
                Ok(Ok(None)) => (END, Ok(Bytes::new())),
                Ok(Err(error)) => (END, Err(error)),
                Err(_) => (MORE, Ok(Bytes::new())),
            };
            let (headers, body) = match answer {
                Ok(body) => {
                    let mut headers = Headers::new();
                    headers.append(wire::STREAM, state);
                    (headers, body)
                }
                Err(error) => wire::write_error(&error),
            };
            if self
                .link
                .publish(&reply, None, &headers, &body)
                .await
                .is_err()
                || state == END
            {
                return;
            }
        }
    }

    /// The items that can be had now, as one body; none at the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    async fn next(&self, items: &mut Items) -> Result<Option<Bytes>, CallError> {
        let mut chunk = match items.next().await {
            Some(Ok(chunk)) => chunk,
            Some(Err(broken)) => return Err(CallError::unavailable(broken)),
            None => return Ok(None),
        };
        // From here on nothing waits.
        if let Value::Bytes(mut bytes) = chunk {
            while bytes.len() < REPLY
                && let Some(Some(Ok(Value::Bytes(mut more)))) = items.next().now_or_never()
            {
                bytes.append(&mut more);
            }
            let (first, rest) = streams::split(Value::Bytes(bytes), self.room());
            items.put_back(rest);
            return Ok(match first {
                Value::Bytes(bytes) => Some(bytes.into()),
                _ => None,
            });
        }
        const MOST: usize = 1024;
        if let Value::List(list) = &mut chunk {
            while list.len() < MOST
                && let Some(Some(Ok(Value::List(mut more)))) = items.next().now_or_never()
            {
                list.append(&mut more);
            }
        }
        loop {
            let count = match &chunk {
                Value::List(list) => list.len(),
                _ => 0,
            };
            let bytes = if count > 1 {
                self.room()
            } else {
                self.link.max_payload()
            };
            let limits = Limits {
                bytes,
                ..self.limits
            };
            match json::encode_value(&chunk, &self.shape, &limits) {
                Ok(body) => return Ok(Some(body.into())),
                Err(error) if error.is_too_large() && count > 1 => {
                    let (first, rest) = streams::split(chunk, count / 2);
                    items.put_back(rest);
                    chunk = first;
                }
                Err(error) if error.is_too_large() => {
                    return Err(CallError::result_too_large(format_args!(
                        "item of a stream: {error}"
                    )));
                }
                Err(error) => {
                    return Err(CallError::trap(format_args!("item of a stream: {error}")));
                }
            }
        }
    }

    fn room(&self) -> usize {
        // Headers have to fit as well.
        REPLY.min(self.link.max_payload() / 2)
    }
}

/// A stream that is read from another host.
struct Read {
    link: Link,
    subject: String,
    inbox: String,
    answers: Subscription,
    /// A list of its items.
    shape: Shape,
    limits: Limits,
}

impl Read {
    /// Asks for items as long as there is room for them, up to the end.
    async fn all(&mut self, sender: &mpsc::Sender<Value>) -> Result<(), CallError> {
        let begun = Instant::now();
        let mut is_known = false;
        loop {
            let Ok(room) = sender.reserve().await else {
                return self.stop().await;
            };
            self.send(&Headers::new()).await?;
            let answer = tokio::select! {
                biased;
                answer = tokio::time::timeout(ANSWER, self.answers.next()) => answer,
                () = sender.closed() => return self.stop().await,
            };
            let gone = || CallError::unavailable("its host does not answer any more");
            let answer = answer.ok().flatten().ok_or_else(gone)?;
            if answer.status == Some(StatusCode::NO_RESPONDERS) && answer.payload.is_empty() {
                if is_known || begun.elapsed() > APPEARS {
                    return Err(CallError::unavailable("its host is gone"));
                }
                tokio::time::sleep(RETRY).await;
                continue;
            }
            is_known = true;
            let (is_last, chunk) = self.read(answer)?;
            if let Some(chunk) = chunk {
                room.send(chunk);
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// An answer: whether it is the last, and its items.
    fn read(&self, answer: Message) -> Result<(bool, Option<Value>), CallError> {
        if let Some(why) = answer.malformed {
            return Err(CallError::bad_reply(why));
        }
        let is_last = match wire::stream_state(answer.headers.as_ref()) {
            Some(MORE) => false,
            Some(_) => true,
            None => {
                wire::read_reply(answer.headers.as_ref(), answer.payload)?;
                return Err(CallError::bad_reply(
                    "what has a stream answers with something else",
                ));
            }
        };
        if answer.payload.is_empty() {
            return Ok((is_last, None));
        }
        if matches!(&self.shape, Shape::List(item) if **item == Shape::U8) {
            return Ok((is_last, Some(Value::Bytes(answer.payload.into()))));
        }
        let limits = Limits {
            bytes: self.link.max_payload(),
            ..self.limits
        };
        let chunk = json::decode_value(&answer.payload, &self.shape, &limits);
        let chunk = chunk
            .map_err(|error| CallError::bad_reply(format_args!("items of a stream: {error}")))?;
        Ok((is_last, Some(chunk)))
    }

    async fn stop(&self) -> Result<(), CallError> {
        let mut headers = Headers::new();
        headers.append(wire::STREAM, STOP);
        self.send(&headers).await
    }

    async fn send(&self, headers: &Headers) -> Result<(), CallError> {
        let (nothing, inbox) = (Bytes::new(), Some(&*self.inbox));
        let sent = self.link.publish(&self.subject, inbox, headers, &nothing);
        sent.await.map_err(CallError::unavailable)
    }
}

/// The values of [`wire::STREAM`].
const MORE: &str = "more";
const END: &str = "end";
const STOP: &str = "stop";
