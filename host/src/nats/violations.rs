//! What a server refuses to a connection.

use std::sync::{Arc, Mutex, PoisonError};

/// The permissions that a server has refused to a connection since it was opened.
#[derive(Clone, Debug, Default)]
pub struct Violations(Arc<Mutex<Vec<String>>>);

/// Violations that are kept; a client that goes on publishing what it may not would fill memory.
const MAX_VIOLATIONS: usize = 256;

impl Violations {
    pub(super) fn note(&self, violation: &str) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = noted.iter().any(|known| known == violation);
        if !known && noted.len() < MAX_VIOLATIONS {
            noted.push(violation.to_owned());
        }
    }

    /// The server's words for a refusal that names this subject, or a subject that starts so.
    #[must_use]
    pub fn of(&self, subject: &str) -> Option<String> {
        let quoted = format!("\"{subject}");
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.iter().find(|text| text.contains(&quoted)).cloned()
    }

    /// Every refusal, in the server's words.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.clone()
    }
}
