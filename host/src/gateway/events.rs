//! Routes that clients follow: each event of a wire that is meant for the client, as it comes
//! (server-sent events, as the HTML standard has them, or messages of a WebSocket).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use matchit::Params;
use percent_encoding::percent_decode_str;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::answer::{Answer, Payload, Refusal, empty, to_json};
use super::connection::{Activity, Received, WRITE_GRACE};
use super::followers::Follows;
use super::route::EventRoute;
use super::{Front, websocket};
use crate::call::CallError;
use crate::interfaces::Feed;
use crate::json::{self, Limits, UnknownKeys};
use crate::wire::ErrorBody;

/// Longest time without a sign of life.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Longest time that a client may leave unread what it was sent.
const UNREAD: Duration = Duration::from_secs(30);

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// How long a client waits before it comes again, in milliseconds.
const FIRST: &str = "retry: 2000\n\n";
const ALIVE: &str = ": alive\n\n";

pub(super) const TOO_SLOW: &str = "events are read too slowly";

impl Front {
    /// Begins to send a client what it follows.
    pub(super) async fn follow(
        &self,
        route: &Arc<EventRoute>,
        params: &Params<'_, '_>,
        query: Option<&str>,
        request: &mut Received,
        (activity, address, deadline): (&Arc<Activity>, IpAddr, Instant),
    ) -> Result<Answer, Refusal> {
        let headers = request.headers();
        let after = last_event(headers, query)?;
        let socket = websocket::is_asked(request.version(), headers);
        let socket = socket.then(|| websocket::accept(headers)).transpose()?;
        let mut wanted = Vec::new();
        for (name, value) in params.iter() {
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| {
                let why = format!("path parameter `{name}` is no UTF-8");
                Refusal::caller(StatusCode::BAD_REQUEST, why)
            })?;
            wanted.push((name.to_owned(), value.into_owned()));
        }
        if request.method() == Method::HEAD {
            return Ok(with_headers(empty(StatusCode::OK)));
        }
        let follows = self.followers.enter(address)?;
        let opening = self.backend.follow(route.source.clone(), after);
        let feed = timeout_at(deadline, opening).await;
        let feed = feed.map_err(|_| self.too_late())??;
        let follower = Follower {
            feed,
            route: Arc::clone(route),
            wanted,
            closing: self.gateway.closing.subscribe(),
            activity: Arc::clone(activity),
            keep_alive: KEEP_ALIVE.min((self.gateway.spec.timeout + WRITE_GRACE) / 2),
            stage: Stage::Begins,
            position: None,
            _follows: follows,
        };
        let unread = UNREAD.min(self.gateway.spec.timeout + WRITE_GRACE);
        if let Some(answer) = socket {
            if self.gateway.is_closing() {
                let why = "the host is shutting down";
                return Err(CallError::unavailable(why).into());
            }
            let upgrade = hyper::upgrade::on(request);
            let running = activity.begin(Instant::now());
            activity.become_of(Box::pin(websocket::serve(
                upgrade, follower, unread, running,
            )));
            return Ok(answer);
        }
        let tasks = self.tasks.upgrade();
        let tasks = tasks.ok_or_else(|| CallError::unavailable("the host is shutting down"))?;
        let (sender, receiver) = mpsc::channel(2);
        tasks.spawn(send(follower, sender, unread));
        let frames = stream::unfold(receiver, |mut frames| async {
            let frame = frames.recv().await?;
            Some((frame, frames))
        });
        let answer = Answer::new(Payload::events(Box::pin(frames)));
        Ok(with_headers(answer))
    }
}

pub(super) fn with_headers(mut answer: Answer) -> Answer {
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, EVENT_STREAM);
    headers.insert(CACHE_CONTROL, NO_CACHE);
    // Proxies that would wait for the end of the answer do not.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    answer
}

