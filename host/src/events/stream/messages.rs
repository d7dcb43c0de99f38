//! The consumers of a service on a stream of messages.
//!
//! A consumer has one position for all of its subjects, so a subject that is added to it would be
//! delivered from that position on only. What the stream stored of it before is delivered by a further
//! consumer, which has the added subjects for good and begins where the stream does. Each message has one
//! consumer: what those before it deliver, a consumer hands out to be acknowledged and no more.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config as ConsumerConfig;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info};
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use time::OffsetDateTime;

use super::{Error, Provisioning, Purpose, StoreError, ack_wait, consumers_of, unfinished};
use crate::manifest::subjects::SubjectPattern;
use crate::manifest::{ServiceSpec, StreamSpec};
use crate::subject;

/// A key of a consumer's metadata, followed by a subject that its service does not subscribe to any more;
/// the value is the sequence of the first message of it that is not handled.
const LEFT: &str = "wasmbay.left.";

/// Subjects of which that is remembered, those that were left last. Others would be delivered from the
/// stream's beginning.
const MAX_LEFT: usize = 64;

/// Time for which a consumer that is given subjects hands out nothing, should this host fail meanwhile.
const PAUSE: Duration = Duration::from_secs(10);

/// One of the consumers of a service on a stream of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) stream: String,
    pub(crate) service: String,
    pub(crate) consumer: String,
    /// The subjects that it delivers.
    pub(crate) subjects: Vec<SubjectPattern>,
    /// Subjects among them that a consumer before it delivers.
    pub(crate) elsewhere: Vec<SubjectPattern>,
}

impl Share {
    /// Whether it is the consumer that every subscriber has.
    pub(crate) fn is_first(&self) -> bool {
        self.consumer == self.service
    }
}

/// Consumers by name, in their order, with the subjects of each.
type Divided = Vec<(String, Vec<SubjectPattern>)>;

/// What the known consumers of a service keep of what it subscribes to now, and what none of them
/// delivers.
fn divide(known: &Divided, wanted: &[SubjectPattern]) -> (Divided, Vec<SubjectPattern>) {
    let mut kept = Divided::new();
    for (name, subjects) in known {
        let both = subjects
            .iter()
            .flat_map(|subject| wanted.iter().filter_map(|w| subject.intersection(w)));
        let both = both.filter(|subject| !is_covered(&kept, subject)).collect();
        kept.push((name.clone(), both));
    }
    let added = wanted.iter().filter(|w| !is_covered(&kept, w));
    let added = added.cloned().collect();
    (kept, added)
}

fn is_covered(consumers: &Divided, subject: &SubjectPattern) -> bool {
    let mut all = consumers.iter().flat_map(|(_, subjects)| subjects);
    all.any(|one| one.covers(subject))
}

/// The name of a further consumer, from 1. No service has a `_` in its name.
fn added_name(service: &str, number: u32) -> String {
    format!("{service}_added_{number}")
}

/// The number of a service's consumer; 0 is the one that every subscriber has.
fn number(name: &str, service: &str) -> Option<u32> {
    match name.strip_prefix(service)? {
        "" => Some(0),
        added => added.strip_prefix("_added_")?.parse().ok(),
    }
}

/// The subjects that a consumer delivers beside replays.
fn subjects_of(info: &Info) -> Vec<SubjectPattern> {
    let filter = info.config.filter_subjects.iter();
    let filter = filter.chain(Some(&info.config.filter_subject));
    filter
        .filter(|subject| !subject::is_replay(subject))
        .filter_map(|subject| subject.parse().ok())
        .collect()
}

/// Where the delivery of an added subject begins: at the first message that is not handled, if the
/// service subscribed to it before.
fn begin(left: &HashMap<String, String>, added: &SubjectPattern) -> u64 {
    let of_added = left.iter().filter_map(|(key, sequence)| {
        let known: SubjectPattern = key.strip_prefix(LEFT)?.parse().ok()?;
        let sequence: u64 = sequence.parse().ok()?;
        known.covers(added).then_some(sequence)
    });
    of_added.max().unwrap_or(1)
}

/// The subscription of a service to a stream of messages.
pub(super) struct Subscription<'a> {
    pub(super) app: &'a str,
    pub(super) stream: &'a StreamSpec,
    pub(super) service: &'a ServiceSpec,
    pub(super) subjects: Vec<SubjectPattern>,
}

