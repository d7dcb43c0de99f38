//! A gateway that several apps share: the app of a request is found by the name of the host that the
//! request is for, then by its path, and the app's own [`Gateway`] does the rest.
//!
//! What concerns connections is the host's own: their number, their idle time, the size of headers.
//! What concerns a request is its app's: routes, RPC paths, the size of the body, the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use http::header::{CONNECTION, HOST};
use http::{HeaderMap, Method, StatusCode, Version};
use matchit::Router;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::answer::{Answer, Refusal, json, to_json};
use super::connection::{self, Activity, Answers, CLOSE, Received, Running, Tasks};
use super::followers::Followers;
use super::health::{healthz, readyz};
use super::places::Places;
use super::rate::Told;
use super::request::without_body;
use super::route::{self, Destination, Own, Table};
use super::sender::Sender;
use super::tls::{self, Tls};
use super::trace::{REQUEST_ID, id_of};
use super::{Front, Gateway, accept, grpc};
use crate::interfaces::Backend;
use crate::manifest::{App, GatewaySpec, Route};
use crate::nats::Link;
use crate::telemetry;

/// An app behind a shared gateway.
#[derive(Clone)]
pub(crate) struct Mount {
    app: Arc<App>,
    gateway: Arc<Gateway>,
    /// Ways to services, over one connection each.
    ways: Vec<(Arc<dyn Backend>, Link)>,
}

impl Mount {
    /// An app whose gateway listens nowhere by itself.
    pub(crate) fn new(app: &App, gateway: Gateway, ways: Vec<(Arc<dyn Backend>, Link)>) -> Self {
        Self {
            app: Arc::new(app.clone()),
            gateway: Arc::new(gateway),
            ways,
        }
    }

    /// Has requests that run end, and says so to who asks whether the app is ready.
    pub(crate) fn close(&self) {
        self.gateway.close();
    }

    /// The way from the thread of this number.
    fn way(&self, thread: usize) -> Option<&(Arc<dyn Backend>, Link)> {
        self.ways.get(thread.checked_rem(self.ways.len())?)
    }
}

/// A gateway for any number of apps.
pub(crate) struct SharedGateway {
    spec: GatewaySpec,
    mounts: RwLock<Arc<Mounts>>,
    closing: watch::Sender<bool>,
    /// The host is to run nothing, so requests are better sent to another one.
    drained: AtomicBool,
    places: Arc<Places>,
    /// Room for clients that follow events of any app.
    followers: Arc<Followers>,
    /// Room for clients that follow health.
    watchers: Arc<Followers>,
    /// There are other apps than before.
    changed: Notify,
    tls: Option<Arc<Tls>>,
}

/// The apps of one time, immutable.
#[derive(Default)]
struct Mounts {
    by_app: BTreeMap<String, Mount>,
    /// The apps that name hosts, by name.
    by_host: BTreeMap<String, Group>,
    /// Those that name none, for all other requests.
    others: Group,
}

/// The apps that answer under the same name.
#[derive(Default)]
struct Group {
    apps: BTreeSet<String>,
    /// The apps with a route of this path, which may be of other methods.
    paths: Router<Vec<String>>,
}

impl Group {
    fn of(mounts: &[&Mount]) -> Self {
        let mut patterns: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mount in mounts {
            for pattern in mount.app.routes.iter().flat_map(Route::patterns) {
                let pattern = route::normalized(&pattern).into_owned();
                let apps = patterns.entry(pattern).or_default();
                if !apps.contains(&mount.app.name) {
                    apps.push(mount.app.name.clone());
                }
            }
        }
        let mut paths: Router<Vec<String>> = Router::new();
        for (pattern, apps) in patterns {
            match paths.insert(&pattern, apps.clone()) {
                Ok(()) => {}
                // The same path with parameters of other names.
                Err(matchit::InsertError::Conflict { with }) => {
                    if let Ok(known) = paths.at_mut(&with) {
                        known.value.extend(apps);
                    }
                }
                Err(error) => tracing::debug!(pattern, %error, "not inserted"),
            }
        }
        Self {
            apps: mounts.iter().map(|mount| mount.app.name.clone()).collect(),
            paths,
        }
    }
}