/// The event after which a client goes on: from the header, or for the first request of a page from the
/// query.
fn last_event(headers: &HeaderMap, query: Option<&str>) -> Result<Option<u64>, Refusal> {
    let given = match headers.get(&LAST_EVENT_ID) {
        Some(value) => Some(String::from_utf8_lossy(value.as_bytes()).into_owned()),
        None => in_query(query, "last-event-id"),
    };
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return Ok(None);
    };
    let number = given.parse().map_err(|_| {
        let why = "Last-Event-ID: accepted: the `id` of an event of this route";
        Refusal::caller(StatusCode::BAD_REQUEST, why)
    })?;
    Ok(Some(number))
}

/// A value of the query string.
pub(super) fn in_query(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    let (_, value) = pairs.find(|(given, _)| given == name)?;
    Some(value.into_owned())
}

/// A client that follows events.
pub(super) struct Follower {
    feed: Box<dyn Feed>,
    route: Arc<EventRoute>,
    /// The parameters of its path.
    wanted: Vec<(String, String)>,
    closing: watch::Receiver<bool>,
    /// Its connection, which is not idle while this goes on.
    activity: Arc<Activity>,
    keep_alive: Duration,
    stage: Stage,
    /// The position that the client knows.
    position: Option<u64>,
    _follows: Follows,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begins,
    Follows,
    Ended,
}

/// What a client that follows is sent next.
pub(super) enum Step {
    /// An event that is for it.
    Event {
        /// Its number in its stream, if it is stored.
        sequence: Option<u64>,
        /// Its arguments as one line of JSON.
        data: Vec<u8>,
    },
    /// A sign of life.
    Alive {
        /// The sequence after which the client goes on when it comes again, if it does not know that.
        position: Option<u64>,
    },
    /// Nothing more, for this reason.
    End(CallError),
}

impl Follower {
    /// The next frame of server-sent events.
    async fn next(&mut self) -> Option<Bytes> {
        match self.stage {
            Stage::Begins => {
                self.stage = Stage::Follows;
                return Some(with_id(self.begin(), FIRST));
            }
            Stage::Ended => return None,
            Stage::Follows => {}
        }
        Some(match self.step().await {
            Step::Event { sequence, data } => frame(sequence, &data),
            Step::Alive { position } => with_id(position, ALIVE),
            Step::End(error) => {
                self.stage = Stage::Ended;
                last(&error)
            }
        })
    }

    /// Where the client begins, if events are stored.
    pub(super) fn begin(&mut self) -> Option<u64> {
        self.moved()
    }

    /// The position of the feed, if the client does not know it: it may have skipped what is for others.
    fn moved(&mut self) -> Option<u64> {
        let position = self.feed.position();
        let before = std::mem::replace(&mut self.position, position);
        position.filter(|_| position != before)
    }

    fn alive(&mut self) -> Step {
        let position = self.moved();
        Step::Alive { position }
    }

    /// What comes next, within the time of a sign of life.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(super) async fn step(&mut self) -> Step {
        let now = Instant::now();
        self.activity.touch(now);
        let alive = now + self.keep_alive;
        loop {
            let event = tokio::select! {
                biased;
                // A dropped sender closes as well.
                _ = self.closing.wait_for(|closing| *closing) => {
                    let why = "the host is shutting down";
                    return Step::End(CallError::unavailable(why));
                }
                event = self.feed.next() => Some(event),
                () = sleep_until(alive) => None,
            };
            let Some(event) = event else {
                return self.alive();
            };
            match event {
                Some(Ok(event)) => {
                    if let Some(data) = self.matching(&event.body) {
                        let sequence = event.sequence;
                        self.position = sequence;
                        return Step::Event { sequence, data };
                    }
                    if Instant::now() >= alive {
                        return self.alive();
                    }
                }
                Some(Err(error)) => return Step::End(error),
                None => {
                    let why = "the events come to an end";
                    return Step::End(CallError::unavailable(why));
                }
            }
        }
    }

    /// Time without a word of the client after which it is taken for gone.
    pub(super) fn patience(&self) -> Duration {
        self.keep_alive * 2 + WRITE_GRACE
    }

    /// The event's arguments as one line, if it is for this client. One that does not fit its type is
    /// for nobody.
    fn matching(&self, body: &[u8]) -> Option<Vec<u8>> {
        let signature = &self.route.signature;
        let limits = Limits {
            bytes: body.len().max(Limits::default().bytes),
            unknown_keys: UnknownKeys::Ignore,
            ..Limits::default()
        };
        let arguments = json::decode_arguments(body, signature, &limits).ok()?;
        let mut filters = self.route.filter.iter();
        let fits = filters.all(|(name, key)| {
            let wanted = self.wanted.iter().find(|(given, _)| given == name);
            let has = key.text(&arguments);
            wanted.is_some_and(|(_, wanted)| has.as_deref() == Some(wanted))
        });
        fits.then(|| json::encode_arguments(&arguments, signature, &limits).ok())?
    }
}

