//! `[service.NAME]`: a component under a name, with its configuration, limits and grants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};
use toml::de::DeValue;

use super::Find;
use super::durable::{self, DurableSpec};
use super::endpoint::Endpoint;
use super::file::{At, Section};
use super::jobs::{self, JobSpec, When};
use super::keys::{app, blobstore, grants, job, keyvalue, limits, service};
use super::kinds::Setting as _;
use super::pipelines::{CallSpec, Template};
use super::placement::{self, Replicas, is_label_text};
use super::reference::Reference;
use super::rollout::{self, RolloutSpec};
use super::settings::settings;
use super::streams::{self, StoredSubjects, StreamSpec};
use super::subjects::SubjectPattern;
use super::values::{FolderName, HostPattern, size_text};
use super::wires;
use crate::interface::{FunctionId, InterfaceId};
use crate::text::{did_you_mean, shown};

/// Upper bound of the bytes of all names and values of `env`, and of all `args`: each instance has a copy, and a guest that
/// asks for them gets all at once.
const MAX_ENV: usize = 64 << 10;

/// Upper bound of the folders of `files`: each instance opens all of them.
const MAX_FOLDERS: usize = 16;

/// Stands for a number of replicas that is not given, until the wires are read.
pub(super) const AS_WIRES: u8 = 0;

/// A component under a name, with its configuration, limits and grants.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceSpec {
    /// The service's name: a kebab-case label of at most 63 characters.
    #[serde(skip)]
    pub name: String,
    /// What `wasi:config` gives the component.
    pub config: BTreeMap<String, String>,
    /// What `wasi:cli/environment` gives the component.
    pub env: BTreeMap<String, String>,
    /// What `wasi:cli/environment` gives the component as arguments, after the service's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The services that answer what it imports, where it chose them itself.
    #[serde(rename = "wire")]
    pub wires: BTreeMap<InterfaceId, String>,
    /// What the service may use.
    pub limits: Limits,
    /// Calls that one instance serves; 1 means a fresh instance for each.
    pub reuse: u32,
    /// What the component may reach outside its sandbox.
    pub grants: Grants,
    /// The hosts of a fleet that run it.
    pub replicas: Replicas,
    /// The labels that such a host must have.
    pub require: BTreeMap<String, String>,
    /// The label over whose values such hosts are spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
    /// Bytes of memory that are set aside for it on each of them, where that was stated.
    #[serde(
        serialize_with = "write_reserve",
        skip_serializing_if = "Option::is_none"
    )]
    pub reserve: Option<u64>,
    /// How a new version takes over in a fleet; at once unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
    /// Functions whose calls survive the host that works on them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durable: Option<DurableSpec>,
    /// What undoes the calls that these make, by imported function.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub undo: BTreeMap<FunctionId, CallSpec>,
    /// Paths to values that are never shown, by durable or imported function.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secret: BTreeMap<FunctionId, Vec<Template>>,
    /// When it runs, if it is a job: it is not called then.
    #[serde(skip)]
    pub job: Option<JobSpec>,
}

settings! {
    /// What a service may use.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Limits in limits {
        /// Bytes of linear memory of one instance.
        pub memory: u64 = MEMORY,
        /// Elements of all tables of one instance.
        pub tables: u32 = TABLES,
        /// Core instances in one instance.
        pub instances: u32 = INSTANCES,
        /// Time that one call may take.
        pub timeout: Duration = TIMEOUT,
        /// Calls worked on at the same time.
        pub concurrency: u32 = CONCURRENCY,
        /// Time that a call waits for its turn.
        pub wait: Duration = WAIT,
        /// Calls that may wait at the same time.
        pub queue: u32 = QUEUE,
        /// Bytes of a call's arguments, and of its result.
        pub message: usize = MESSAGE,
        /// Services that a call may have passed through.
        pub hops: u8 = HOPS,
    }
}

settings! {
    /// The data that a component may keep.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct KeyValueGrant in keyvalue {
        /// Servers that keep a copy.
        pub replicas: u8 = REPLICAS,
        /// Bytes of all of it.
        pub size: u64 = SIZE,
    }
}

settings! {
    /// The objects that a component may keep.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct BlobstoreGrant in blobstore {
        /// Servers that keep a copy.
        pub replicas: u8 = REPLICAS,
        /// Bytes of all of them.
        pub size: u64 = SIZE,
    }
}

