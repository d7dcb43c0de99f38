//! The versions that open runs began with. Revisions are kept for a while, and so are their components; of those that
//! runs need longer the specifications are kept beside them, and they count as named.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, failed, to_json, unreadable};
use crate::fleet::records::{self, FORMAT};
use crate::manifest::Specification;
use crate::pipelines::{Version, open_versions};

/// What is kept for the runs of an app.
#[derive(Serialize, Deserialize)]
struct ForRuns {
    format: u32,
    specifications: Vec<Specification>,
}

/// Its key in the bucket of rollouts, to which hosts may write. No name of an app has a dot.
fn key(app: &str) -> String {
    format!("{app}.runs")
}

/// Whether a service is specified as it was for a version.
fn is_of(specification: &Specification, service: &str, version: &Version) -> bool {
    let spec = specification.app.services.get(service);
    let digest = specification.components.get(service);
    let specified = spec.zip(digest);
    specified.is_some_and(|(spec, digest)| Version::specified(digest, spec) == *version)
}

impl Store {
    /// What is kept for the open runs of an app, beside its revisions.
    pub(super) async fn for_runs(&self, app: &str) -> Result<Vec<Specification>, StoreError> {
        let key = key(app);
        let found = self.rollouts.get(&*key).await;
        let found = found.map_err(failed("read what is kept for runs"))?;
        let read = found.map(|bytes| records::read::<ForRuns>(&bytes));
        let read = read.transpose().map_err(unreadable(key))?;
        Ok(read.map(|read| read.specifications).unwrap_or_default())
    }

    /// All specifications of an app that are kept, the last one first.
    async fn specifications(&self, app: &str) -> Result<Vec<Specification>, StoreError> {
        let revisions = self.history(app).await?.into_iter().rev();
        let of_revisions =
            revisions.flat_map(|one| [one.specification, one.stable, one.refused].into_iter());
        let mut all: Vec<_> = of_revisions.flatten().collect();
        all.extend(self.for_runs(app).await?);
        Ok(all)
    }

    /// An app as it was specified when a service had this version, if that is kept.
    ///
    /// # Errors
    ///
    /// JetStream cannot be asked, or what is kept cannot be read.
    pub(crate) async fn specified_version(
        &self,
        app: &str,
        service: &str,
        version: &Version,
    ) -> Result<Option<Specification>, StoreError> {
        let all = self.specifications(app).await?;
        Ok(all.into_iter().find(|one| is_of(one, service, version)))
    }

    /// Keeps the specifications by which the open runs of an app began, and no others. `durable` are its durable
    /// functions by the names of their pipelines, with their services.
    ///
    /// # Errors
    ///
    /// JetStream cannot be asked; then what was kept is.
    ///
    /// # Cost
    ///
    /// Reads the journal of each open run.
    pub(crate) async fn keep_versions(
        &self,
        app: &str,
        durable: &BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        const DOING: &str = "keep the versions of open runs";
        let versions = open_versions(&self.context, app, durable).await;
        let versions = versions.map_err(failed(DOING))?;
        let all = self.specifications(app).await?;
        let mut kept: Vec<Specification> = Vec::new();
        for (service, version) in versions {
            let one = all.iter().find(|one| is_of(one, &service, &version));
            if let Some(one) = one.filter(|one| !kept.contains(one)) {
                kept.push(one.clone());
            }
        }
        if kept == self.for_runs(app).await? {
            return Ok(());
        }
        let for_runs = to_json(&ForRuns {
            format: FORMAT,
            specifications: kept,
        });
        let written = self.rollouts.put(key(app), for_runs).await;
        written.map(drop).map_err(failed(DOING))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fleet::Revision;
    use crate::fleet::store::tests::alone;
    use crate::manifest::Digest;
    use crate::plan::Description;

    #[tokio::test]
    async fn what_an_open_run_began_with_is_not_collected() {
        let (_folder, server, store) = alone().await;
        let (bytes, now) = (&b"a"[..], Duration::ZERO);
        store
            .put_component(bytes, &Description::default())
            .await
            .unwrap();
        // A revision that names it, of which only this is left.
        let specification = Revision::of_shop(1, "").specification.unwrap();
        let (service, digest) = specification.components.first_key_value().unwrap();
        let spec = specification.app.services.get(service).unwrap();
        let version = Version::specified(digest, spec);
        let service = service.clone();
        let undeployed = Revision {
            specification: None,
            ..Revision::of_shop(2, "")
        };
        store.write("shop", &undeployed, None).await.unwrap();
        let keep = async |specifications| {
            let for_runs = ForRuns {
                format: FORMAT,
                specifications,
            };
            let kept = store.rollouts.put(key("shop"), to_json(&for_runs)).await;
            kept.unwrap();
        };
        keep(vec![specification.clone()]).await;
        assert_eq!(store.collect_older(now).await.unwrap(), 0);
        let found = store.specified_version("shop", &service, &version).await;
        assert_eq!(found.unwrap(), Some(specification));

        keep(Vec::new()).await;
        assert_eq!(store.collect_older(now).await.unwrap(), 2);
        assert!(store.component(&Digest::of(bytes)).await.is_err());
        let found = store.specified_version("shop", &service, &version).await;
        assert_eq!(found.unwrap(), None);
        server.stop().await;
    }
}
