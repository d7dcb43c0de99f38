//! The metadata of event streams: the kinds of events with their types, so that a command can publish
//! events and edit dead letters while no service of the app runs.

use std::collections::{BTreeMap, HashMap};

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{Context, ErrorCode};
use futures_util::StreamExt;

use super::StoreError;
use crate::interface::{FunctionId, InterfaceId};
use crate::manifest::Durable;
use crate::plan::{EventWire, KeyPath, Publication};
use crate::shape::Signature;
use crate::subject;

/// Keys of a stream's metadata.
pub(super) const APP: &str = "wasmbay.app";
const INTERFACE: &str = "wasmbay.interface";
const ORDER_BY: &str = "wasmbay.order-by";
/// Followed by a function's name; the value is its signature.
const FUNCTION: &str = "wasmbay.function.";

/// Upper bound of the bytes of all signatures in a stream's metadata. The server allows 128 KiB in
/// all.
const MAX_SIGNATURES: usize = 64 << 10;

/// The metadata of the stream of a wire.
pub(super) fn metadata(app: &str, wire: &EventWire, durable: &Durable) -> HashMap<String, String> {
    let mut entries = HashMap::from([
        (APP.to_owned(), app.to_owned()),
        (INTERFACE.to_owned(), wire.interface.to_string()),
    ]);
    if let Some(path) = &durable.order_by {
        entries.insert(ORDER_BY.to_owned(), path.join("."));
    }
    let functions = wire.functions.iter().map(|(name, function)| {
        let signature = function.signature.to_string();
        (format!("{FUNCTION}{name}"), signature)
    });
    let functions: Vec<_> = functions.collect();
    let size: usize = functions.iter().map(|(name, s)| name.len() + s.len()).sum();
    if size <= MAX_SIGNATURES {
        entries.extend(functions);
    }
    entries
}

/// A kind of event that a stream stores.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Stored {
    /// The app.
    pub app: String,
    /// The event's function.
    pub function: FunctionId,
    /// Subject, stream and key of its events.
    pub publication: Publication,
}

/// All kinds of stored events of all apps, by the metadata of their streams. A stream whose
/// signatures are too long has none.
///
/// # Errors
///
/// JetStream cannot be reached.
pub async fn stored(context: &Context) -> Result<Vec<Stored>, StoreError> {
    let mut streams = context.streams();
    let mut all = Vec::new();
    while let Some(info) = streams.next().await {
        let info = info.map_err(StoreError::of("stream", "*"))?;
        all.extend(read(&info.config).unwrap_or_default());
    }
    Ok(all)
}

/// The kinds of events that a stream stores; `None` if it is none of wasmbay's, or retired.
fn read(config: &Config) -> Option<Vec<Stored>> {
    let app = config.metadata.get(APP)?;
    let interface: InterfaceId = config.metadata.get(INTERFACE)?.parse().ok()?;
    let takes_all = |subject: &String| config.subjects.contains(subject);
    if config.name != subject::stream(app, &interface)
        || !subject::stored(app, &interface).iter().all(takes_all)
    {
        return None;
    }
    let function = |(name, text): (&String, &String)| {
        let function = interface.function(name.strip_prefix(FUNCTION)?);
        Some(Stored {
            app: app.clone(),
            publication: publication(config, app, &function, text.parse().ok()?)?,
            function,
        })
    };
    Some(config.metadata.iter().filter_map(function).collect())
}

/// The interface whose events a stream stores, if it is one of this app.
pub(super) fn interface_of(config: &Config, app: &str) -> Option<InterfaceId> {
    let interface: InterfaceId = config.metadata.get(INTERFACE)?.parse().ok()?;
    let is_own =
        config.metadata.get(APP)? == app && config.name == subject::stream(app, &interface);
    is_own.then_some(interface)
}

