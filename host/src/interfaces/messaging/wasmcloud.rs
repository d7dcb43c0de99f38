//! `wasmcloud:messaging@0.2.0`: a message is a record, and every failure a text.

use std::time::Duration;

use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::{Draft, Failure, Message, MessagingView, publish, request};

/// The interface of components that send.
const CONSUMER: &str = "wasmcloud:messaging/consumer@0.2.0";

/// The message of the interface.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
pub(crate) struct BrokerMessage {
    subject: String,
    body: Vec<u8>,
    #[component(name = "reply-to")]
    reply_to: Option<String>,
}

impl From<Message> for BrokerMessage {
    fn from(message: Message) -> Self {
        Self {
            subject: message.subject,
            body: message.body,
            reply_to: message.reply_to,
        }
    }
}

/// `wasmcloud:messaging/consumer`.
pub(super) fn add_to_linker<T: MessagingView>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    let mut consumer = linker.instance(CONSUMER)?;
    consumer.func_wrap_async(
        "request",
        |mut store, (subject, body, timeout): (String, Vec<u8>, u32)| {
            Box::new(async move {
                let draft = Draft {
                    subject,
                    reply_to: None,
                    headers: Vec::new(),
                    body,
                };
                let timeout = Duration::from_millis(timeout.into());
                let replies =
                    request(store.data_mut().messaging().caller, draft, Some(timeout), 1).await?;
                let first = |replies: Vec<Message>| {
                    let first = replies.into_iter().next();
                    first.map(BrokerMessage::from).ok_or_else(no_reply)
                };
                Ok((replies.map_err(Failure::into_message).and_then(first),))
            })
        },
    )?;
    consumer.func_wrap_async("publish", |mut store, (message,): (BrokerMessage,)| {
        Box::new(async move {
            let BrokerMessage {
                subject,
                body,
                reply_to,
            } = message;
            let draft = Draft {
                subject,
                reply_to,
                headers: Vec::new(),
                body,
            };
            let published = publish(store.data_mut().messaging().caller, draft).await?;
            Ok((published.map_err(Failure::into_message),))
        })
    })
}

fn no_reply() -> String {
    "there is no reply".to_owned()
}
