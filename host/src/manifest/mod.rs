//! The manifest, `wasmbay.toml`: from what was typed to a checked [`App`].
//!
//! Everything that the text alone can show is checked here, all problems at once, each with its
//! line. What needs the components' types is the business of [`crate::plan`]. Only [`App::load`]
//! touches the file system.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::interface::{FunctionId, InterfaceId, is_label};
use crate::text::{did_you_mean, shown};

mod events;
mod file;
pub mod keys;
mod routes;
mod streams;
pub mod subjects;
pub mod values;

pub use events::{DeliveryPolicy, Durable, EventSpec, Outcome, Retry};
use file::{ManifestFile, Section, plain_text};
pub use streams::{StoredSubjects, StreamSpec};
use subjects::SubjectPattern;
use values::{HostPattern, parse_port};

/// The file that [`App::load`] looks for in a folder.
pub const FILE_NAME: &str = "wasmbay.toml";

/// Bytes that a manifest may have. A service takes some 200, so this is room for thousands.
pub const MAX_FILE: u64 = 1 << 20;

/// Stands for a number of replicas that is not given, while a manifest is read.
const AS_WIRES: u8 = 0;

/// Characters that the name of an app or service may have, as in a DNS label.
const MAX_NAME: usize = 63;

/// A named set of services, wires and routes, as a manifest describes it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct App {
    /// The app's name: one token of a NATS subject.
    pub name: String,
    /// The folder of the manifest.
    pub root: PathBuf,
    /// The services by name; never empty.
    pub services: BTreeMap<String, ServiceSpec>,
    /// Who answers which interface, where that was stated.
    pub wires: Vec<Wire>,
    /// Subjects whose raw messages are stored.
    pub streams: Vec<StreamSpec>,
    /// What the gateway serves.
    pub routes: Vec<Route>,
    /// Where and how the gateway listens.
    pub gateway: GatewaySpec,
}

/// A component under a name, with its configuration, limits and grants.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpec {
    /// The service's name: a kebab-case label of at most 63 characters.
    pub name: String,
    /// A guest's folder or a `.wasm` file.
    pub component: PathBuf,
    /// What `wasi:config` gives the component.
    pub config: BTreeMap<String, String>,
    /// What the service may use.
    pub limits: Limits,
    /// Calls that one instance serves; 1 means a fresh instance for each. See [`keys::REUSE`].
    pub reuse: u32,
    /// What the component may reach outside its sandbox.
    pub grants: Grants,
}

/// What a service may use; the defaults and ranges are the constants of [`keys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory of one instance.
    pub memory: u64,
    /// Elements of all tables of one instance.
    pub tables: u32,
    /// Core instances in one instance.
    pub instances: u32,
    /// Time that one call may take.
    pub timeout: Duration,
    /// Calls worked on at the same time.
    pub concurrency: u32,
    /// Time that a call waits for its turn.
    pub wait: Duration,
    /// Calls that may wait at the same time.
    pub queue: u32,
    /// Bytes of a call's arguments, and of its result.
    pub message: usize,
    /// Services that a call may have passed through.
    pub hops: u8,
}

/// The data that a component may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValueGrant {
    /// Servers that keep a copy.
    pub replicas: u8,
    /// Bytes of all of it.
    pub size: u64,
}

/// What a component may reach; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Hosts that outgoing HTTP may reach.
    pub http: Vec<HostPattern>,
    /// What it may keep, if it may keep data.
    pub keyvalue: Option<KeyValueGrant>,
    /// Subjects on which raw messages may be published.
    pub publish: Vec<SubjectPattern>,
    /// Subjects on which raw messages are heard; no two of them overlap.
    pub subscribe: Vec<SubjectPattern>,
    /// Those among them that streams of the app store.
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

    /// Whether publishing a raw message on `subject` is granted.
    #[must_use]
    pub fn allows_publish(&self, subject: &str) -> bool {
        self.publish.iter().any(|pattern| pattern.matches(subject))
    }

    /// Whether hearing raw messages on `subject` is granted.
    #[must_use]
    pub fn allows_subscribe(&self, subject: &str) -> bool {
        self.subscribe
            .iter()
            .any(|pattern| pattern.matches(subject))
    }
}