/// What a component may reach; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Grants {
    /// Hosts that outgoing HTTP may reach.
    pub http: Vec<HostPattern>,
    /// Endpoints that it may connect to by TCP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<Endpoint>,
    /// Endpoints that it may exchange datagrams with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub udp: Vec<Endpoint>,
    /// What it may keep, if it may keep data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keyvalue: Option<KeyValueGrant>,
    /// The objects that it may keep, if it may keep any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blobstore: Option<BlobstoreGrant>,
    /// Folders whose files it may read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FolderName>,
    /// Subjects on which messages may be published.
    pub publish: Vec<SubjectPattern>,
    /// Subjects whose messages the component handles; no two of them overlap.
    pub subscribe: Vec<SubjectPattern>,
    /// Those among them that streams of the app store.
    #[serde(skip)]
    pub stored: Vec<StoredSubjects>,
}

impl Grants {
    /// The stream that stores what is published on `subject`.
    #[must_use]
    pub fn stream_of(&self, subject: &str) -> Option<&str> {
        let mut stored = self.stored.iter();
        let of = stored.find(|stored| stored.subjects.matches(subject))?;
        Some(&of.stream)
    }

    /// The stream from which what is granted by `pattern` of `subscribe` comes.
    #[must_use]
    pub fn stream_behind(&self, pattern: &SubjectPattern) -> Option<&str> {
        let mut stored = self.stored.iter();
        let of = stored.find(|stored| stored.subjects.covers(pattern))?;
        Some(&of.stream)
    }

    /// Whether outgoing HTTP to `host` on `port` is granted.
    #[must_use]
    pub fn allows_http(&self, host: &str, port: u16) -> bool {
        self.http.iter().any(|pattern| pattern.matches(host, port))
    }

    /// Whether publishing a message on `subject` is granted.
    #[must_use]
    pub fn allows_publish(&self, subject: &str) -> bool {
        self.publish.iter().any(|pattern| pattern.matches(subject))
    }

    /// Whether handling messages on `subject` is granted.
    #[must_use]
    pub fn allows_subscribe(&self, subject: &str) -> bool {
        self.subscribe
            .iter()
            .any(|pattern| pattern.matches(subject))
    }
}

impl ServiceSpec {
    /// A service of this name, with everything as where the manifest says nothing, and no grants.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            config: BTreeMap::new(),
            env: BTreeMap::new(),
            args: Vec::new(),
            wires: BTreeMap::new(),
            limits: Limits::default(),
            reuse: service::REUSE.values.default(),
            grants: Grants::default(),
            replicas: service::REPLICAS.values.default(),
            require: BTreeMap::new(),
            spread: None,
            reserve: None,
            rollout: None,
            durable: None,
            undo: BTreeMap::new(),
            secret: BTreeMap::new(),
            job: None,
        }
    }

    /// What it is called in messages.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.job {
            Some(_) => "job",
            None => "service",
        }
    }

    /// Whether a service that runs as `self` runs as `other` as well: all but the hosts, and how it gets
    /// there, is the same.
    #[must_use]
    pub fn runs_as(&self, other: &Self) -> bool {
        let placed = Self {
            replicas: self.replicas,
            require: self.require.clone(),
            spread: self.spread.clone(),
            reserve: self.reserve,
            rollout: self.rollout.clone(),
            ..other.clone()
        };
        *self == placed
    }

    /// Bytes of memory that are set aside for the service on a host: what was stated, or one instance at
    /// its limit.
    #[must_use]
    pub fn reserve(&self) -> u64 {
        self.reserve.unwrap_or(self.limits.memory)
    }

    /// The service that it chose for an interface that it imports.
    #[must_use]
    pub fn exporter_of(&self, import: &InterfaceId) -> Option<&str> {
        let mut wires = self.wires.iter();
        let (_, exporter) = wires.find(|(interface, _)| import.answers_to(interface))?;
        Some(exporter)
    }
}

/// Reads one service, without its component.
pub(super) fn read(
    name: &str,
    section: &Section<'_>,
    streams: &[StreamSpec],
    declared: &[&str],
) -> ServiceSpec {
    let limits = section.section(&service::LIMITS, &limits::TABLE);
    let shared = read_shared(name, section, streams, declared);
    let durable = durable::read(section, &shared.grants);
    ServiceSpec {
        limits: Limits::read(&limits, &Limits::default()),
        reuse: section.read_or_default(&service::REUSE),
        replicas: section.read_or_default(&service::REPLICAS),
        rollout: rollout::read(section),
        durable,
        undo: durable::read_undo(section),
        secret: durable::read_secret(section),
        ..shared
    }
}

