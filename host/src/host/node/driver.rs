//! One app on a node: from what the fleet wants of this host to services that run.
//!
//! A driver takes one target after the other. Each is a step: fetch and compile, apply, report. What of
//! a step fails is tried again, with growing pauses, and leaves everything else alone. A newer target
//! cancels a step.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Shared;
use super::archive::StoredVersions;
use super::own::{Own, Told};
use super::view::Target;
use crate::fleet::{
    self, FORMAT, Report, Revision, ServiceReport, ServiceState, StoreError, Untrusted,
};
use crate::host::prepare::Old;
use crate::host::{Applied, Drained, Host, HostError, HostOptions};
use crate::manifest::{App, Digest, Percent, Specification};
use crate::plan::{Description, Plan};
use crate::runtime::{Component, ComponentError};
use crate::text::one_line;

/// Waits between tries of a step that failed, doubled from the first to the last.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Bytes of an error in a report.
const MAX_ERROR: usize = 4 << 10;

/// Why a component cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    #[error("component {}", .0.short())]
    Component(Digest, #[source] ComponentError),
    #[error(
        "component {} is described by other types than its own; deploy it again",
        .0.short()
    )]
    Description(Digest),
    #[error("compiling was cut off")]
    Gone,
}

/// What hinders an app as a whole.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// What it needs is not in the fleet's store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It cannot run.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// An app on this node.
pub(super) struct Driver {
    shared: Arc<Shared>,
    app: String,
    targets: watch::Receiver<Option<Arc<Target>>>,
    /// The services that run, for the node.
    running: watch::Sender<BTreeSet<String>>,
    host: Option<Host>,
    /// The revision behind the gateway.
    mounted: Option<Arc<Revision>>,
    described: BTreeMap<Digest, Description>,
    since: BTreeMap<String, String>,
    /// Keeps what open runs began with.
    keeping: JoinSet<()>,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        app: &str,
        targets: watch::Receiver<Option<Arc<Target>>>,
        running: watch::Sender<BTreeSet<String>>,
    ) -> Self {
        let host = shared.own.as_ref().and_then(Own::take_host);
        let running_already = host.iter().flat_map(|host| {
            let deployment = host.current.get();
            deployment.services.keys().cloned().collect::<Vec<_>>()
        });
        let since = running_already.map(|service| (service, now())).collect();
        Self {
            shared,
            app: app.to_owned(),
            targets,
            running,
            host,
            mounted: None,
            described: BTreeMap::new(),
            since,
            keeping: JoinSet::new(),
        }
    }

    /// Runs until there is no target any more, and then stops the app.
    pub(super) async fn run(mut self) -> Drained {
        let mut targets = self.targets.clone();
        let (mut retry, mut failing) = (FIRST_RETRY, 0);
        loop {
            let target = targets.borrow_and_update().clone();
            let Some(target) = target else { break };
            if failing != target.revision.number {
                (retry, failing) = (FIRST_RETRY, target.revision.number);
            }
            let is_done = tokio::select! {
                biased;
                // What a step began is finished by the next one.
                changed = targets.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break,
                },
                is_done = self.step(&target) => is_done,
            };
            let again = async {
                if is_done {
                    std::future::pending::<()>().await;
                }
                sleep(retry).await;
            };
            tokio::select! {
                changed = targets.changed() => if changed.is_err() { break },
                () = again => retry = (retry * 2).min(LAST_RETRY),
            }
        }
        self.stop().await
    }

    async fn stop(mut self) -> Drained {
        if let Some(front) = &self.shared.front {
            front.unmount(&self.app);
        }
        self.shared.admins.remove(&self.app);
        self.shared.rollouts.stopped(&self.app);
        let drained = match self.host.take() {
            Some(host) => host.stop(self.shared.grace_left()).await,
            None => Drained::NOTHING,
        };
        if let Some(own) = &self.shared.own {
            own.tell(Told::Stopped);
        }
        self.running.send_replace(BTreeSet::new());
        self.shared.reports.take_back(&self.app);
        tracing::info!(app = self.app, "the app does not run here any more");
        drained
    }

    /// Takes a step to the target; returns whether nothing of it has to be tried again.
    async fn step(&mut self, target: &Target) -> bool {
        let Some(specification) = &target.revision.specification else {
            return true;
        };
        let taken = self.take(target, specification).await;
        let is_done = match &taken {
            Ok((_, failed)) => {
                // Where there is one app, who is told of it says so.
                for (service, error) in failed.iter().filter(|_| self.shared.own.is_none()) {
                    let app = &self.app;
                    tracing::error!(app, service, error, "a service does not run");
                }
                self.report(target, specification, failed, None);
                failed.is_empty()
            }
            Err(error) => {
                let error = explain(error);
                let revision = target.revision.number;
                if self.shared.own.is_none() {
                    tracing::error!(app = self.app, revision, error, "a revision cannot run");
                }
                self.report(target, specification, &BTreeMap::new(), Some(error));
                false
            }
        };
        if let Some(own) = &self.shared.own {
            own.tell(Told::Step {
                revision: Arc::clone(&target.revision),
                result: taken.map(|(applied, _)| applied),
            });
        }
        is_done
    }

    /// Returns what has changed, and the services that failed, and why.
    async fn take(
        &mut self,
        target: &Target,
        specification: &Specification,
    ) -> Result<(Applied, BTreeMap<String, String>), StepError> {
        self.report_coming(target, specification, ServiceState::Fetching);
        let revision = &target.revision;
        let described = self.descriptions(revision, specification).await?;
        let mut failed = BTreeMap::new();
        // Versions that no other attempt will bring up.
        let mut hopeless = BTreeMap::new();
        let mut components = BTreeMap::new();
        let mut olds = BTreeMap::new();
        let rolled = revision.rollouts();
        for service in &target.here {
            // Without the old version the new one would get all calls.
            let mut is_alone = false;
            if let Some(rollout) = rolled.get(service.as_str()) {
                let share = rollout.canary.share;
                match self.old(revision, service, share).await {
                    Ok(old) => olds.extend(old.map(|old| (service.clone(), old))),
                    Err(error) => {
                        failed.insert(service.clone(), explain(&error));
                        is_alone = true;
                    }
                }
            }
            let (Some(digest), Some(description)) = (
                specification.components.get(service),
                described.get(service),
            ) else {
                continue;
            };
            match self.shared.component(digest, description).await {
                Ok(_) if is_alone => {}
                Ok(component) => drop(components.insert(service.clone(), component)),
                Err(error) => {
                    let why = explain(&error);
                    if !matches!(error, FetchError::Store(_)) {
                        hopeless.insert(service.clone(), why.clone());
                    }
                    failed.entry(service.clone()).or_insert(why);
                }
            }
        }
        self.report_coming(target, specification, ServiceState::Starting);
        let host = match self.host.take() {
            Some(host) => host,
            None => {
                let host = self.start(&specification.app).await?;
                self.shared.admins.insert(&self.app, host.admin.as_ref());
                host
            }
        };
        let host = self.host.insert(host);
        // What cannot be fetched goes on as it is, like what is handed over.
        let kept = target.held.iter().chain(failed.keys()).cloned().collect();
        let mut applied = host
            .apply_part(specification, &described, &components, &kept, &olds)
            .await?;
        self.note(&applied);
        let unfetched = failed.iter().map(|(service, why)| {
            let error = HostError::Unfetched(service.clone(), why.clone());
            (service.clone(), error)
        });
        let unfetched: Vec<_> = unfetched.collect();
        for (service, error) in &applied.refused {
            let (service, why) = (service.clone(), explain(error));
            hopeless.insert(service.clone(), why.clone());
            failed.insert(service, why);
        }
        for (service, error) in &applied.failed {
            let (service, why) = (service.clone(), explain(error));
            // What is rolled out failed in its old version.
            if !rolled.contains_key(service.as_str()) {
                hopeless.insert(service.clone(), why.clone());
            }
            failed.entry(service).or_insert(why);
        }
        if let Some(host) = &self.host {
            let current = Arc::clone(&host.current);
            let rollouts = &self.shared.rollouts;
            rollouts.ran(&self.app, revision.number, current, hopeless);
        }
        let plan = self.host.as_ref().map(|host| host.current.get());
        if let Some(deployment) = plan {
            self.keep_versions(&specification.app, &deployment.plan);
        }
        self.mount(target);
        applied.failed.extend(unfetched);
        Ok((applied, failed))
    }

    /// The old version of a service of which the new one gets a share.
    async fn old(
        &mut self,
        revision: &Revision,
        service: &str,
        share: Percent,
    ) -> Result<Option<Old>, FetchError> {
        let Some((spec, digest)) = revision.stable.as_ref().and_then(|stable| {
            let spec = stable.app.services.get(service)?;
            Some((spec, stable.components.get(service)?))
        }) else {
            return Ok(None);
        };
        let description = match self.described.get(digest) {
            Some(description) => description.clone(),
            None => {
                let description = self.shared.store.description(digest).await?;
                let cached = self.described.entry(digest.clone());
                cached.or_insert(description).clone()
            }
        };
        Ok(Some(Old {
            spec: spec.clone(),
            component: self.shared.component(digest, &description).await?,
            share,
            revision: revision.number,
        }))
    }

    async fn start(&self, app: &App) -> Result<Host, HostError> {
        let shared = &self.shared;
        let options = match &shared.own {
            Some(own) => own.options.clone(),
            None => HostOptions {
                workers: shared.workers,
                grace: shared.grace,
                id: Some(fleet::host_id(&shared.name, &self.app)),
                spans: shared.spans.clone(),
                in_fleet: true,
                ..HostOptions::new(shared.nats.with_own_violations())
            },
        };
        let host = Host::start(app, shared.engine.clone(), options).await?;
        host.open_archive(Arc::new(StoredVersions::new(shared, &self.app)));
        Ok(host)
    }

    /// Has the versions kept that open runs began with, in the background.
    fn keep_versions(&mut self, app: &App, plan: &Plan) {
        self.keeping.abort_all();
        let durable = plan.pipelines.iter();
        let durable = durable.filter_map(|pipeline| {
            let durable = pipeline.durable.as_ref()?;
            Some((pipeline.name.clone(), durable.service.clone()))
        });
        let durable: BTreeMap<_, _> = durable.collect();
        if durable.is_empty() {
            return;
        }
        let (store, app) = (self.shared.store.clone(), app.name.clone());
        self.keeping.spawn(async move {
            if let Err(error) = store.keep_versions(&app, &durable).await {
                let error = &error as &dyn Error;
                tracing::warn!(
                    app,
                    error,
                    "the versions that open runs began with are not kept anew"
                );
            }
        });
    }

    fn mount(&mut self, target: &Target) {
        let (Some(front), Some(host)) = (&self.shared.front, &self.host) else {
            return;
        };
        let revision = &target.revision;
        let is_mounted = self
            .mounted
            .as_ref()
            .is_some_and(|mounted| mounted.specification == revision.specification);
        if let Some(specification) = revision.specification.as_ref().filter(|_| !is_mounted) {
            front.mount(host.mount(&specification.app));
            self.mounted = Some(Arc::clone(revision));
        }
    }

    /// The descriptions of an app's components, those that are known already without asking again.
    async fn descriptions(
        &mut self,
        revision: &Revision,
        specification: &Specification,
    ) -> Result<BTreeMap<String, Description>, StoreError> {
        let components = &specification.components;
        let unknown = components
            .iter()
            .filter(|(_, digest)| !self.described.contains_key(*digest))
            .map(|(service, digest)| (service.clone(), digest.clone()))
            .collect();
        let found = self.shared.store.descriptions(&unknown).await?;
        let old = revision.stable.iter();
        let old = old.flat_map(|stable| stable.components.values());
        let named: BTreeSet<_> = components.values().chain(old).collect();
        self.described.retain(|digest, _| named.contains(digest));
        for (service, description) in found {
            if let Some(digest) = unknown.get(&service) {
                self.described.insert(digest.clone(), description);
            }
        }
        let of = |(service, digest): (&String, &Digest)| {
            Some((service.clone(), self.described.get(digest)?.clone()))
        };
        Ok(components.iter().filter_map(of).collect())
    }

    /// Notes since when services run as they do.
    fn note(&mut self, applied: &Applied) {
        let Applied {
            started,
            replaced,
            shared,
            stopped,
            ..
        } = applied;
        for service in started.iter().chain(replaced).chain(shared) {
            self.since.insert(service.clone(), now());
        }
        for service in stopped {
            self.since.remove(service);
        }
        if !applied.is_nothing() {
            let app = &self.app;
            if self.shared.own.is_some() {
                tracing::debug!(app, ?started, ?replaced, ?shared, ?stopped, "applied");
            } else {
                tracing::info!(app, ?started, ?replaced, ?shared, ?stopped, "applied");
            }
        }
    }

    /// The components of the services that run, and whether they run as specified.
    fn served(
        &self,
        revision: &Revision,
        specification: &Specification,
    ) -> BTreeMap<String, (Digest, bool)> {
        let Some(host) = &self.host else {
            return BTreeMap::new();
        };
        let deployment = host.current.get();
        let rolled = revision.rollouts();
        let served = deployment.services.iter().map(|(name, service)| {
            // What is reported of a rollout is the new version. Once that has ended, neither is there before it
            // is alone.
            let candidate = deployment.candidates.get(name);
            let is_over = candidate.is_some() && !rolled.contains_key(name.as_str());
            let service = candidate.map_or(service, |candidate| &candidate.service);
            let digest = service.component.digest.clone();
            let spec = specification.app.services.get(name);
            let is_wanted = !is_over
                && spec.is_some_and(|spec| service.spec.runs_as(spec))
                && specification.components.get(name) == Some(&digest);
            (name.clone(), (digest, is_wanted))
        });
        served.collect()
    }

    /// Reports what is on its way.
    fn report_coming(&self, target: &Target, specification: &Specification, state: ServiceState) {
        let served = self.served(&target.revision, specification);
        let report = |service: &String| {
            let digest = specification.components.get(service)?.clone();
            let is_there = served.get(service).is_some_and(|(_, is_wanted)| *is_wanted);
            let state = if is_there {
                ServiceState::Serving
            } else {
                state
            };
            Some((service.clone(), self.service(service, state, digest, None)))
        };
        let mut services: BTreeMap<_, _> = target.here.iter().filter_map(report).collect();
        services.extend(self.held(target, &served));
        self.say(target, services, None);
    }

    /// Reports what has become of a step.
    fn report(
        &self,
        target: &Target,
        specification: &Specification,
        failed: &BTreeMap<String, String>,
        error: Option<String>,
    ) {
        let served = self.served(&target.revision, specification);
        let report = |service: &String| {
            let digest = specification.components.get(service)?.clone();
            let is_there = served.get(service).is_some_and(|(_, is_wanted)| *is_wanted);
            let why = failed.get(service).cloned();
            let state = if is_there && why.is_none() {
                ServiceState::Serving
            } else {
                ServiceState::Failed
            };
            Some((service.clone(), self.service(service, state, digest, why)))
        };
        let mut services: BTreeMap<_, _> = target.here.iter().filter_map(report).collect();
        services.extend(self.held(target, &served));
        let running: BTreeSet<_> = served.into_keys().collect();
        self.running.send_if_modified(|known| {
            let changed = *known != running;
            *known = running;
            changed
        });
        self.say(target, services, error);
    }

    fn held(
        &self,
        target: &Target,
        served: &BTreeMap<String, (Digest, bool)>,
    ) -> Vec<(String, ServiceReport)> {
        let held = target.held.iter().filter_map(|service| {
            let (digest, _) = served.get(service)?;
            let state = ServiceState::HandingOver;
            let report = self.service(service, state, digest.clone(), None);
            Some((service.clone(), report))
        });
        held.collect()
    }

    fn service(
        &self,
        service: &str,
        state: ServiceState,
        digest: Digest,
        error: Option<String>,
    ) -> ServiceReport {
        ServiceReport {
            state,
            digest,
            since: self.since.get(service).cloned().unwrap_or_default(),
            error,
        }
    }

    fn say(
        &self,
        target: &Target,
        services: BTreeMap<String, ServiceReport>,
        error: Option<String>,
    ) {
        self.shared.reports.say(Report {
            format: FORMAT,
            host: self.shared.name.clone(),
            id: self.shared.id.clone(),
            app: self.app.clone(),
            revision: target.revision.number,
            error,
            services,
        });
    }
}

