//! What JetStream says of a message that it hands out: in the subject of its acknowledgement.

use time::OffsetDateTime;

/// The delivery of a stored message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivered<'a> {
    pub(crate) stream: &'a str,
    /// Its sequence in the stream.
    pub(crate) sequence: u64,
    /// How often it was handed out, this time included.
    pub(crate) times: i64,
    pub(crate) published: OffsetDateTime,
}

impl<'a> Delivered<'a> {
    /// Reads `$JS.ACK.[domain.account.]stream.consumer.times.sequence.delivery.time.pending[.random]`;
    /// servers with a domain write the longer form.
    pub(crate) fn parse(acknowledgement: &'a str) -> Option<Self> {
        let parts = acknowledgement.strip_prefix("$JS.ACK.")?;
        let count = parts.split('.').count();
        let mut parts = parts.split('.').skip(if count >= 9 { 2 } else { 0 });
        let (stream, _consumer) = (parts.next()?, parts.next()?);
        let (times, sequence) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let (_delivery, nanoseconds) = (parts.next()?, parts.next()?.parse().ok()?);
        // What is left of the message's consumer.
        parts.next()?;
        Some(Self {
            stream,
            sequence,
            times,
            published: OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let long = "$JS.ACK._.hash.bay_shop.mail.2.17.4.1700000000000000001.3.abc";
        for subject in ["$JS.ACK.bay_shop.mail.2.17.4.1700000000000000001.3", long] {
            let read = Delivered::parse(subject).unwrap();
            assert_eq!(
                (read.stream, read.sequence, read.times),
                ("bay_shop", 17, 2)
            );
            assert_eq!(
                read.published.unix_timestamp_nanos(),
                1_700_000_000_000_000_001
            );
        }
    }

    #[test]
    fn anything_else_is_none() {
        for subject in [
            "",
            "$JS.ACK",
            "_INBOX.x",
            "$JS.ACK.s.c.1.2.3.4",
            "$JS.ACK.s.c.x.2.3.4.5",
            "$JS.ACK.s.c.1.-2.3.4.5",
            "$JS.ACK.s.c.1.2.3.99999999999999999999999999999999.5",
        ] {
            assert_eq!(Delivered::parse(subject), None, "{subject}");
        }
    }
}