/// The types of the events that a stream stores, as far as its metadata has them.
pub(super) fn signatures_of(config: &Config) -> BTreeMap<String, Signature> {
    let signatures = config.metadata.iter().filter_map(|(name, text)| {
        let name = name.strip_prefix(FUNCTION)?;
        Some((name.to_owned(), text.parse().ok()?))
    });
    signatures.collect()
}

/// How a function's events get into the stream with this configuration.
fn publication(
    config: &Config,
    app: &str,
    function: &FunctionId,
    signature: Signature,
) -> Option<Publication> {
    let key = match config.metadata.get(ORDER_BY) {
        // Without its key an event would be published to the wrong partition.
        Some(path) => {
            let path: Vec<_> = path.split('.').map(str::to_owned).collect();
            Some(KeyPath::resolve(&function.name, &signature, &path).ok()?)
        }
        None => None,
    };
    let subject = subject::of_function(app, function);
    Some(Publication::stored(subject, &config.name, signature, key))
}

/// The publication of an event that `stream` stored: by the stream's metadata, also if its wire is no
/// longer durable, or with the type that `fallback` finds. `None` if neither has the type.
pub(crate) async fn publication_of(
    context: &Context,
    stream: &str,
    function: &str,
    fallback: impl Future<Output = Option<Signature>>,
) -> Result<Option<Publication>, async_nats::Error> {
    let Ok(function) = function.parse::<FunctionId>() else {
        return Ok(None);
    };
    let Some(stream) = find(context, stream).await? else {
        return Ok(None);
    };
    let config = &stream.cached_info().config;
    let Some(app) = config.metadata.get(APP) else {
        return Ok(None);
    };
    let text = config.metadata.get(&format!("{FUNCTION}{}", function.name));
    let signature = match text.and_then(|text| text.parse().ok()) {
        Some(signature) => Some(signature),
        None => fallback.await,
    };
    Ok(signature.and_then(|signature| publication(config, app, &function, signature)))
}

/// The stream of this name, if there is one.
pub(crate) async fn find(
    context: &Context,
    name: &str,
) -> Result<Option<Stream>, async_nats::Error> {
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            _ => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(order_by: Option<&str>, signature: &str) -> Option<Vec<Stored>> {
        let interface: InterfaceId = "shop:orders/events@1.2.0".parse().unwrap();
        let mut metadata = HashMap::from([
            (APP.to_owned(), "shop".to_owned()),
            (INTERFACE.to_owned(), interface.to_string()),
            (format!("{FUNCTION}placed"), signature.to_owned()),
            // The server adds its own.
            ("_nats.level".to_owned(), "1".to_owned()),
        ]);
        metadata.extend(order_by.map(|path| (ORDER_BY.to_owned(), path.to_owned())));
        read(&Config {
            name: subject::stream("shop", &interface),
            subjects: subject::stored("shop", &interface),
            metadata,
            ..Config::default()
        })
    }

    #[test]
    fn the_metadata_of_a_stream_has_the_publication_of_its_events() {
        let signature = "func(order: record { id: string, total: u32 })";
        let all = kinds(Some("order.id"), signature).unwrap();
        let [one] = &*all else { panic!("{all:?}") };
        assert_eq!(one.function.to_string(), "shop:orders/events.placed@1.2.0");
        assert_eq!(
            one.publication.subject(),
            "bay.shop.shop.orders.events.v1.placed"
        );
        assert_eq!(
            one.publication.stream(),
            Some("bay_shop_shop_orders_events_v1")
        );
        assert!(one.publication.is_ordered());
        assert!(!kinds(None, signature).unwrap()[0].publication.is_ordered());
    }

    #[test]
    fn metadata_that_cannot_be_read_is_left_out() {
        let signature = "func(order: record { id: string })";
        assert_eq!(kinds(Some("order.number"), signature), Some(Vec::new()));
        assert_eq!(kinds(None, "func(order: "), Some(Vec::new()));
        assert_eq!(read(&Config::default()), None);
    }
}