impl Mounts {
    fn new(by_app: BTreeMap<String, Mount>) -> Self {
        let mut names: BTreeMap<String, Vec<&Mount>> = BTreeMap::new();
        let mut unnamed = Vec::new();
        for mount in by_app.values() {
            let hosts = &mount.app.gateway.hosts;
            if hosts.is_empty() {
                unnamed.push(mount);
            }
            for host in hosts {
                names.entry(host.clone()).or_default().push(mount);
            }
        }
        let named = names.into_iter();
        let by_host = named.map(|(name, mounts)| (name, Group::of(&mounts)));
        Self {
            by_host: by_host.collect(),
            others: Group::of(&unnamed),
            by_app,
        }
    }

    fn group(&self, host: &str) -> &Group {
        self.by_host.get(host).unwrap_or(&self.others)
    }

    /// The apps that may answer this request, the likeliest first.
    fn candidates(&self, host: &str, path: &str) -> impl Iterator<Item = &Mount> {
        let group = self.group(host);
        let of_path = group.paths.at(path).map(|found| found.value.as_slice());
        let of_path = of_path.unwrap_or_default();
        let others = group.apps.iter().filter(move |app| !of_path.contains(app));
        let names = of_path.iter().chain(others);
        names.filter_map(|app| self.by_app.get(app))
    }

    /// The app that answers this request; another one of the same name, whose refusal says why none
    /// does; nothing if there is no app.
    fn find(&self, host: &str, method: &Method, headers: &HeaderMap, path: &str) -> Option<&Mount> {
        let with = |has: &dyn Fn(&Gateway, &Table) -> bool| {
            let mut candidates = self.candidates(host, path);
            candidates.find(|Mount { gateway, .. }| {
                let table = gateway.table();
                table.is_some_and(|table| has(gateway, &table))
            })
        };
        // A method is its app's alone, whatever paths an HTTP component of another one takes.
        let is_grpc = grpc::is_grpc(headers) || grpc::is_preflight(method, headers);
        let of_method =
            is_grpc.then(|| with(&|gateway, table| gateway.api(table).method(path).is_some()));
        of_method
            .flatten()
            .or_else(|| {
                with(&|_, table| !matches!(table.find(method, path), Destination::Refused(_)))
            })
            .or_else(|| self.candidates(host, path).next())
    }
}

/// The body of `/readyz` where several apps are asked.
#[derive(Serialize)]
struct Readiness<'a> {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    apps: BTreeMap<&'a str, bool>,
}

impl SharedGateway {
    /// A gateway without apps.
    pub(crate) fn new(tls: Option<Tls>) -> Self {
        let spec = GatewaySpec::default();
        Self {
            mounts: RwLock::default(),
            closing: watch::Sender::new(false),
            drained: AtomicBool::new(false),
            places: Arc::new(Places::new(
                spec.connections as usize,
                spec.peer_connections as usize,
            )),
            followers: Arc::new(Followers::new("events", &spec)),
            watchers: Arc::new(Followers::new("health", &spec)),
            spec,
            changed: Notify::new(),
            tls: tls.map(Arc::new),
        }
    }

    /// Puts an app behind the gateway, or another version of it.
    pub(crate) fn mount(&self, mount: Mount) {
        self.change(|by_app| by_app.insert(mount.app.name.clone(), mount));
    }

    /// Takes an app away.
    pub(crate) fn unmount(&self, app: &str) {
        let gone = self.change(|by_app| by_app.remove(app));
        if let Some(gone) = gone {
            gone.close();
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<String, Mount>) -> T) -> T {
        let mut mounts = self.mounts.write().unwrap_or_else(PoisonError::into_inner);
        let mut by_app = mounts.by_app.clone();
        let changed = change(&mut by_app);
        *mounts = Arc::new(Mounts::new(by_app));
        self.changed.notify_one();
        changed
    }