impl Subscription<'_> {
    fn consumer(&self, name: &str, subjects: &[SubjectPattern]) -> ConsumerConfig {
        let mut filter_subjects: Vec<_> = subjects.iter().map(ToString::to_string).collect();
        let (app, service) = (self.app, &self.service.name);
        let description = match name == service {
            true => format!("messages for {service} of {app}"),
            false => format!("messages for {service} of {app}, on subjects that were added"),
        };
        if name == service {
            let all = self.subjects.iter();
            filter_subjects.extend(
                all.map(|subject| subject::replayed_messages(app, service, subject.as_str())),
            );
        }
        let delivery = self.stream.durable.delivery(service);
        ConsumerConfig {
            durable_name: Some(name.to_owned()),
            description: Some(description),
            filter_subjects,
            ack_wait: ack_wait(self.service.limits.timeout),
            max_ack_pending: i64::from(delivery.in_flight),
            ack_policy: AckPolicy::Explicit,
            ..ConsumerConfig::default()
        }
    }

    fn shares(&self, divided: Divided) -> Vec<Share> {
        let mut before: Vec<SubjectPattern> = Vec::new();
        let mut shares = Vec::new();
        for (consumer, subjects) in divided {
            let overlaps = |one: &&SubjectPattern| subjects.iter().any(|s| s.overlaps(one));
            let elsewhere = before.iter().filter(overlaps).cloned().collect();
            before.extend(subjects.iter().cloned());
            shares.push(Share {
                stream: self.stream.stream.clone(),
                service: self.service.name.clone(),
                consumer,
                subjects,
                elsewhere,
            });
        }
        shares
    }
}

impl Provisioning<'_> {
    /// Creates a subscriber's consumers or brings them up to date; returns them.
    pub(super) async fn subscribe_to_messages(
        &self,
        subscription: &Subscription<'_>,
    ) -> Result<Vec<Share>, StoreError> {
        let (stream, service) = (&subscription.stream.stream, &subscription.service.name);
        let made = async {
            let handle = self.context.get_stream(stream).await?;
            let mut known = consumers_of(&handle, service).await?;
            known.retain(|info| number(&info.name, service).is_some());
            known.sort_by_key(|info| number(&info.name, service));
            match self.purpose {
                Purpose::Apply => subscription.update(&handle, &known).await,
                Purpose::Restore => {
                    let own = self.shares.iter();
                    let own = own.filter(|s| s.stream == *stream && s.service == *service);
                    let lost = own.filter(|s| known.iter().all(|info| info.name != s.consumer));
                    for share in lost {
                        super::warn_of_lost(&handle, &share.consumer);
                        let config = subscription.consumer(&share.consumer, &share.subjects);
                        handle.create_consumer(config).await?;
                    }
                    Ok(Vec::new())
                }
            }
        };
        made.await.map_err(|source: Error| StoreError {
            what: "consumer",
            name: format!("{service} of {stream}"),
            source,
        })
    }
}

