//! What a few functions of an app have that others have not, by their subjects: breakers, handlers elsewhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

/// Values by subject. Most apps have none, and their calls take no lock.
pub(super) struct BySubject<T> {
    any: AtomicBool,
    values: RwLock<HashMap<String, T>>,
}

impl<T> Default for BySubject<T> {
    fn default() -> Self {
        Self {
            any: AtomicBool::new(false),
            values: RwLock::default(),
        }
    }
}

impl<T> BySubject<T> {
    /// Replaces all values by what is made of them.
    pub(super) fn replace(&self, next: impl FnOnce(&HashMap<String, T>) -> HashMap<String, T>) {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        *values = next(&values);
        self.any.store(!values.is_empty(), Ordering::Release);
    }

    /// What is read of the value of a subject, if it has one.
    pub(super) fn read<R>(&self, subject: &str, read: impl FnOnce(&T) -> R) -> Option<R> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        values.get(subject).map(read)
    }

    /// What is read of each value.
    pub(super) fn all<R>(&self, read: impl Fn(&T) -> R) -> Vec<R> {
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        values.values().map(read).collect()
    }
}