/// The choice of who answers an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The interface; without a version, all of its versions.
    pub interface: InterfaceId,
    /// Who answers.
    pub provider: Provider,
}

/// Who answers an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The service of that name.
    Service(String),
    /// Something that is not in this app.
    External,
    /// Nobody: what is imported are events, which every service that exports the interface hears.
    Events(Box<EventSpec>),
}

/// One entry of the gateway's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method; none means every method, which is so exactly for [`Target::Http`].
    pub method: Option<String>,
    /// The path as it was typed; see [`Route::patterns`].
    pub path: String,
    /// What answers.
    pub target: Target,
}

/// What answers a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A function, called with what the request holds.
    Function {
        /// The function; its version may be absent.
        function: FunctionId,
        /// Parameters that come from the query string although the method has a body.
        query: Vec<String>,
        /// The status of a result, when it is not the usual one.
        status: Option<u16>,
        /// The status of each error case; `*` stands for those not named.
        errors: BTreeMap<String, u16>,
    },
    /// A component that exports `wasi:http/incoming-handler`, below a prefix.
    Http {
        /// The service.
        service: String,
    },
}

/// Where and how the gateway listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySpec {
    /// `host:port`; none leaves it to the command line.
    pub listen: Option<String>,
    /// `host:port` of the admin address; none leaves it to the command line.
    pub admin: Option<String>,
    /// Which functions have an RPC path.
    pub rpc: RpcPaths,
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of a request's line and headers.
    pub header: usize,
    /// Time from a request's first byte to the last of its answer.
    pub timeout: Duration,
    /// Connections open at the same time.
    pub connections: u32,
    /// Those among them that one peer may have.
    pub peer_connections: u32,
}

/// Which functions have an RPC path at the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RpcPaths {
    /// All that the app's services export or need.
    #[default]
    All,
    /// None.
    None,
    /// Those of these interfaces; one without a version stands for all of its versions.
    Of(Vec<InterfaceId>),
}

impl RpcPaths {
    /// Whether the functions of this interface have one.
    #[must_use]
    pub fn include(&self, interface: &InterfaceId) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Of(these) => these.iter().any(|these| interface.answers_to(these)),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: keys::MEMORY.default,
            tables: keys::TABLES.default,
            instances: keys::INSTANCES.default,
            timeout: keys::TIMEOUT.default,
            concurrency: keys::CONCURRENCY.default,
            wait: keys::WAIT.default,
            queue: keys::QUEUE.default,
            message: bytes(keys::MESSAGE.default),
            hops: keys::HOPS.default,
        }
    }
}

impl Default for GatewaySpec {
    fn default() -> Self {
        Self {
            listen: None,
            admin: None,
            rpc: RpcPaths::All,
            body: bytes(keys::BODY.default),
            header: bytes(keys::HEADER.default),
            timeout: keys::REQUEST.default,
            connections: keys::CONNECTIONS.default,
            peer_connections: half(keys::CONNECTIONS.default),
        }
    }
}

/// A size as memory is counted. Saturates, which changes nothing: the largest size that is held in
/// one piece is 64 MiB.
fn bytes(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// The connections that one peer may have of so many, unless told otherwise.
fn half(connections: u32) -> u32 {
    connections.div_ceil(2)
}

/// Why a manifest was refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was read and refused. One problem a line.
    #[error("{}", lines(.0))]
    Refused(Vec<Problem>),
}

/// One thing that is wrong in a manifest, and what would be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The manifest.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong with which key, and what it accepts.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            message,
        } = self;
        write!(f, "{}:{line}:{column}: {message}", file.display())
    }
}