/// Reads what services and jobs have alike, under the same keys.
fn read_shared(
    name: &str,
    section: &Section<'_>,
    streams: &[StreamSpec],
    declared: &[&str],
) -> ServiceSpec {
    let config = section.entries(&service::CONFIG, plain_text).into_iter();
    let grants = section.section(&service::GRANTS, &grants::TABLE);
    ServiceSpec {
        config: config
            .map(|(key, value)| (key.value.to_owned(), value))
            .collect(),
        env: read_env(section),
        args: read_args(section),
        wires: wires::read_chosen(name, section, declared),
        grants: read_grants(&grants, streams),
        require: placement::read_labels(section),
        spread: section
            .text_that(&service::SPREAD, is_label_text)
            .map(|label| label.value.to_owned()),
        reserve: section
            .value(&service::RESERVE, |value| {
                service::RESERVE.values.read(value)
            })
            .map(|bytes| bytes.value),
        ..ServiceSpec::new(name)
    }
}

/// Reads one job, without its component.
pub(super) fn read_job(
    name: &str,
    section: &Section<'_>,
    streams: &[StreamSpec],
    declared: &[&str],
) -> ServiceSpec {
    let spec = jobs::read(section);
    let when = spec.as_ref().map(|job| &job.when);
    let limits = jobs::read_limits(section, when);
    let replicas = match when {
        Some(When::Always) => Replicas::Count(1),
        _ => job::REPLICAS.values.default(),
    };
    let read = ServiceSpec {
        limits,
        // A command is done when it has run.
        reuse: 1,
        replicas: section.read(&job::REPLICAS, &replicas),
        job: spec,
        ..read_shared(name, section, streams, declared)
    };
    jobs::check_grants(section, &read);
    read
}

fn write_reserve<S: Serializer>(bytes: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.map(size_text).serialize(serializer)
}

/// Reads the environment variables. The C library of a guest parts names from values at the first `=`,
/// and ends either at a NUL.
fn read_env(section: &Section<'_>) -> BTreeMap<String, String> {
    let value = |value: &DeValue<'_>| plain_text(value).filter(|text| !text.contains('\0'));
    let mut env = BTreeMap::new();
    let mut bytes = 0;
    for (name, value) in section.entries(&service::ENV, value) {
        if name.value.is_empty() || name.value.contains(['=', '\0']) {
            let name_text = shown(name.value);
            section.report(name.at, format!("`env`: `{name_text}` is no name of a variable; accepted: a text without `=` and NUL"));
        }
        bytes += name.value.len() + value.len();
        env.insert(name.value.to_owned(), value);
    }
    if bytes > MAX_ENV {
        let most = size_text(MAX_ENV as u64);
        let why = format!("`env` has {bytes} bytes of names and values; accepted: {most} in all");
        section.report_key(service::ENV.name, why);
    }
    env
}

/// Reads the arguments. The C library of a guest ends one at a NUL.
fn read_args(section: &Section<'_>) -> Vec<String> {
    let mut bytes = 0;
    let texts = section.texts(&service::ARGS).into_iter();
    let args = texts.map(|arg| {
        if arg.value.contains('\0') {
            let why = "`args`: an argument has a NUL; accepted: texts without one";
            section.report(arg.at, why);
        }
        bytes += arg.value.len();
        arg.value.to_owned()
    });
    let args = args.collect();
    if bytes > MAX_ENV {
        let most = size_text(MAX_ENV as u64);
        let why = format!("`args` has {bytes} bytes; accepted: {most} in all");
        section.report_key(service::ARGS.name, why);
    }
    args
}

/// The tables of services and of jobs.
fn sections<'f>(top: &Section<'f>) -> impl Iterator<Item = (At<&'f str>, Section<'f>)> {
    let services = top.named(&app::SERVICE, &service::TABLE);
    services
        .into_iter()
        .chain(top.named(&app::JOB, &job::TABLE))
}

