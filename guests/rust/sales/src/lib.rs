//! The shop's sales: subscribes to paid orders, and reports what was sold.
//!
//! It keeps one key for each order. An event that comes again writes the same value again, which a
//! counter for each product could not do: counting and marking the order as counted would have to be
//! one step, and `wasi:keyvalue` has none for two keys. The price is that a report reads
//! every order.

use std::collections::BTreeMap;

wit_bindgen::generate!({
    path: "../../../wit",
    world: "sales",
    generate_all,
});

use exports::shop::orders::events::{Guest as Events, Paid, Placed, Rejected};
use exports::shop::sales::report::{Guest as Report, ReportError, Sales};
use wasi::keyvalue::store::{self, Bucket};

struct Shop;

export!(Shop);

impl Events for Shop {
    fn order_placed(_: Placed) -> Result<(), String> {
        Ok(())
    }

    fn order_paid(order: Paid) -> Result<(), String> {
        // It would be two lines, and no report could be made any more.
        if let Some(line) = order
            .lines
            .iter()
            .find(|line| line.sku.contains(char::is_control))
        {
            return Err(format!("{:?} is no SKU", line.sku));
        }
        let lines: String = order
            .lines
            .iter()
            .map(|line| format!("{} {}\n", line.quantity, line.sku))
            .collect();
        open()?
            .set(&order.order_id, lines.as_bytes())
            .map_err(|error| why(&error))
    }

    fn order_rejected(_: Rejected) -> Result<(), String> {
        Ok(())
    }
}

impl Report for Shop {
    fn per_product(sku: String) -> Result<Sales, ReportError> {
        let sold = all_orders().map_err(ReportError::Unavailable)?;
        let (orders, units) = sold.get(&sku).copied().unwrap_or_default();
        Ok(Sales { sku, orders, units })
    }

    fn all() -> Result<Vec<Sales>, ReportError> {
        let mut sales: Vec<_> = all_orders()
            .map_err(ReportError::Unavailable)?
            .into_iter()
            .map(|(sku, (orders, units))| Sales { sku, orders, units })
            .collect();
        // Stable, so that products with as many units stay in the order of their SKU.
        sales.sort_by_key(|sales| std::cmp::Reverse(sales.units));
        Ok(sales)
    }
}

/// Orders and units by SKU.
fn all_orders() -> Result<BTreeMap<String, (u32, u64)>, String> {
    let bucket = open()?;
    let mut sold: BTreeMap<String, (u32, u64)> = BTreeMap::new();
    let mut cursor = None;
    loop {
        let page = bucket.list_keys(cursor).map_err(|error| why(&error))?;
        for key in page.keys {
            let order = bucket.get(&key).map_err(|error| why(&error))?;
            let order = String::from_utf8(order.unwrap_or_default())
                .map_err(|_| format!("order `{key}` is no text"))?;
            for line in order.lines() {
                let (units, sku) = line
                    .split_once(' ')
                    .and_then(|(units, sku)| Some((units.parse::<u64>().ok()?, sku)))
                    .ok_or_else(|| format!("order `{key}` has the line `{line}`"))?;
                let so_far = sold.entry(sku.to_owned()).or_default();
                so_far.0 += 1;
                so_far.1 += units;
            }
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(sold);
        }
    }
}

fn open() -> Result<Bucket, String> {
    store::open("").map_err(|error| why(&error))
}

fn why(error: &store::Error) -> String {
    match error {
        store::Error::NoSuchStore => "the store is gone".to_owned(),
        store::Error::AccessDenied => {
            "sales may keep no data: `grants = { keyvalue = true }` is missing".to_owned()
        }
        store::Error::Other(why) => why.clone(),
    }
}