impl Shared {
    /// The report on a revision that this host cannot read.
    pub(super) fn unread(&self, app: &str, number: Option<u64>, error: &StoreError) -> Report {
        Report {
            format: FORMAT,
            host: self.name.clone(),
            id: self.id.clone(),
            app: app.to_owned(),
            revision: number.unwrap_or_default(),
            error: Some(explain(error)),
            services: BTreeMap::new(),
        }
    }

    /// A component, from memory or from the store; compiled where the engine's cache does not have it.
    pub(super) async fn component(
        &self,
        digest: &Digest,
        description: &Description,
    ) -> Result<Arc<Component>, FetchError> {
        let known = self.components.lock().await.get(digest).cloned();
        if let Some(component) = known.and_then(|known| known.upgrade()) {
            return Ok(component);
        }
        let bytes = self.store.component(digest).await?;
        if !self.trust.is_anyone() {
            let signatures = self.store.signatures(digest).await?;
            self.trust.check(digest, &signatures)?;
        }
        // Compiling takes all cores, so one at a time is as fast as many.
        let mut components = self.components.lock().await;
        components.retain(|_, component| component.strong_count() > 0);
        let engine = self.engine.clone();
        let started = Instant::now();
        let compiling = tokio::task::spawn_blocking(move || Component::new(&engine, &bytes));
        let compiled = compiling.await.map_err(|_| FetchError::Gone)?;
        let component = compiled.map_err(|source| FetchError::Component(digest.clone(), source))?;
        if component.description() != description.without_docs() {
            return Err(FetchError::Description(digest.clone()));
        }
        let took = started.elapsed();
        tracing::debug!(digest = digest.short(), ?took, "a component is compiled");
        let component = Arc::new(component);
        components.insert(digest.clone(), Arc::downgrade(&component));
        Ok(component)
    }
}

/// An error with its causes, as one bounded line.
pub(super) fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    one_line(&text.replace('\n', "; "), MAX_ERROR).into_owned()
}

/// Now, as RFC 3339.
pub(super) fn now() -> String {
    // Formatting fails for years beyond 9999 only.
    OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_with_its_causes() {
        let error = FetchError::Component(
            Digest::of(b"x"),
            ComponentError::NotWasm {
                start: "a\nb".to_owned(),
            },
        );
        let text = explain(&error);
        assert!(
            text.starts_with("component 2d711642b726: this is not WebAssembly"),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text}");
    }
}
