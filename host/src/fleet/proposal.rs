//! What a deploy would do: an app as it is offered, beside what the fleet runs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Break, Clash, Deployed, Difference, Fronted, Kept, Specified, Store, StoreError, breaks,
    clashes, differences, lines, rollouts,
};
use crate::manifest::{App, Digest, Specification, SpecificationError};
use crate::plan::{self, Description, PlanError};

/// How the services that are offered are specified.
#[derive(Clone, Debug)]
pub enum Specs {
    /// All of an app, as in this manifest.
    All(Box<App>),
    /// Those of which there are components, as in this manifest; the others as they are deployed.
    Some(Box<App>),
    /// As the app of this name is deployed.
    AsDeployed(String),
}

impl Specs {
    /// The name of the app.
    #[must_use]
    pub fn app(&self) -> &str {
        match self {
            Self::All(app) | Self::Some(app) => &app.name,
            Self::AsDeployed(name) => name,
        }
    }
}

/// Components that are to be deployed.
#[derive(Clone, Debug)]
pub struct Offer {
    /// How they are specified.
    pub specs: Specs,
    /// Each by its service.
    pub components: BTreeMap<String, Digest>,
    /// What they are.
    pub described: BTreeMap<String, Description>,
}

/// A specification, ready to be deployed, beside what runs.
#[derive(Debug)]
pub struct Proposal {
    /// The last revision.
    pub before: Option<Kept>,
    /// What would run.
    pub specification: Specification,
    /// Every difference from what runs.
    pub differences: Vec<Difference>,
    /// Whom it breaks.
    pub breaks: Vec<Break>,
    /// What other apps claim already.
    pub clashes: Vec<Clash>,
    /// The services whose new version would get a share of the calls first, and which.
    pub rollouts: BTreeMap<String, String>,
}

/// An offer is none.
#[derive(Debug, thiserror::Error)]
pub enum ProposalError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What runs cannot be compared.
    #[error("{0} cannot be compared")]
    Compared(String, #[source] StoreError),
    /// A part of an app that is not deployed.
    #[error("app \"{0}\" is not deployed, so there is nothing that a service could join")]
    NotDeployed(String),
    /// The app has no such service.
    #[error("app \"{app}\" has no service \"{service}\"")]
    NoService {
        /// The app.
        app: String,
        /// The service.
        service: String,
        /// Those that it has.
        services: Vec<String>,
    },
    /// A service refers to what does not run.
    #[error("the service does not fit into what is deployed: {0}")]
    Misfit(serde_json::Error),
    /// The services do not fit together.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Plan(Vec<PlanError>),
    /// There is no component for a service.
    #[error(transparent)]
    Specification(#[from] SpecificationError),
}

impl Proposal {
    /// Compares what is offered with what the fleet runs.
    ///
    /// # Errors
    ///
    /// It does not fit together, or into what runs.
    pub async fn of(store: &Store, offer: Offer) -> Result<Self, ProposalError> {
        let before = store.app(offer.specs.app()).await?;
        let running = before
            .as_ref()
            .and_then(|kept| kept.revision.specification.clone());
        let described_before = match &running {
            Some(running) => {
                let described = store.descriptions(&running.components).await;
                described.map_err(|error| ProposalError::Compared("what runs".to_owned(), error))?
            }
            None => BTreeMap::new(),
        };
        let mut described = offer.described.clone();
        let specification = match (&offer.specs, &running) {
            (Specs::All(app), _) => {
                plan::plan(app, &described).map_err(ProposalError::Plan)?;
                let components = app
                    .services
                    .keys()
                    .filter_map(|name| Some((name.clone(), offer.components.get(name)?.clone())));
                Specification::new(App::clone(app), components.collect())?
            }
            (_, Some(running)) => {
                for (service, description) in &described_before {
                    let known = described.entry(service.clone());
                    known.or_insert_with(|| description.clone());
                }
                part(&offer, running, &described)?
            }
            (specs, None) => return Err(ProposalError::NotDeployed(specs.app().to_owned())),
        };
        let mut proposal = Self {
            clashes: claimed(store, &specification.app, &described).await?,
            differences: Vec::new(),
            breaks: Vec::new(),
            rollouts: BTreeMap::new(),
            before,
            specification,
        };
        proposal.compare(running.as_ref(), &described_before, &described);
        let stable = proposal.before.as_ref();
        let stable = stable.and_then(|kept| kept.revision.stable.as_ref());
        if let Some(stable) = stable {
            // A version that is rolled out has not replaced it yet.
            let breaks = breaks_of(store, stable, &proposal.specification, &described).await?;
            proposal.breaks.extend(breaks);
            proposal.breaks.sort();
            proposal.breaks.dedup();
        }
        Ok(proposal)
    }

    fn compare(
        &mut self,
        running: Option<&Specification>,
        before: &BTreeMap<String, Description>,
        now: &BTreeMap<String, Description>,
    ) {
        let (old, new) = (
            running.map(|specification| Specified {
                specification,
                components: before,
            }),
            Specified {
                specification: &self.specification,
                components: now,
            },
        );
        self.differences = differences(old, Some(new));
        if let Some(running) = running {
            let (app, components) = (&running.app, before);
            let old = Deployed { app, components };
            let (app, components) = (&self.specification.app, now);
            self.breaks = breaks(old, Deployed { app, components });
        }
        let works = self.before.as_ref().and_then(|kept| kept.revision.works());
        let rolled = works.map(|works| rollouts(works, &self.specification));
        let rolled = rolled.into_iter().flatten();
        let rolled = rolled.map(|(service, spec)| (service.to_owned(), spec.text()));
        self.rollouts = rolled.collect();
    }

    /// The name of the app.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.specification.app.name
    }

    /// Whether it cannot be deployed as it is.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        !self.breaks.is_empty() || !self.clashes.is_empty()
    }

    /// Every difference, which versions would get a share first, and what would be refused, a line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = lines(&self.differences);
        let rollouts = self.rollouts.iter();
        lines.extend(rollouts.map(|(service, share)| {
            format!("{service}: its new version would get {share}, and then all or none")
        }));
        let breaks = self.breaks.iter();
        lines.extend(breaks.map(|one| format!("refused without --force: {one}")));
        let clashes = self.clashes.iter();
        lines.extend(clashes.map(|clash| format!("refused: {clash}")));
        lines
    }

    /// The same for scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        fn texts<T: ToString>(all: &[T]) -> Vec<String> {
            all.iter().map(ToString::to_string).collect()
        }
        json!({
            "app": self.app(),
            "differences": self.differences,
            "rollouts": self.rollouts,
            "breaks": texts(&self.breaks),
            "clashes": texts(&self.clashes),
        })
    }
}

