//! `rollout` of a service: a new version gets a share of the calls first, and goes on or back by its
//! figures.

use std::time::Duration;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::file::Section;
use super::keys::{rollback_on, rollout, service};
use super::settings::settings;
use super::shares::{Percent, Times};
use super::values::duration_text;

/// How a new version of a service takes over in a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutSpec {
    /// The share of the calls, its time, and the calls that it takes to judge.
    pub canary: CanarySpec,
    /// What takes the new version back.
    pub rollback_on: RollbackOn,
}

settings! {
    /// The share of the calls that a new version gets, for how long, and how many of them it takes to judge it.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct CanarySpec in rollout {
        /// The share of the calls.
        pub share: Percent = CANARY,
        /// The time after which the new version goes on.
        pub time: Duration = FOR,
        /// Calls below which it is not judged before that.
        pub calls: u32 = CALLS,
    }
}

settings! {
    /// What takes a new version back.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct RollbackOn in rollback_on {
        /// More errors than this part of its calls.
        pub errors: Percent = ERRORS,
        /// A 99th percentile above so many times that of the version before.
        pub p99: Option<Times> = P99,
    }
}

impl Serialize for RolloutSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.canary.written() {
            map.serialize_entry(key, &value)?;
        }
        map.serialize_entry(rollout::ROLLBACK_ON.name, &self.rollback_on)?;
        map.end()
    }
}

/// Reads `rollout`.
pub(super) fn read(section: &Section<'_>) -> Option<RolloutSpec> {
    if !section.has(service::ROLLOUT.name) {
        return None;
    }
    let table = section.section(&service::ROLLOUT, &rollout::TABLE);
    let on = table.section(&rollout::ROLLBACK_ON, &rollback_on::TABLE);
    Some(RolloutSpec {
        canary: CanarySpec::read(&table, &CanarySpec::default()),
        rollback_on: RollbackOn::read(&on, &RollbackOn::default()),
    })
}

impl RolloutSpec {
    /// What it says, in a few words.
    #[must_use]
    pub fn text(&self) -> String {
        let CanarySpec { share, time, .. } = self.canary;
        format!("{share} of the calls for {}", duration_text(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::App;
    use crate::manifest::tests::of_service as app;

    #[test]
    fn a_rollout_is_read_as_it_is_written() {
        let app = app("[service.x.rollout]\ncanary = \"12.5%\"\nfor = \"2m\"\ncalls = 7\nrollback-on = { errors = \"0.5%\", p99 = \"2x\" }").unwrap();
        let rollout = app.services["x"].rollout.clone().unwrap();
        assert_eq!(
            rollout,
            RolloutSpec {
                canary: CanarySpec {
                    share: Percent(1_250),
                    time: Duration::from_secs(120),
                    calls: 7,
                },
                rollback_on: RollbackOn {
                    errors: Percent(50),
                    p99: Some(Times(200)),
                },
            }
        );
        assert_eq!(rollout.text(), "12.5% of the calls for 2m");
        let text = serde_json::to_string(&app).unwrap();
        assert_eq!(serde_json::from_str::<App>(&text).unwrap(), app);
    }

    #[test]
    fn what_is_not_given_has_a_default() {
        assert_eq!(app("").unwrap().services["x"].rollout, None);
        let app = app("rollout = {}").unwrap();
        assert_eq!(app.services["x"].rollout, Some(RolloutSpec::default()));
    }

    #[test]
    fn what_means_nothing_is_refused_with_its_place() {
        for lines in [
            "rollout = true",
            "rollout = { canary = 10 }",
            "rollout = { canary = \"0%\" }",
            "rollout = { canary = \"100%\" }",
            "rollout = { for = \"10ms\" }",
            "rollout = { calls = 0 }",
            "rollout = { rollback-on = { errors = \"101%\" } }",
            "rollout = { rollback-on = { p99 = \"1x\" } }",
            "rollout = { rollback-on = { p99 = 2 } }",
        ] {
            let error = app(lines).unwrap_err();
            assert!(error.contains("accepted"), "{lines}: {error}");
            assert!(error.starts_with("wasmbay.toml:4:"), "{lines}: {error}");
        }
        let error = app("rollout = { cannary = \"1%\" }").unwrap_err();
        assert!(error.contains("canary"), "{error}");
    }
}