    /// Looks after the keys of all apps' clients.
    async fn keep(&self) {
        let mut keepers = JoinSet::new();
        if let Some(certificates) = self.tls.as_ref().and_then(Tls::keeper) {
            keepers.spawn(certificates);
        }
        loop {
            for mount in self.mounts().by_app.values() {
                if let Some(keeper) = mount.gateway.authenticator.keeper() {
                    keepers.spawn(keeper);
                }
            }
            tokio::select! {
                () = self.changed.notified() => {}
                // Its app has gone.
                Some(_) = keepers.join_next() => {}
            }
        }
    }

    fn mounts(&self) -> Arc<Mounts> {
        let mounts = self.mounts.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&mounts)
    }

    /// The scheme of its addresses.
    pub(crate) fn scheme(&self) -> &'static str {
        tls::scheme(self.tls.as_deref())
    }

    /// Stops taking connections; see [`Gateway::close`].
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
        for mount in self.mounts().by_app.values() {
            mount.close();
        }
    }

    /// Has `/readyz` say whether the host is drained. It answers requests all the same.
    pub(crate) fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }

    /// Why no request should be sent here, whatever the apps say.
    fn unready(&self) -> Option<&'static str> {
        match self.is_closing() {
            true => Some("shutting down"),
            false => self.drained.load(Ordering::Relaxed).then_some("drained"),
        }
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Accepts and serves connections on the thread of this number; see [`Gateway::serve`].
    pub(crate) async fn serve(self: Arc<Self>, listener: std::net::TcpListener, thread: usize) {
        let closing = self.closing.subscribe();
        let (header, places) = (self.spec.header, Arc::clone(&self.places));
        let (gateway, tls) = (Arc::clone(&self), self.tls.clone());
        let begin = move |tasks: Weak<Tasks>| {
            let builder = connection::builder(header, Weak::clone(&tasks));
            let front = SharedFront {
                gateway,
                thread,
                tasks,
            };
            (front, builder)
        };
        let serving = accept::serve("the gateway", listener, closing, places, tls, begin);
        if thread > 0 {
            return serving.await;
        }
        tokio::select! {
            () = serving => {}
            // It has no end.
            () = self.keep() => {}
        }
    }
}

/// A shared gateway on one thread.
struct SharedFront {
    gateway: Arc<SharedGateway>,
    thread: usize,
    tasks: Weak<Tasks>,
}

impl SharedFront {
    /// The front of one app on this thread.
    fn of(&self, mount: &Mount) -> Option<Front> {
        let (backend, link) = mount.way(self.thread)?;
        Some(Front {
            gateway: Arc::clone(&mount.gateway),
            backend: Arc::clone(backend),
            link: link.clone(),
            tasks: Weak::clone(&self.tasks),
            followers: Arc::clone(&self.gateway.followers),
        })
    }

    /// Whether the apps of this name are ready, each by itself.
    async fn readyz(&self, mounts: &Mounts, host: &str) -> Answer {
        let group = mounts.group(host);
        let reason = self.gateway.unready();
        let mut apps = BTreeMap::new();
        for mount in group.apps.iter().filter_map(|app| mounts.by_app.get(app)) {
            let Some(front) = self.of(mount) else {
                continue;
            };
            let table = mount.gateway.table();
            let answer = readyz(&mount.gateway, table.as_deref(), &front.link).await;
            if let (1, Some(_), None) = (group.apps.len(), &table, reason) {
                return answer;
            }
            apps.insert(mount.app.name.as_str(), answer.status() == StatusCode::OK);
        }
        let readiness = Readiness {
            ready: reason.is_none() && apps.values().all(|ready| *ready),
            reason,
            apps,
        };
        let status = if readiness.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        json(status, to_json(&readiness))
    }

