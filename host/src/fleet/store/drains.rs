//! The hosts that are drained. The mark outlives the host's process, and the fleet's view of it.

use super::{Store, StoreError, failed, to_json};
use crate::fleet::DrainRecord;

impl Store {
    /// Marks a host as drained, again if it is already.
    ///
    /// # Errors
    ///
    /// JetStream cannot keep it.
    pub async fn drain(&self, record: &DrainRecord) -> Result<(), StoreError> {
        let written = self.drains.put(&record.host, to_json(record)).await;
        written.map(drop).map_err(failed("mark a host as drained"))
    }

    /// Takes the mark of a host back; returns whether there was one.
    ///
    /// # Errors
    ///
    /// JetStream cannot be asked.
    pub async fn undrain(&self, host: &str) -> Result<bool, StoreError> {
        let was_drained = self.is_drained(host).await?;
        let deleted = self.drains.delete(host).await;
        deleted.map_err(failed("take back that a host is drained"))?;
        Ok(was_drained)
    }

    /// Whether a host is marked as drained.
    ///
    /// # Errors
    ///
    /// JetStream cannot be asked.
    pub async fn is_drained(&self, host: &str) -> Result<bool, StoreError> {
        let mark = self.drains.get(host).await;
        let mark = mark.map_err(failed("look whether a host is drained"))?;
        Ok(mark.is_some())
    }
}