impl Subscription<'_> {
    async fn update(&self, stream: &Stream, known: &[Info]) -> Result<Vec<Share>, Error> {
        let service = &self.service.name;
        let before: Divided = known
            .iter()
            .map(|info| (info.name.clone(), subjects_of(info)))
            .collect();
        let (mut divided, added) = divide(&before, &self.subjects);
        let Some(first) = known.first().filter(|first| first.name == *service) else {
            // It begins where the stream does, so nothing is missed.
            divided.insert(0, (service.clone(), added));
            return self.finish(stream, known, HashMap::new(), divided).await;
        };
        let mut left = first.config.metadata.clone();
        left.retain(|key, _| key.starts_with(LEFT));
        let begun = begun(&left, added);
        left.retain(|key, _| {
            let subject = key.strip_prefix(LEFT).unwrap_or_default();
            !self
                .subjects
                .iter()
                .any(|wanted| wanted.as_str() == subject)
        });
        self.note_left(stream, known, &divided, &mut left).await?;
        if begun.is_empty() {
            return self.finish(stream, known, left, divided).await;
        }
        // While it hands out nothing its position stands still, so what is stored from here on is not
        // missed. An older server does not know how: then each addition has a consumer of its own.
        let until = OffsetDateTime::now_utc() + PAUSE;
        let pause = stream.pause_consumer(service, until).await;
        let is_paused = pause.is_ok_and(|pause| pause.paused);
        let updated = async {
            self.add(stream, begun, is_paused, &mut divided).await?;
            self.finish(stream, known, left, divided).await
        };
        let updated = updated.await;
        if is_paused {
            stream.resume_consumer(service).await?;
        }
        updated
    }

    /// Gives added subjects to the first consumer where nothing is stored that it would miss, and to
    /// further ones else.
    async fn add(
        &self,
        stream: &Stream,
        begun: BTreeMap<u64, Vec<SubjectPattern>>,
        is_paused: bool,
        divided: &mut Divided,
    ) -> Result<(), Error> {
        let service = &self.service.name;
        for (begin, subjects) in begun {
            let is_missed = !is_paused || first_stored(stream, begin, &subjects).await?.is_some();
            match divided.first_mut() {
                Some((_, first)) if !is_missed => {
                    first.retain(|one| !subjects.iter().any(|added| added.covers(one)));
                    first.extend(subjects);
                }
                _ => {
                    let last = divided.iter().filter_map(|(name, _)| number(name, service));
                    let name = added_name(service, last.max().unwrap_or_default() + 1);
                    let deliver_policy = match begin {
                        ..=1 => DeliverPolicy::All,
                        start_sequence => DeliverPolicy::ByStartSequence { start_sequence },
                    };
                    let config = ConsumerConfig {
                        deliver_policy,
                        ..self.consumer(&name, &subjects)
                    };
                    stream.create_consumer(config).await?;
                    divided.push((name, subjects));
                }
            }
        }
        Ok(())
    }

    /// Notes how far what the service does not subscribe to any more was handled.
    async fn note_left(
        &self,
        stream: &Stream,
        known: &[Info],
        divided: &Divided,
        left: &mut HashMap<String, String>,
    ) -> Result<(), Error> {
        for info in known {
            let gone = subjects_of(info);
            let gone = gone.into_iter().filter(|one| !is_covered(divided, one));
            let gone: Vec<_> = gone.map(|subject| subject.to_string()).collect();
            if gone.is_empty() {
                continue;
            }
            let sequence = unfinished(stream, info, &gone).await?;
            let keys = gone.iter().map(|subject| format!("{LEFT}{subject}"));
            left.extend(keys.map(|key| (key, sequence.to_string())));
        }
        while left.len() > MAX_LEFT {
            let oldest = left
                .iter()
                .min_by_key(|(_, at)| at.parse::<u64>().unwrap_or(0));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            left.remove(&oldest);
        }
        Ok(())
    }

    /// Brings the consumers up to date, and deletes further ones that have nothing left to deliver.
    async fn finish(
        &self,
        stream: &Stream,
        known: &[Info],
        left: HashMap<String, String>,
        mut divided: Divided,
    ) -> Result<Vec<Share>, Error> {
        let service = &self.service.name;
        let mut left = Some(left);
        for (name, subjects) in &divided {
            let there = known.iter().find(|info| info.name == *name);
            let is_first = name == service;
            if subjects.is_empty() && !is_first {
                stream.delete_consumer(name).await?;
                continue;
            }
            let mut config = self.consumer(name, subjects);
            match there {
                // Where a consumer begins cannot be changed.
                Some(info) => config.deliver_policy = info.config.deliver_policy,
                None if is_first => {}
                // It has just been created.
                None => continue,
            }
            if is_first {
                config.metadata = left.take().unwrap_or_default();
            }
            stream.create_consumer(config).await?;
        }
        divided.retain(|(name, subjects)| !subjects.is_empty() || name == service);
        Ok(self.shares(divided))
    }
}

/// Added subjects by where their delivery begins.
fn begun(
    left: &HashMap<String, String>,
    added: Vec<SubjectPattern>,
) -> BTreeMap<u64, Vec<SubjectPattern>> {
    let mut begun: BTreeMap<u64, Vec<SubjectPattern>> = BTreeMap::new();
    for subject in added {
        begun
            .entry(begin(left, &subject))
            .or_default()
            .push(subject);
    }
    begun
}