    /// What the host itself answers: its health, and what no app is there for.
    async fn own(&self, mounts: &Mounts, host: &str, request: &Received) -> Option<Answer> {
        let path = route::normalized(request.uri().path());
        match route::own(request.method(), &path) {
            Some(Ok(Own::Healthz)) => Some(healthz()),
            Some(Ok(Own::Readyz)) => Some(Box::pin(self.readyz(mounts, host)).await),
            _ if mounts.group(host).apps.is_empty() => {
                let why = "no app of this fleet answers to this host name";
                Some(Refusal::caller(StatusCode::NOT_FOUND, why).answer())
            }
            _ => None,
        }
    }
}

impl SharedFront {
    /// What is done with every answer of the host itself.
    fn ended(&self, request: &Received, mut answer: Answer, running: Running) -> Answer {
        if request.version() < Version::HTTP_2 && self.gateway.is_closing() {
            answer.headers_mut().insert(CONNECTION, CLOSE);
        }
        if request.method() == Method::HEAD {
            answer = without_body(answer, &self.tasks);
        }
        answer.body_mut().hold(running);
        let id = id_of(request.headers());
        tracing::info!(
            target: telemetry::GATEWAY,
            method = %request.method(),
            status = grpc::http_status(&answer).as_u16(),
            id = id.to_str().unwrap_or_default(),
            "request of the host"
        );
        answer.headers_mut().insert(&REQUEST_ID, id);
        answer
    }

    /// The health of all apps of this name, also of those that are yet to come.
    fn health(&self, host: &str) -> grpc::Health {
        let (gateway, thread) = (Arc::clone(&self.gateway), self.thread);
        let host = host.to_owned();
        grpc::Health {
            closing: gateway.closing.subscribe(),
            watchers: Arc::clone(&gateway.watchers),
            apps: Box::new(move || {
                let mounts = gateway.mounts();
                let group = mounts.group(&host);
                let apps = group.apps.iter().filter_map(|app| mounts.by_app.get(app));
                let all = apps.filter_map(|mount| {
                    let (_, link) = mount.way(thread)?;
                    Some((Arc::clone(&mount.gateway), link.clone()))
                });
                grpc::Apps {
                    open: gateway.unready().is_none(),
                    all: all.collect(),
                }
            }),
        }
    }

    /// Health and reflection of all apps of this name.
    async fn own_grpc(
        &self,
        mounts: &Mounts,
        host: &str,
        own: grpc::Own,
        activity: &Arc<Activity>,
        request: &mut Received,
    ) -> Answer {
        let group = mounts.group(host);
        let mounts = group.apps.iter().filter_map(|app| mounts.by_app.get(app));
        let parts = mounts.filter_map(|mount| {
            let table = mount.gateway.table()?;
            Some((self.of(mount)?, table))
        });
        let parts: Vec<_> = parts.collect();
        let parts: Vec<_> = parts
            .iter()
            .map(|(front, table)| (front, &**table))
            .collect();
        let deadline = tokio::time::Instant::now() + self.timeout();
        let mut told = Told::new();
        let trusted = match parts.as_slice() {
            [(front, _)] => front.gateway.spec.trusted_proxies.as_ref(),
            // Whom one app trusts speaks for no other.
            _ => None,
        };
        let sender = Sender::of(activity, request.headers(), trusted);
        let mut asker = grpc::Asker {
            sender: &sender,
            activity,
            told: &mut told,
        };
        let health = self.health(host);
        let answer = grpc::answer_own(own, &parts, health, &mut asker, request, deadline);
        let mut answer = Box::pin(answer).await;
        let told = told.into_iter().map(|(name, value)| (Some(name), value));
        answer.headers_mut().extend(told);
        // Of several apps none can say alone which pages may read it.
        if let [(Front { gateway, .. }, _)] = *parts
            && let Some(cors) = &gateway.cors
        {
            let origin = cors.origin(request.headers()).cloned();
            cors.tell(origin.as_ref(), answer.headers_mut());
        }
        answer
    }
}

impl Answers for SharedFront {
    /// That of the app whose requests may take longest, since one connection may reach all of them.
    fn timeout(&self) -> Duration {
        let mounts = self.gateway.mounts();
        let apps = mounts.by_app.values();
        let longest = apps.map(|mount| mount.app.gateway.timeout).max();
        longest.unwrap_or(self.gateway.spec.timeout)
    }