fn lines(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(Problem::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Finds the component that a manifest names, or tells that there is none.
type Find<'a> = &'a dyn Fn(&Path) -> Option<PathBuf>;

impl App {
    /// Servers that keep a copy of what the whole app shares: as many as of the wire or stream that has
    /// the most.
    #[must_use]
    pub fn replicas(&self) -> u8 {
        let of_wire = |wire: &Wire| match &wire.provider {
            Provider::Events(spec) => spec.durable.as_ref().map(|durable| durable.replicas),
            Provider::Service(_) | Provider::External => None,
        };
        let of_streams = self.streams.iter().map(|spec| spec.durable.replicas);
        let of_wires = self.wires.iter().filter_map(of_wire);
        let most = of_wires.chain(of_streams).max();
        most.unwrap_or(keys::REPLICAS.default)
    }

    /// Reads and checks a manifest, or the `wasmbay.toml` of a folder.
    ///
    /// # Errors
    ///
    /// The file cannot be read, has more than [`MAX_FILE`] bytes or is refused; then the error
    /// has every problem that was found.
    pub fn load(path: &Path) -> Result<Self, ManifestError> {
        let path = if path.is_dir() {
            path.join(FILE_NAME)
        } else {
            path.to_owned()
        };
        let text = read_text(&path).map_err(|source| ManifestError::Read {
            path: path.clone(),
            source,
        })?;
        let find = |component: &Path| component.canonicalize().ok();
        let mut app = Self::check(&path, &text, &find)?;
        // Only to make the root independent of later changes of directory; failing leaves it as good.
        app.root = app.root.canonicalize().unwrap_or(app.root);
        Ok(app)
    }

    /// Checks a manifest's text. Paths are resolved against the folder of `path`, and whether
    /// something is there is left open.
    ///
    /// # Errors
    ///
    /// The text is refused; the error has every problem that was found.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ManifestError> {
        Self::check(path, text, &|component| Some(component.to_owned()))
    }

    fn check(path: &Path, text: &str, find: Find<'_>) -> Result<Self, ManifestError> {
        let root = match path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let file = ManifestFile::new(path, text);
        let document = file.document();
        // A file that is no TOML would report its missing parts as well, and mislead.
        let app = if file.clean() {
            read_app(&file, &document, root, find)
        } else {
            None
        };
        match app {
            Some(app) if file.clean() => Ok(app),
            _ => Err(ManifestError::Refused(file.into_problems())),
        }
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = std::fs::File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read <= MAX_FILE) {
        Ok(text)
    } else {
        let size = values::size_text(MAX_FILE);
        Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {size}"),
        ))
    }
}