/// Sends a client its frames, each when the one before is on its way: a client that reads slowly makes its feed wait.
/// One that reads nothing for as long as `unread` gets nothing more. This goes on beside the answer, which
/// is not asked for more where the client of a stream of HTTP/2 does not read.
async fn send(mut follower: Follower, frames: mpsc::Sender<Bytes>, unread: Duration) {
    loop {
        // Both places, so that there is one for the last frame.
        let mut room = match timeout(unread, frames.reserve_many(2)).await {
            Ok(Ok(room)) => room,
            Ok(Err(_)) => return,
            Err(_) => {
                // There is room, or nobody is there.
                let _ = frames.try_send(last(&CallError::unavailable(TOO_SLOW)));
                return;
            }
        };
        let frame = tokio::select! {
            biased;
            () = frames.closed() => return,
            frame = follower.next() => frame,
        };
        let (Some(frame), Some(room)) = (frame, room.next()) else {
            return;
        };
        room.send(frame);
    }
}

/// A frame with the id after which the client goes on, should it come again.
fn with_id(id: Option<u64>, frame: &'static str) -> Bytes {
    match id {
        Some(id) => format!("id: {id}\n{frame}").into(),
        None => Bytes::from_static(frame.as_bytes()),
    }
}

/// The last frame, which says why it is the last.
pub(super) fn last(error: &CallError) -> Bytes {
    let mut frame = b"event: end\ndata: ".to_vec();
    frame.extend_from_slice(&to_json(&ErrorBody::from(error)));
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

pub(super) fn frame(sequence: Option<u64>, data: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(data.len() + 32);
    if let Some(sequence) = sequence {
        frame.extend_from_slice(format!("id: {sequence}\n").as_bytes());
    }
    frame.extend_from_slice(b"data: ");
    frame.extend_from_slice(data);
    frame.extend_from_slice(b"\n\n");
    frame.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_where_it_was() {
        let after = |header: Option<&'static str>, query| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert(&LAST_EVENT_ID, HeaderValue::from_static(header));
            }
            last_event(&headers, query).map_err(|refusal| refusal.status.as_u16())
        };
        assert_eq!(after(None, None), Ok(None));
        assert_eq!(after(Some(""), None), Ok(None));
        assert_eq!(after(Some("7"), Some("last-event-id=5")), Ok(Some(7)));
        assert_eq!(after(None, Some("a=b&last-event-id=5")), Ok(Some(5)));
        for odd in ["-1", "x", "1.0", "99999999999999999999999"] {
            assert_eq!(after(Some(odd), None), Err(400), "{odd}");
        }
    }

    #[test]
    fn an_event_is_a_frame() {
        let text = |sequence| String::from_utf8(frame(sequence, b"{}").to_vec()).unwrap();
        assert_eq!(text(Some(7)), "id: 7\ndata: {}\n\n");
        assert_eq!(text(None), "data: {}\n\n");
    }
}
