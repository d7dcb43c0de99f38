//! Clients that follow events over a WebSocket (RFC 6455), each event a message of JSON.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::answer::{Answer, Refusal, empty};
use super::connection::{Running, WRITE_GRACE};
use super::events::{Follower, Step, TOO_SLOW};
use crate::text::one_line;

/// Upper bound of the bytes of what a client may send: nothing but control frames is expected.
const MAX_MESSAGE: usize = 4 << 10;

/// Upper bound of the bytes of a reason for closing.
const MAX_REASON: usize = 123;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADES: HeaderValue = HeaderValue::from_static("upgrade");

/// Whether a client asks for a WebSocket.
pub(super) fn is_asked(version: Version, headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).map(HeaderValue::as_bytes);
    version == Version::HTTP_11
        && upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
}

/// The answer after which the connection is a WebSocket.
pub(super) fn accept(headers: &HeaderMap) -> Result<Answer, Refusal> {
    let refuse = |why: &str| Refusal::caller(StatusCode::BAD_REQUEST, why);
    let version = headers
        .get(SEC_WEBSOCKET_VERSION)
        .map(HeaderValue::as_bytes);
    if version != Some(b"13") {
        let why = "Sec-WebSocket-Version has to be 13";
        let mut refusal = Refusal::caller(StatusCode::UPGRADE_REQUIRED, why);
        refusal.add(SEC_WEBSOCKET_VERSION, "13");
        return Err(refusal);
    }
    let words = headers.get_all(CONNECTION).iter();
    let mut words = words.filter_map(|line| {
        line.to_str()
            .ok()?
            .split(',')
            .map(str::trim)
            .find(|word| word.eq_ignore_ascii_case("upgrade"))
    });
    let key = headers.get(SEC_WEBSOCKET_KEY);
    let key = key.filter(|key| key.len() == 24 && words.next().is_some());
    let key = key.ok_or_else(|| {
        refuse("Connection has to be `upgrade`, and Sec-WebSocket-Key 16 bytes in base64")
    })?;
    let accepted = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let accepted = accepted.map_err(|_| refuse("Sec-WebSocket-Key cannot be used"))?;
    let mut answer = empty(StatusCode::SWITCHING_PROTOCOLS);
    let own = answer.headers_mut();
    own.insert(UPGRADE, WEBSOCKET);
    own.insert(CONNECTION, UPGRADES);
    own.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    Ok(answer)
}

/// Sends a client what it follows, over its connection, until one of the two ends it. `unread` is how long a message may
/// be on its way.
pub(super) async fn serve(
    upgrade: OnUpgrade,
    mut follower: Follower,
    unread: Duration,
    running: Running,
) {
    let Ok(Ok(upgraded)) = timeout(WRITE_GRACE, upgrade).await else {
        return;
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let closing = follow(&mut socket, &mut follower, unread).await;
    if let Some((code, reason)) = closing {
        let frame = CloseFrame {
            code,
            reason: Utf8Bytes::from(one_line(&reason, MAX_REASON).into_owned()),
        };
        // The client may answer that it has read it.
        let closed = async {
            socket.close(Some(frame)).await?;
            while let Some(Ok(_)) = socket.next().await {}
            Ok::<_, Error>(())
        };
        let _ = timeout(WRITE_GRACE, closed).await;
    }
    drop(running);
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Follows until it ends; returns what the client is to be told, if it is still there.
async fn follow(
    socket: &mut Socket,
    follower: &mut Follower,
    unread: Duration,
) -> Option<(CloseCode, String)> {
    let mut heard = Instant::now();
    if let Some(position) = follower.begin()
        && let Err(end) = send(socket, place(position), unread).await
    {
        return end;
    }
    loop {
        let step = tokio::select! {
            biased;
            came = socket.next() => match came {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                    heard = Instant::now();
                    // What answers a ping goes out with what is written next, or now.
                    if !matches!(timeout(unread, socket.flush()).await, Ok(Ok(()))) {
                        return None;
                    }
                    continue;
                }
                Some(Ok(Message::Text(_) | Message::Binary(_))) => {
                    return Some((CloseCode::Policy, "no messages are taken here".to_owned()));
                }
                Some(Err(Error::Capacity(_))) => {
                    return Some((CloseCode::Size, "no messages are taken here".to_owned()));
                }
                Some(Ok(Message::Close(_) | Message::Frame(_)) | Err(_)) | None => return None,
            },
            step = follower.step() => step,
        };
        let message = match step {
            Step::Event { sequence, data } => {
                let data = String::from_utf8_lossy(&data);
                let id = sequence.map_or_else(|| "null".to_owned(), |id| format!("\"{id}\""));
                Message::Text(format!("{{\"id\":{id},\"data\":{data}}}").into())
            }
            Step::Alive { position } => {
                if heard.elapsed() > follower.patience() {
                    return None;
                }
                if let Some(position) = position
                    && let Err(end) = send(socket, place(position), unread).await
                {
                    return end;
                }
                Message::Ping(bytes::Bytes::new())
            }
            Step::End(error) => return Some((CloseCode::Away, error.message)),
        };
        if let Err(end) = send(socket, message, unread).await {
            return end;
        }
    }
}

/// The message that says where a client is, without an event.
fn place(position: u64) -> Message {
    Message::Text(format!("{{\"id\":\"{position}\"}}").into())
}

/// Sends a message.
///
/// # Errors
/// The connection is to end, with what the client is told.
async fn send(
    socket: &mut Socket,
    message: Message,
    unread: Duration,
) -> Result<(), Option<(CloseCode, String)>> {
    match timeout(unread, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(None),
        Err(_) => Err(Some((CloseCode::Policy, TOO_SLOW.to_owned()))),
    }
}