fn read_app<'f>(
    file: &'f ManifestFile<'f>,
    document: &'f toml::de::DeTable<'f>,
    root: PathBuf,
    find: Find<'_>,
) -> Option<App> {
    let top = Section::top(file, document, &keys::APP);
    let is_name = |text: &str| {
        (1..=MAX_NAME).contains(&text.len())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    let name = top.required("name", top.text_that("name", is_name));

    let sections = top.named("service", &keys::SERVICE);
    // Names of services count as declared even if the service itself is refused, so that one
    // mistake is one message.
    let declared: Vec<&str> = sections.iter().map(|(name, _)| name.value).collect();
    if document
        .get("service")
        .is_none_or(|all| all.get_ref().as_table().is_some_and(|t| t.is_empty()))
    {
        let at = top.place("service").unwrap_or_default();
        top.report(
            at,
            "there is no service; add one: `[service.NAME]` with `component = \"…\"`",
        );
    }
    let app = name.as_ref().map_or("", |name| name.value);
    let streams = streams::read(&top, app, &declared);
    let services = sections
        .iter()
        .filter_map(|(name, section)| {
            if !is_label(name.value) || name.value.len() > MAX_NAME {
                section.report(name.at, format!(
                    "this is no name of a service; accepted: words of letters and digits joined by `-`, starting with \
                     a letter, at most {MAX_NAME} characters"
                ));
            }
            Some((name.value.to_owned(), read_service(name.value, section, &root, &streams, find)?))
        })
        .collect();
    let wires = read_wires(&top, &declared);
    let routes = routes::read(file, &top, &declared);
    let gateway = top
        .section("gateway", &keys::GATEWAY)
        .map_or_else(GatewaySpec::default, |s| read_gateway(&s));
    let mut app = App {
        name: name?.value.to_owned(),
        root,
        services,
        wires,
        streams,
        routes,
        gateway,
    };
    let replicas = app.replicas();
    let data = app.services.values_mut();
    for data in data.filter_map(|spec| spec.grants.keyvalue.as_mut()) {
        if data.replicas == AS_WIRES {
            data.replicas = replicas;
        }
    }
    Some(app)
}

fn read_service(
    name: &str,
    section: &Section<'_>,
    root: &Path,
    streams: &[StreamSpec],
    find: Find<'_>,
) -> Option<ServiceSpec> {
    let typed = section.required(
        "component",
        section.text_that("component", |path| !path.is_empty()),
    );
    let component = typed.and_then(|typed| {
        let path = root.join(typed.value);
        let found = find(&path);
        if found.is_none() {
            section.report(typed.at, format!(
                "`component`: there is nothing at {}; accepted: a guest's folder or a `.wasm` file",
                path.display()
            ));
        }
        found
    });
    let config = section.entries("config", plain_text);
    let config = config
        .into_iter()
        .map(|(key, value)| (key.value.to_owned(), value))
        .collect();
    let limits = section
        .section("limits", &keys::LIMITS)
        .map_or_else(Limits::default, |s| read_limits(&s));
    let reuse = section.count("reuse", keys::REUSE);
    let grants = section
        .section("grants", &keys::GRANTS)
        .map_or_else(Grants::default, |s| read_grants(&s, streams));
    Some(ServiceSpec {
        name: name.to_owned(),
        component: component?,
        config,
        limits,
        reuse,
        grants,
    })
}

fn read_limits(section: &Section<'_>) -> Limits {
    Limits {
        memory: section.size("memory", keys::MEMORY),
        tables: section.count("tables", keys::TABLES),
        instances: section.count("instances", keys::INSTANCES),
        timeout: section.duration("timeout", keys::TIMEOUT),
        concurrency: section.count("concurrency", keys::CONCURRENCY),
        wait: section.duration("wait", keys::WAIT),
        queue: section.count("queue", keys::QUEUE),
        message: bytes(section.size("message", keys::MESSAGE)),
        hops: section.count("hops", keys::HOPS),
    }
}

fn read_grants(section: &Section<'_>, streams: &[StreamSpec]) -> Grants {
    let subscribe: Vec<SubjectPattern> = read_granted(section, "subscribe");
    for (i, one) in subscribe.iter().enumerate() {
        // NATS would deliver a message to each of the two.
        if let Some(other) = subscribe.iter().take(i).find(|other| one.overlaps(other)) {
            section.report(
                section.place("subscribe").unwrap_or_default(),
                format!("`subscribe`: `{other}` and `{one}` overlap, the service would get a message of both twice"),
            );
        }
    }
    let publish = read_granted(section, "publish");
    Grants {
        http: read_granted(section, "http"),
        keyvalue: read_keyvalue(section),
        stored: streams::granted(section, streams, &publish, &subscribe),
        publish,
        subscribe,
    }
}

fn read_keyvalue(section: &Section<'_>) -> Option<KeyValueGrant> {
    let all = KeyValueGrant {
        replicas: AS_WIRES,
        size: keys::DATA_SIZE.default,
    };
    if !section.is_table("keyvalue") {
        let granted = section.choice("keyvalue").is_some_and(|yes| yes.value);
        return granted.then_some(all);
    }
    let table = section.section("keyvalue", &keys::KEYVALUE)?;
    let replicas = keys::Bounds {
        default: all.replicas,
        ..keys::REPLICAS
    };
    Some(KeyValueGrant {
        replicas: table.count("replicas", replicas),
        size: table.size("size", keys::DATA_SIZE),
    })
}

fn read_granted<T: FromStr<Err: fmt::Display>>(section: &Section<'_>, key: &str) -> Vec<T> {
    let read = |typed: file::At<&str>| match typed.value.parse() {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            section.report(typed.at, format!("`{key}`: {error}"));
            None
        }
    };
    section.texts(key).into_iter().filter_map(read).collect()
}