/// Reads where the components are: paths, and references to registries.
pub(super) fn read_components(
    top: &Section<'_>,
    root: &Path,
    find: Find<'_>,
) -> (BTreeMap<String, PathBuf>, BTreeMap<String, Reference>) {
    let (mut components, mut references) = (BTreeMap::new(), BTreeMap::new());
    for (name, section) in sections(top) {
        section.require(&service::COMPONENT);
        let Some(typed) = section.text_that(&service::COMPONENT, |path| !path.is_empty()) else {
            continue;
        };
        if Reference::is_meant(typed.value) {
            match typed.value.parse() {
                Ok(reference) => drop(references.insert(name.value.to_owned(), reference)),
                Err(error) => section.report(typed.at, format!("`component`: {error}")),
            }
            continue;
        }
        let path = root.join(typed.value);
        match find(&path) {
            Some(found) => drop(components.insert(name.value.to_owned(), found)),
            None => {
                let accepted = Reference::hint(typed.value).unwrap_or_else(|| {
                    "accepted: a guest's folder, a `.wasm` file or `oci://REGISTRY/NAME:TAG`"
                        .to_owned()
                });
                let path = path.display();
                let why = format!("`component`: there is nothing at {path}; {accepted}");
                section.report(typed.at, why);
            }
        }
    }
    (components, references)
}

/// Reports components in a document that has no folder in which they could be.
pub(super) fn refuse_components(top: &Section<'_>) {
    for (_, section) in sections(top) {
        let why =
            "`component` says where a file is, which means nothing outside of a manifest's folder";
        section.report_key(service::COMPONENT.name, why);
    }
}

fn read_grants(section: &Section<'_>, streams: &[StreamSpec]) -> Grants {
    let subscribe: Vec<SubjectPattern> = section.parsed(&grants::SUBSCRIBE);
    for (i, one) in subscribe.iter().enumerate() {
        // NATS would deliver a message to each of the two.
        if let Some(other) = subscribe.iter().take(i).find(|other| one.overlaps(other)) {
            section.report_key(
                grants::SUBSCRIBE.name,
                format!("`subscribe`: `{other}` and `{one}` overlap, the service would get a message of both twice"),
            );
        }
    }
    let publish = section.parsed(&grants::PUBLISH);
    Grants {
        http: section.parsed(&grants::HTTP),
        tcp: section.parsed(&grants::TCP),
        udp: section.parsed(&grants::UDP),
        keyvalue: read_keyvalue(section),
        blobstore: read_blobstore(section),
        files: read_files(section),
        stored: streams::granted(section, streams, &publish, &subscribe),
        publish,
        subscribe,
    }
}

fn read_files(section: &Section<'_>) -> Vec<FolderName> {
    let files: Vec<FolderName> = section.parsed(&grants::FILES);
    if files.len() > MAX_FOLDERS {
        let why = format!(
            "`files` has {} folders; accepted: {MAX_FOLDERS}",
            files.len()
        );
        section.report_key(grants::FILES.name, why);
    }
    files
}

fn read_keyvalue(section: &Section<'_>) -> Option<KeyValueGrant> {
    let usual = KeyValueGrant {
        replicas: AS_WIRES,
        ..KeyValueGrant::default()
    };
    if section.is_table(&grants::KEYVALUE) {
        let table = section.section(&grants::KEYVALUE, &keyvalue::TABLE);
        return Some(KeyValueGrant::read(&table, &usual));
    }
    let granted = section.value(&grants::KEYVALUE, DeValue::as_bool)?;
    granted.value.then_some(usual)
}

fn read_blobstore(section: &Section<'_>) -> Option<BlobstoreGrant> {
    let usual = BlobstoreGrant {
        replicas: AS_WIRES,
        ..BlobstoreGrant::default()
    };
    if section.is_table(&grants::BLOBSTORE) {
        let table = section.section(&grants::BLOBSTORE, &blobstore::TABLE);
        return Some(BlobstoreGrant::read(&table, &usual));
    }
    let granted = section.value(&grants::BLOBSTORE, DeValue::as_bool)?;
    granted.value.then_some(usual)
}

/// A value as text: a string as it is, numbers and booleans as TOML would print them.
fn plain_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => {
            let value = i128::from_str_radix(number.as_str(), number.radix());
            Some(value.map_or_else(|_| number.as_str().to_owned(), |n| n.to_string()))
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Reports the name of a service that the manifest does not declare.
pub(super) fn check_service(section: &Section<'_>, name: At<&str>, declared: &[&str]) {
    if !declared.contains(&name.value) {
        let meant = did_you_mean(name.value, declared.iter().copied());
        let known = declared
            .iter()
            .map(|name| shown(name))
            .collect::<Vec<_>>()
            .join(", ");
        section.report(
            name.at,
            format!(
                "there is no service `{}`{meant} (services: {known})",
                shown(name.value)
            ),
        );
    }
}