/// What runs, with these services as they are offered.
fn part(
    offer: &Offer,
    running: &Specification,
    described: &BTreeMap<String, Description>,
) -> Result<Specification, ProposalError> {
    let mut specification = running.clone();
    for (service, digest) in &offer.components {
        let app = match &offer.specs {
            Specs::All(app) | Specs::Some(app) => app,
            Specs::AsDeployed(_) => &running.app,
        };
        let spec = app.services.get(service);
        let spec = spec.ok_or_else(|| ProposalError::NoService {
            app: running.app.name.clone(),
            service: service.clone(),
            services: running.app.services.keys().cloned().collect(),
        })?;
        let services = &mut specification.app.services;
        services.insert(service.clone(), spec.clone());
        let components = &mut specification.components;
        components.insert(service.clone(), digest.clone());
    }
    // As hosts read it: what a service refers to has to be in what runs.
    let written = serde_json::to_value(&specification).map_err(ProposalError::Misfit)?;
    let specification = serde_json::from_value::<Specification>(written);
    let specification = specification.map_err(ProposalError::Misfit)?;
    plan::plan(&specification.app, described).map_err(ProposalError::Plan)?;
    Ok(specification)
}

/// What a specification breaks in the place of another one.
///
/// # Errors
///
/// The store cannot be read.
pub async fn breaks_of(
    store: &Store,
    old: &Specification,
    new: &Specification,
    described: &BTreeMap<String, Description>,
) -> Result<Vec<Break>, StoreError> {
    let before = store.descriptions(&old.components).await?;
    Ok(breaks(
        Deployed {
            app: &old.app,
            components: &before,
        },
        Deployed {
            app: &new.app,
            components: described,
        },
    ))
}

/// What other apps of the fleet claim at the gateway already.
async fn claimed(
    store: &Store,
    app: &App,
    components: &BTreeMap<String, Description>,
) -> Result<Vec<Clash>, ProposalError> {
    let apps = store.apps().await?;
    let mut others: Vec<(App, BTreeMap<String, Description>)> = Vec::new();
    for (name, kept) in apps {
        let Some(specification) = kept.revision.specification else {
            continue;
        };
        if name == app.name {
            continue;
        }
        let described = store.descriptions(&specification.components).await;
        let described =
            described.map_err(|error| ProposalError::Compared(format!("app \"{name}\""), error))?;
        others.push((specification.app, described));
    }
    let others = others
        .iter()
        .map(|(app, components)| Fronted { app, components });
    Ok(clashes(Fronted { app, components }, others))
}