    fn tasks(&self) -> &Weak<Tasks> {
        &self.tasks
    }

    async fn answer(&self, request: &mut Received, activity: &Arc<Activity>) -> Answer {
        let mounts = self.gateway.mounts();
        let host = host_of(request);
        let path = route::normalized(request.uri().path()).into_owned();
        // Also where there is no app yet: clients take what is no answer of gRPC for healthy.
        if let Some(own) = grpc::own(request.headers(), &path) {
            let running = activity.begin(tokio::time::Instant::now());
            let answer = self.own_grpc(&mounts, &host, own, activity, request);
            let answer = answer.await;
            return self.ended(request, answer, running);
        }
        if let Some(answer) = self.own(&mounts, &host, request).await {
            let running = activity.begin(tokio::time::Instant::now());
            return self.ended(request, answer, running);
        }
        let front = mounts
            .find(&host, request.method(), request.headers(), &path)
            .and_then(|mount| self.of(mount));
        match front {
            Some(front) => front.answer(request, activity).await,
            // An app without ways has no workers, and is about to go.
            None => {
                let why = "the app is not served here any more";
                let blame = crate::call::Blame::Host;
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, blame, why).answer()
            }
        }
    }
}

/// The name of the host that a request is for: in lower case, without port, brackets and final dot.
/// Whether there is a valid one is checked where requests are read.
fn host_of(request: &Received) -> String {
    let header = request.headers().get(HOST);
    let header = header.and_then(|host| host.to_str().ok());
    let text = request.uri().authority().map(http::uri::Authority::as_str);
    let text = text.or(header).unwrap_or_default();
    let host = match text.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => text.split(':').next().unwrap_or_default(),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => host.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use http::header::{
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, ORIGIN,
    };
    use http::{HeaderValue, Request};

    use super::*;
    use crate::deployment::{Current, Deployment};
    use crate::plan::{Description, plan};
    use crate::shape::InterfaceDescription;

    #[test]
    fn a_host_is_compared_without_what_does_not_name_it() {
        let host = |text: &str| {
            let request = Request::builder().uri("/x").header(HOST, text);
            host_of(&request.body(None).unwrap())
        };
        assert_eq!(host("Shop.example.com.:8080"), "shop.example.com");
        assert_eq!(host("[0:0::1]:80"), "::1");
        assert_eq!(host("127.0.0.1:8080"), "127.0.0.1");
        assert_eq!(host(""), "");
    }

    fn apps(found: &Group, path: &str) -> Vec<String> {
        found
            .paths
            .at(path)
            .map(|found| found.value.clone())
            .unwrap_or_default()
    }

    fn mount(name: &str, lines: &str) -> Mount {
        let text = format!("name = \"{name}\"\n[service.x]\ncomponent = \"x.wasm\"\n{lines}");
        let app = crate::manifest::Manifest::parse("wasmbay.toml".as_ref(), &text)
            .unwrap()
            .app;
        let gateway = Gateway::new(name, app.gateway.clone(), Arc::default());
        Mount::new(&app, gateway, Vec::new())
    }

    #[test]
    fn an_app_is_found_by_name_and_path() {
        let route = |method: &str, path: &str| {
            format!("[[route]]\nmethod = \"{method}\"\npath = \"{path}\"\ncall = \"a:b/c.d\"\n")
        };
        let mounts = [
            mount("shop", &route("GET", "/p/{sku}")),
            mount("bank", &(route("POST", "/p/{id}") + &route("GET", "/q"))),
            mount("site", "[gateway]\nhosts = [\"example.com\"]\n"),
        ];
        let by_app = mounts.map(|mount| (mount.app.name.clone(), mount));
        let mounts = Mounts::new(by_app.into());
        assert_eq!(apps(mounts.group("other.com"), "/p/1"), ["bank", "shop"]);
        assert_eq!(apps(mounts.group("other.com"), "/q"), ["bank"]);
        assert!(mounts.group("example.com").apps.contains("site"));
        let names: Vec<_> = mounts
            .candidates("other.com", "/q")
            .map(|mount| mount.app.name.as_str())
            .collect();
        assert_eq!(names, ["bank", "shop"]);
    }

    /// An app that is deployed: `export` of the service `x`, which answers HTTP itself where there is none.
    fn deployed(name: &str, export: Option<&str>, lines: &str) -> Mount {
        let mount = mount(name, lines);
        let exports = export.map(|id| InterfaceDescription {
            id: id.parse().unwrap(),
            functions: [("f".to_owned(), "func()".parse().unwrap())].into(),
            types: BTreeMap::new(),
        });
        let component = Description {
            http: export.is_none(),
            exports: exports.into_iter().collect(),
            ..Description::default()
        };
        let components = BTreeMap::from([("x".to_owned(), component)]);
        let plan = plan(&mount.app, &components).unwrap();
        let deployment = Deployment::new(&mount.app, plan, BTreeMap::new());
        let current = Arc::new(Current::default());
        current.swap(deployment.described_by(components));
        let gateway = Gateway::new(name, mount.app.gateway.clone(), current);
        Mount::new(&mount.app, gateway, Vec::new())
    }

    #[test]
    fn a_method_of_grpc_is_its_apps_also_where_a_component_takes_all_paths() {
        let mounts = [
            deployed("all", None, "[[route]]\npath = \"/*\"\nservice = \"x\"\n"),
            deployed("shop", Some("a:b/c@1.0.0"), ""),
        ];
        let by_app = mounts.map(|mount| (mount.app.name.clone(), mount));
        let mounts = Mounts::new(by_app.into());
        let found = |kind: &'static str, path| {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(kind))];
            let headers = headers.into_iter().collect();
            let found = mounts.find("any", &Method::POST, &headers, path);
            found.unwrap().app.name.as_str()
        };
        assert_eq!(found("application/grpc", "/a.b.v1.C/F"), "shop");
        assert_eq!(found("application/grpc", "/a.b.v1.C/G"), "all");
        assert_eq!(found("application/json", "/a.b.v1.C/F"), "all");
        // What a browser asks before has no content type.
        let asked = [
            (ORIGIN, "https://app.example"),
            (ACCESS_CONTROL_REQUEST_METHOD, "POST"),
            (ACCESS_CONTROL_REQUEST_HEADERS, "content-type,x-grpc-web"),
        ];
        let asked = asked.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let asked = asked.into_iter().collect();
        let found = mounts.find("any", &Method::OPTIONS, &asked, "/a.b.v1.C/F");
        assert_eq!(found.unwrap().app.name, "shop");
    }

    #[tokio::test]
    async fn what_the_host_answers_itself_has_an_id() {
        let gateway = Arc::new(SharedGateway::new(None));
        let front = SharedFront {
            gateway: Arc::clone(&gateway),
            thread: 0,
            tasks: Weak::new(),
        };
        gateway.mount(mount("shop", ""));
        let peer = std::net::Ipv4Addr::LOCALHOST.into();
        let activity = Activity::new(peer, tokio::time::Instant::now(), false);
        let activity = Arc::new(activity);
        for (method, path) in [
            ("GET", "/healthz"),
            ("POST", "/grpc.health.v1.Health/Check"),
        ] {
            let ask = |id: Option<&str>| {
                let request = Request::builder().method(method).uri(path);
                let mut request = request.version(Version::HTTP_2);
                request = request.header(CONTENT_TYPE, "application/grpc");
                if let Some(id) = id {
                    request = request.header(&REQUEST_ID, id);
                }
                request.body(None).unwrap()
            };
            let answer = front.answer(&mut ask(Some("mine")), &activity).await;
            assert_eq!(answer.headers()[&REQUEST_ID], "mine", "{path}");
            let answer = front.answer(&mut ask(None), &activity).await;
            assert_eq!(answer.headers()[&REQUEST_ID].len(), 32, "{path}");
        }
        assert!(activity.idle_since().is_some());
    }
}
