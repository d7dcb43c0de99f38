//! The shop's inventory: answers from the stock levels of its configuration.
//!
//! Nothing is counted down. An instance lives for some calls only and others run beside it, so
//! a count kept in one would be seen only by the calls that happen to reach it. A reservation
//! follows from its id alone, which makes reserving twice and releasing twice harmless.

mod levels;

use levels::{Levels, Refusal};

wit_bindgen::generate!({
    path: "../../../wit",
    world: "inventory",
    generate_all,
});

use exports::shop::inventory::stock::{Guest, Line, Reservation, Shortage, StockError};
use wasi::config::store;
use wasi::logging::logging::{Level, log};

const RESERVATION_PREFIX: &str = "res-";

struct Inventory;

export!(Inventory);

impl Guest for Inventory {
    fn on_hand(sku: String) -> Result<u32, StockError> {
        configured_levels()?
            .on_hand(&sku)
            .ok_or(StockError::UnknownSku(sku))
    }

    fn reserve(order_id: String, lines: Vec<Line>) -> Result<Reservation, StockError> {
        let wanted = lines.iter().map(|line| (line.sku.as_str(), line.quantity));
        if let Err(refusal) = configured_levels()?.check(wanted) {
            record(Level::Warn, format!("order {order_id} refused: {refusal}"));
            return Err(refusal.into());
        }
        let warehouse = setting("warehouse")?.unwrap_or_else(|| "main".to_owned());
        record(
            Level::Info,
            format!("order {order_id} reserved in {warehouse}"),
        );
        Ok(Reservation {
            id: format!("{RESERVATION_PREFIX}{order_id}"),
            warehouse,
            lines,
        })
    }

    fn release(reservation_id: String) -> Result<(), StockError> {
        match reservation_id.strip_prefix(RESERVATION_PREFIX) {
            Some(order_id) => record(Level::Info, format!("order {order_id} released")),
            None => record(Level::Warn, format!("no reservation `{reservation_id}`")),
        }
        Ok(())
    }

    fn restock(order_id: String, lines: Vec<Line>) -> Result<(), StockError> {
        let levels = configured_levels()?;
        if let Some(line) = lines
            .iter()
            .find(|line| levels.on_hand(&line.sku).is_none())
        {
            return Err(StockError::UnknownSku(line.sku.clone()));
        }
        record(Level::Info, format!("order {order_id} is back in stock"));
        Ok(())
    }
}

fn record(level: Level, message: String) {
    log(level, "stock", &message);
}

fn configured_levels() -> Result<Levels, StockError> {
    let text = setting("stock")?
        .ok_or_else(|| StockError::Unavailable("config key `stock` is not set".to_owned()))?;
    text.parse()
        .map_err(|bad| StockError::Unavailable(format!("config key `stock`: {bad}")))
}

fn setting(key: &str) -> Result<Option<String>, StockError> {
    store::get(key).map_err(|error| {
        let (store::Error::Upstream(why) | store::Error::Io(why)) = error;
        StockError::Unavailable(format!("config key `{key}`: {why}"))
    })
}

impl From<Refusal> for StockError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownSku(sku) => Self::UnknownSku(sku),
            Refusal::Short(lines) => Self::Insufficient(
                lines
                    .into_iter()
                    .map(|line| Shortage {
                        sku: line.sku,
                        wanted: line.wanted,
                        on_hand: line.on_hand,
                    })
                    .collect(),
            ),
        }
    }
}