/// The sequence of the first message on one of these subjects from `begin` on.
async fn first_stored(
    stream: &Stream,
    begin: u64,
    subjects: &[SubjectPattern],
) -> Result<Option<u64>, Error> {
    let subjects = subjects.iter().map(SubjectPattern::as_str);
    next_stored(stream, begin, subjects).await
}

/// The sequence of the first message on one of these subjects from `begin` on.
pub(super) async fn next_stored(
    stream: &Stream,
    begin: u64,
    subjects: impl Iterator<Item = &str>,
) -> Result<Option<u64>, Error> {
    let mut first: Option<u64> = None;
    for subject in subjects {
        let next = stream.raw_message_builder().sequence(begin);
        match next.next_by_subject(subject).send().await {
            Ok(message) => {
                first = Some(first.map_or(message.sequence, |f| f.min(message.sequence)));
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &str) -> Vec<SubjectPattern> {
        let texts = texts.split_whitespace();
        texts.map(|text| text.parse().unwrap()).collect()
    }

    /// What is kept by the consumers `relay`, `relay_added_1` and so on, and what is added.
    fn divided(known: &[&str], wanted: &str) -> (Vec<String>, String) {
        let name = |number| match number {
            0 => "relay".to_owned(),
            number => added_name("relay", number),
        };
        let known: Divided = (0..)
            .map(name)
            .zip(known.iter().map(|k| patterns(k)))
            .collect();
        let (kept, added) = divide(&known, &patterns(wanted));
        let text = |subjects: &[SubjectPattern]| {
            let texts: Vec<_> = subjects.iter().map(ToString::to_string).collect();
            texts.join(" ")
        };
        let kept = kept.iter().map(|(_, subjects)| text(subjects));
        (kept.collect(), text(&added))
    }

    #[test]
    fn what_is_subscribed_to_already_stays_where_it_is() {
        let same = divided(&["w.a w.b.*"], "w.b.* w.a");
        assert_eq!(same, (vec!["w.a w.b.*".to_owned()], String::new()));
        let more = divided(&["w.a", "w.b"], "w.a w.b w.c");
        assert_eq!(
            more,
            (vec!["w.a".to_owned(), "w.b".to_owned()], "w.c".to_owned())
        );
    }

    #[test]
    fn a_narrower_subject_is_left_to_the_consumer_of_the_wider_one() {
        let narrower = divided(&["w.>"], "w.a.* w.b");
        assert_eq!(narrower, (vec!["w.a.* w.b".to_owned()], String::new()));
    }

    #[test]
    fn a_wider_subject_is_added_and_the_narrower_one_stays() {
        let wider = divided(&["w.a.>"], "w.>");
        assert_eq!(wider, (vec!["w.a.>".to_owned()], "w.>".to_owned()));
        let crossing = divided(&["w.*.x"], "w.a.*");
        assert_eq!(crossing, (vec!["w.a.x".to_owned()], "w.a.*".to_owned()));
    }

    #[test]
    fn a_consumer_has_nothing_left_that_one_before_it_delivers() {
        let twice = divided(&["w.a", "w.>"], "w.a");
        assert_eq!(
            twice,
            (vec!["w.a".to_owned(), String::new()], String::new())
        );
    }

    #[test]
    fn a_subject_that_was_subscribed_to_before_goes_on_where_it_was_left() {
        let left = HashMap::from([
            (format!("{LEFT}w.a.>"), "17".to_owned()),
            (format!("{LEFT}w.a.b"), "40".to_owned()),
            (format!("{LEFT}w.c"), "no number".to_owned()),
        ]);
        let [wide, narrow, other, broken] =
            ["w.a.>", "w.a.b", "w.b", "w.c"].map(|text| begin(&left, &text.parse().unwrap()));
        assert_eq!((wide, narrow, other, broken), (17, 40, 1, 1));
    }

    #[test]
    fn consumers_are_told_by_their_numbers() {
        assert_eq!(number("relay", "relay"), Some(0));
        assert_eq!(number(&added_name("relay", 12), "relay"), Some(12));
        assert_eq!(number("relay_3", "relay"), None);
        assert_eq!(number("relay-b", "relay"), None);
    }
}
