//! What operators ask of the fleet at a node's admin address: deploys and other changes of apps, and drains of
//! hosts. Each does what the verb of its name does, and answers once that is written; how far it is, `/apps` and
//! `/hosts` say.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::Shared;
use super::super::driver::now;
use super::parts::{Parts, boundary};
use super::{is_name, no_app, refused};
use crate::admin::query::{Query, bad};
use crate::call::Blame;
use crate::fleet::{
    Kept, Offer, Proposal, ProposalError, Revision, Signed, Specs, StoreError, breaks_of, changed,
    next, next_in_shares, scaled, target,
};
use crate::gateway::answer::{Answer, Refusal, json as answer_json, to_json};
use crate::gateway::connection::Received;
use crate::gateway::request::read_body;
use crate::interface::is_label;
use crate::manifest::{App, Digest, Manifest, Replicas};
use crate::plan::Description;
use crate::runtime::{Component, MAX_BYTES};
use crate::text::one_line;

/// Bytes of a manifest.
const MAX_MANIFEST: usize = 1 << 20;

/// Bytes of a message.
const MAX_MESSAGE: usize = 1 << 10;

/// The part of a deploy that has the manifest. No service can be called so and be deployed here.
const MANIFEST: &str = "manifest";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order<'p> {
    Deploy(&'p str),
    DeployService(&'p str, &'p str),
    Scale(&'p str),
    Rollback(&'p str),
    Undeploy(&'p str),
    Drain(&'p str),
    Uncordon(&'p str),
}

impl<'p> Order<'p> {
    /// The order of a path, whatever its method.
    pub(super) fn find(path: &'p str) -> Option<Self> {
        let segments: Vec<_> = path.split('/').skip(1).collect();
        Some(match *segments {
            ["apps", app, "deploy"] => Self::Deploy(app),
            ["apps", app, "deploy", service] => Self::DeployService(app, service),
            ["apps", app, "scale"] => Self::Scale(app),
            ["apps", app, "rollback"] => Self::Rollback(app),
            ["apps", app, "undeploy"] => Self::Undeploy(app),
            ["hosts", host, "drain"] => Self::Drain(host),
            ["hosts", host, "uncordon"] => Self::Uncordon(host),
            _ => return None,
        })
    }

    /// Whether it takes as long as compiling components does.
    pub(super) fn is_long(self) -> bool {
        matches!(self, Self::Deploy(_) | Self::DeployService(..))
    }
}

/// How a deploy is to be done.
#[derive(Default)]
struct How {
    dry_run: bool,
    force: bool,
    at_once: bool,
}

/// Who does what is asked.
pub(super) struct Orders<'a> {
    pub(super) shared: &'a Shared,
}

impl Orders<'_> {
    /// Does what is asked; what the login of this host may not do is refused at once.
    pub(super) async fn take(
        &self,
        order: Order<'_>,
        request: &mut Received,
    ) -> Result<Answer, Refusal> {
        if *request.method() != Method::POST {
            return Err(crate::gateway::route::not_allowed("POST"));
        }
        let violations = self.shared.nats.violations.clone();
        let done = violations.guard(
            |refusal| refusal.subject.contains("bay-fleet"),
            self.do_it(order, request),
        );
        done.await.unwrap_or_else(|refusal| {
            let why = format!("{refusal}, as a host that changes what is deployed has to");
            Err(Refusal::new(StatusCode::FORBIDDEN, Blame::Host, why))
        })
    }

    async fn do_it(&self, order: Order<'_>, request: &mut Received) -> Result<Answer, Refusal> {
        let uri = request.uri().clone();
        let query = Query::new(uri.query());
        match order {
            Order::Deploy(app) => self.deploy(app, request, &query).await,
            Order::DeployService(app, service) => {
                self.deploy_service(app, service, request, &query).await
            }
            _ => {
                read_body(request.body_mut(), 0).await?;
                match order {
                    Order::Scale(app) => self.scale(app, &query).await,
                    Order::Rollback(app) => self.roll_back(app, &query).await,
                    Order::Undeploy(app) => self.undeploy(app, &query).await,
                    Order::Drain(host) => self.drain(host, &query).await,
                    Order::Uncordon(host) => self.uncordon(host, &query).await,
                    Order::Deploy(_) | Order::DeployService(..) => Err(no_app()),
                }
            }
        }
    }

    /// All of an app: its manifest, and the components of its services, of which those that stay as they are
    /// deployed may be left out.
    async fn deploy(
        &self,
        app: &str,
        request: &mut Received,
        query: &Query<'_>,
    ) -> Result<Answer, Refusal> {
        let (how, signed) = self.how(query)?;
        let content_type = request.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let boundary = boundary(content_type.unwrap_or_default()).ok_or_else(|| {
            let why = "the body must be a form (Content-Type: multipart/form-data) with the part `manifest` first, and a part for each component, called like its service";
            Refusal::caller(StatusCode::UNSUPPORTED_MEDIA_TYPE, why)
        })?;
        let boundary = boundary.to_owned();
        let Some(body) = request.body_mut().take() else {
            return Err(bad("the body is empty"));
        };
        let mut parts = Parts::new(body, &boundary);
        let first = parts.next(|name| match name {
            MANIFEST => Ok(MAX_MANIFEST),
            _ => Err(bad("the first part has to be `manifest`")),
        });
        let Some(first) = first.await? else {
            return Err(bad("the first part has to be `manifest`"));
        };
        let specified = manifest(&first.bytes)?;
        if specified.name != app {
            let why = format!("the manifest is of app \"{}\"", specified.name);
            return Err(bad(why));
        }
        let mut loaded = Loaded::default();
        let limit = |name: &str| {
            if !specified.services.contains_key(name) {
                let names: Vec<_> = specified.services.keys().map(String::as_str).collect();
                let name = one_line(name, 64);
                let why = format!(
                    "the manifest has no service \"{name}\"; it has {}",
                    names.join(", ")
                );
                return Err(bad(why));
            }
            Ok(max_component())
        };
        while let Some(part) = parts.next(limit).await? {
            if loaded.components.contains_key(&part.name) {
                return Err(bad(format!(
                    "there are two components for service \"{}\"",
                    part.name
                )));
            }
            self.load(&part.name, part.bytes, how.dry_run, &mut loaded)
                .await?;
        }
        self.keep_deployed(&specified, &mut loaded).await?;
        self.propose(Specs::All(Box::new(specified)), loaded, how, signed)
            .await
    }

    /// The components of services that come with none, as they are deployed.
    async fn keep_deployed(&self, app: &App, loaded: &mut Loaded) -> Result<(), Refusal> {
        let missing = |loaded: &Loaded| {
            let names = app.services.keys();
            let missing = names.filter(|name| !loaded.components.contains_key(*name));
            missing.cloned().collect::<Vec<_>>()
        };
        let names = missing(loaded);
        if names.is_empty() {
            return Ok(());
        }
        let store = &self.shared.store;
        let kept = store.app(&app.name).await.map_err(refused)?;
        let deployed = kept.and_then(|kept| kept.revision.specification);
        let deployed = deployed
            .map(|deployed| deployed.components)
            .unwrap_or_default();
        let stay: BTreeMap<_, _> = names
            .iter()
            .filter_map(|name| Some((name.clone(), deployed.get(name)?.clone())))
            .collect();
        let described = store.descriptions(&stay).await.map_err(refused)?;
        loaded.described.extend(described);
        loaded.components.extend(stay);
        match missing(loaded).as_slice() {
            [] => Ok(()),
            missing => {
                let missing = missing.join(", ");
                Err(bad(format!(
                    "there is no component for {missing}, and none is deployed"
                )))
            }
        }
    }

    /// One component, for a service that is deployed.
    async fn deploy_service(
        &self,
        app: &str,
        service: &str,
        request: &mut Received,
        query: &Query<'_>,
    ) -> Result<Answer, Refusal> {
        let (how, signed) = self.how(query)?;
        let (_, kept) = self.deployed(app).await?;
        let deployed = kept.revision.specification.as_ref();
        if !is_label(service) || !deployed.is_some_and(|s| s.app.services.contains_key(service)) {
            return Err(no_service());
        }
        let is_wasm = request
            .headers()
            .get(CONTENT_TYPE)
            .is_none_or(|kind| kind.as_bytes().eq_ignore_ascii_case(b"application/wasm"));
        if !is_wasm {
            let why = "the body must be a component (Content-Type: application/wasm)";
            return Err(Refusal::caller(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        let bytes = read_body(request.body_mut(), max_component()).await?;
        let mut loaded = Loaded::default();
        self.load(service, bytes, how.dry_run, &mut loaded).await?;
        self.propose(Specs::AsDeployed(app.to_owned()), loaded, how, signed)
            .await
    }

    /// Compiles a component, for what it is, and stores it. What is refused afterwards is collected by a later
    /// deploy.
    async fn load(
        &self,
        service: &str,
        bytes: Bytes,
        dry_run: bool,
        loaded: &mut Loaded,
    ) -> Result<(), Refusal> {
        let (engine, own) = (self.shared.engine.clone(), bytes.clone());
        let compiling = tokio::task::spawn_blocking(move || Component::new(&engine, &own));
        let compiled = compiling.await.map_err(|_| {
            let why = "compiling was cut off";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, Blame::Host, why)
        })?;
        let component = compiled.map_err(|error| {
            bad(format!(
                "service \"{service}\": {}",
                super::super::driver::explain(&error)
            ))
        })?;
        let description = component.description();
        if !dry_run {
            let stored = self.shared.store.put_component(&bytes, &description).await;
            stored.map_err(refused)?;
        }
        loaded
            .components
            .insert(service.to_owned(), component.digest.clone());
        loaded.described.insert(service.to_owned(), description);
        Ok(())
    }

    /// Deploys what is offered, or says what that would do.
    async fn propose(
        &self,
        specs: Specs,
        loaded: Loaded,
        how: How,
        signed: Signed,
    ) -> Result<Answer, Refusal> {
        let store = &self.shared.store;
        let offer = Offer {
            specs,
            components: loaded.components,
            described: loaded.described,
        };
        let mut proposal = Proposal::of(store, offer).await.map_err(misfit)?;
        let before = proposal.before.clone();
        let specification = proposal.specification.clone();
        let mut revision = if how.at_once {
            proposal.rollouts.clear();
            next(
                before.as_ref(),
                "deploy at once",
                Some(specification),
                signed,
            )
        } else {
            next_in_shares(before.as_ref(), "deploy", specification, signed)
        };
        if how.dry_run {
            return Ok(self.foretell(&proposal, &revision));
        }
        if !proposal.clashes.is_empty() {
            return Err(conflict(
                "two apps would answer the same requests",
                &proposal.clashes,
            ));
        }
        let breaks: Vec<_> = proposal.breaks.iter().map(ToString::to_string).collect();
        if !breaks.is_empty() && !how.force {
            return Err(conflict(
                "it is refused, since it breaks what runs (`force=true` deploys it)",
                &breaks,
            ));
        }
        revision.forced = breaks;
        let ends = how.at_once
            && before
                .as_ref()
                .is_some_and(|kept| !kept.revision.rollouts().is_empty());
        if let (Some(kept), true, false) = (&before, proposal.differences.is_empty(), ends) {
            return Ok(unchanged(proposal.app(), kept));
        }
        self.still_runs(proposal.app(), before.as_ref()).await?;
        self.write(proposal.app(), &revision, before.as_ref()).await
    }

    fn foretell(&self, proposal: &Proposal, revision: &Revision) -> Answer {
        let mut shown = proposal.json();
        if let Value::Object(shown) = &mut shown {
            let before = proposal.before.as_ref().map(|kept| &kept.revision);
            shown.insert("revision".to_owned(), revision.number.into());
            shown.insert(
                "changes".to_owned(),
                json!(texts(&changed(before, revision))),
            );
        }
        answer_json(StatusCode::OK, to_json(&shown))
    }

    async fn scale(&self, app: &str, query: &Query<'_>) -> Result<Answer, Refusal> {
        let asked = query.only(&["service", "replicas", "message"])?;
        let service = asked.text("service");
        let service = service.ok_or_else(|| bad("say which service: `service=NAME`"))?;
        let replicas = asked.value("replicas", str::parse::<Replicas>)?;
        let replicas = replicas.ok_or_else(|| bad("say how many: `replicas=N`, or `all`"))?;
        let signed = self.signed(asked.text("message"))?;
        let (_, before) = self.deployed(app).await?;
        let revision = scaled(&before, service, replicas, signed).ok_or_else(no_service)?;
        self.write_changed(app, &revision, &before).await
    }

    async fn roll_back(&self, app: &str, query: &Query<'_>) -> Result<Answer, Refusal> {
        let asked = query.only(&["to", "force", "message"])?;
        let to = asked.value("to", str::parse::<u64>)?;
        let (force, signed) = (asked.flag("force")?, self.signed(asked.text("message"))?);
        let before = self.app(app).await?;
        let store = &self.shared.store;
        let history = store.history(app).await.map_err(refused)?;
        let found = target(&history, &before.revision, to);
        let (number, wanted) =
            found.map_err(|none| Refusal::caller(StatusCode::NOT_FOUND, none.to_string()))?;
        let verb = format!("rollback to {number}");
        let mut revision = next(Some(&before), verb, Some(wanted.clone()), signed);
        if let Some(running) = &before.revision.specification {
            let described = store
                .descriptions(&wanted.components)
                .await
                .map_err(refused)?;
            let breaks = breaks_of(store, running, wanted, &described).await;
            let breaks = texts(&breaks.map_err(refused)?);
            if !breaks.is_empty() && !force {
                return Err(conflict(
                    "it is refused, since it breaks what runs (`force=true` goes back all the same)",
                    &breaks,
                ));
            }
            revision.forced = breaks;
        }
        self.write_changed(app, &revision, &before).await
    }

    async fn undeploy(&self, app: &str, query: &Query<'_>) -> Result<Answer, Refusal> {
        let asked = query.only(&["message"])?;
        let signed = self.signed(asked.text("message"))?;
        let (_, before) = self.deployed(app).await?;
        let revision = next(Some(&before), "undeploy", None, signed);
        self.write(app, &revision, Some(&before)).await
    }

    fn how(&self, query: &Query<'_>) -> Result<(How, Signed), Refusal> {
        let asked = query.only(&["dry-run", "force", "at-once", "message"])?;
        let how = How {
            dry_run: asked.flag("dry-run")?,
            force: asked.flag("force")?,
            at_once: asked.flag("at-once")?,
        };
        Ok((how, self.signed(asked.text("message"))?))
    }

    /// A change that is asked for here: who asks is not known, but where.
    pub(super) fn signed(&self, message: Option<&str>) -> Result<Signed, Refusal> {
        if message.is_some_and(|message| message.len() > MAX_MESSAGE) {
            return Err(bad(format!(
                "`message`: accepted: up to {MAX_MESSAGE} bytes"
            )));
        }
        Ok(Signed {
            author: format!("admin@{}", self.shared.name),
            at: now(),
            message: message.map(str::to_owned),
            source: None,
        })
    }

    /// The last revision of an app.
    async fn app(&self, app: &str) -> Result<Kept, Refusal> {
        if !is_name(app) {
            return Err(no_app());
        }
        let kept = self.shared.store.app(app).await.map_err(refused)?;
        kept.ok_or_else(no_app)
    }

    /// The same, of one that is deployed.
    async fn deployed(&self, app: &str) -> Result<(u64, Kept), Refusal> {
        let kept = self.app(app).await?;
        if kept.revision.specification.is_none() {
            let why = format!(
                "the app was undeployed by {}",
                one_line(&kept.revision.author, 256)
            );
            return Err(Refusal::caller(StatusCode::CONFLICT, why));
        }
        Ok((kept.revision.number, kept))
    }

    /// Whether an app still runs what it did. A rollout that has ended since changes that, and no revision.
    async fn still_runs(&self, app: &str, before: Option<&Kept>) -> Result<(), Refusal> {
        let now = self.shared.store.app(app).await.map_err(refused)?;
        let works = |kept: Option<&Kept>| kept.and_then(|kept| kept.revision.works()).cloned();
        if works(now.as_ref()) == works(before) {
            return Ok(());
        }
        Err(changing(StoreError::Conflict {
            app: app.to_owned(),
        }))
    }

    async fn write_changed(
        &self,
        app: &str,
        revision: &Revision,
        before: &Kept,
    ) -> Result<Answer, Refusal> {
        if changed(Some(&before.revision), revision).is_empty() {
            return Ok(unchanged(app, before));
        }
        self.write(app, revision, Some(before)).await
    }

    async fn write(
        &self,
        app: &str,
        revision: &Revision,
        before: Option<&Kept>,
    ) -> Result<Answer, Refusal> {
        let store = &self.shared.store;
        let after = before.map(|kept| kept.sequence);
        store.write(app, revision, after).await.map_err(changing)?;
        if let Err(error) = store.collect().await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "old components are kept");
        }
        let changes = changed(before.map(|kept| &kept.revision), revision);
        let rollouts = revision.rollouts().into_iter();
        let rollouts: BTreeMap<_, _> = rollouts.map(|(name, spec)| (name, spec.text())).collect();
        let body = json!({
            "app": app,
            "revision": revision.number,
            "changes": texts(&changes),
            "rollouts": rollouts,
            "forced": revision.forced,
        });
        Ok(answer_json(StatusCode::ACCEPTED, to_json(&body)))
    }
}

/// Components that came with a request.
#[derive(Default)]
struct Loaded {
    components: BTreeMap<String, Digest>,
    described: BTreeMap<String, Description>,
}

fn max_component() -> usize {
    usize::try_from(MAX_BYTES).unwrap_or(usize::MAX)
}

fn manifest(bytes: &[u8]) -> Result<App, Refusal> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| bad(format!("the manifest is no text: {error}")))?;
    let read = Manifest::parse(Path::new("wasmbay.toml"), text);
    Ok(read
        .map_err(|error| bad(super::super::driver::explain(&error)))?
        .app)
}

fn unchanged(app: &str, kept: &Kept) -> Answer {
    let body = json!({ "app": app, "revision": kept.revision.number, "changes": [] });
    answer_json(StatusCode::OK, to_json(&body))
}

fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

pub(super) fn conflict<T: ToString>(what: &str, lines: &[T]) -> Refusal {
    let why = format!("{what}: {}", texts(lines).join("; "));
    Refusal::caller(StatusCode::CONFLICT, why)
}

fn no_service() -> Refusal {
    Refusal::caller(StatusCode::NOT_FOUND, "the app has no such service")
}

/// Why nothing was written.
fn changing(error: StoreError) -> Refusal {
    match error {
        StoreError::Conflict { .. } => Refusal::caller(StatusCode::CONFLICT, error.to_string()),
        StoreError::TooLarge { .. } => {
            Refusal::caller(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
        }
        error => refused(error),
    }
}

fn misfit(error: ProposalError) -> Refusal {
    match error {
        ProposalError::Store(error) | ProposalError::Compared(_, error) => refused(error),
        ProposalError::NotDeployed(_) | ProposalError::NoService { .. } => {
            Refusal::caller(StatusCode::NOT_FOUND, error.to_string())
        }
        error => bad(super::super::driver::explain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::described::ROUTES;
    use super::*;

    #[test]
    fn every_route_is_found_by_its_path() {
        for route in ROUTES.iter().filter(|route| route.method == "POST") {
            let path = route
                .path
                .replace("{app}", "shop")
                .replace("{service}", "pay");
            let path = path.replace("{host}", "a");
            assert!(Order::find(&path).is_some(), "{path}");
        }
        for path in [
            "/apps/shop",
            "/apps/shop/deploy/",
            "/apps/shop/deploy/a/b",
            "/hosts/a",
            "/apps//x",
        ] {
            let found = Order::find(path);
            let is_empty = |order| matches!(order, Order::DeployService(_, ""));
            assert!(found.is_none_or(is_empty), "{path}: {found:?}");
        }
    }
}