fn read_gateway(section: &Section<'_>) -> GatewaySpec {
    let is_address = |text: &str| {
        let host_of = |(host, port)| parse_port(port).map(|_: u16| host);
        text.rsplit_once(':')
            .and_then(host_of)
            .is_some_and(|host: &str| {
                !host.is_empty()
                    && !host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@'))
            })
    };
    let address = |key| {
        let typed = section.text_that(key, is_address);
        typed.map(|typed| typed.value.to_owned())
    };
    let connections = section.count("connections", keys::CONNECTIONS);
    let peer = keys::Bounds {
        default: half(connections),
        ..keys::CONNECTIONS
    };
    GatewaySpec {
        listen: address("listen"),
        admin: address("admin"),
        rpc: read_rpc(section),
        body: bytes(section.size("body", keys::BODY)),
        header: bytes(section.size("header", keys::HEADER)),
        timeout: section.duration("timeout", keys::REQUEST),
        connections,
        peer_connections: section.count("peer-connections", peer),
    }
}

fn read_rpc(section: &Section<'_>) -> RpcPaths {
    if section.is_array("rpc") {
        return RpcPaths::Of(read_granted(section, "rpc"));
    }
    match section.choice("rpc") {
        Some(yes) if !yes.value => RpcPaths::None,
        _ => RpcPaths::All,
    }
}

fn read_wires(top: &Section<'_>, declared: &[&str]) -> Vec<Wire> {
    let mut wires: Vec<Wire> = Vec::new();
    for (name, section) in top.named("wire", &keys::WIRE) {
        let mode = section.text_that("mode", |mode| matches!(mode, "call" | "event"));
        let provider = match mode {
            Some(mode) if mode.value == "event" => Some(events::read(&section, declared)),
            None if section.place("mode").is_some() => None,
            _ => read_provider(&section, declared),
        };
        let interface: InterfaceId = match name.value.parse() {
            Ok(interface) => interface,
            Err(error) => {
                section.report(name.at, error.to_string());
                continue;
            }
        };
        let meets = |other: &&Wire| {
            interface.answers_to(&other.interface) || other.interface.answers_to(&interface)
        };
        if let Some(other) = wires.iter().find(meets) {
            section.report(
                name.at,
                format!(
                    "`{}` is wired already; keep one of the two",
                    other.interface
                ),
            );
        }
        wires.extend(provider.map(|provider| Wire {
            interface,
            provider,
        }));
    }
    wires
}

/// Reads a wire for calls.
fn read_provider(section: &Section<'_>, declared: &[&str]) -> Option<Provider> {
    for key in events::KEYS {
        if let Some(at) = section.place(key) {
            section.report(
                at,
                format!("`{key}` is for events; accepted: with `mode = \"event\"`"),
            );
        }
    }
    let service = section.text("service");
    let external = section.truth("external");
    match (section.place("service"), section.place("external")) {
        (Some(_), None) => service.map(|service| {
            check_service(section, service, declared);
            Provider::Service(service.value.to_owned())
        }),
        (None, Some(_)) => external.map(|_| Provider::External),
        _ => {
            section.report_here(
                "accepted: either `service = \"…\"`, `external = true` or `mode = \"event\"`",
            );
            None
        }
    }
}

/// Reports the name of a service that the manifest does not declare.
fn check_service(section: &Section<'_>, name: file::At<&str>, declared: &[&str]) {
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

#[cfg(test)]
mod tests;
