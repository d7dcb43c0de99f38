//! Reads the streams of a service and gives it some.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "reads-streams",
    generate_all,
});

use bay::streams::source::{self, Row};
use exports::bay::streams::reader::Guest;
use futures_channel::oneshot;
use wit_bindgen::StreamReader;

struct Reader;

export!(Reader);

fn row(number: u32) -> Row {
    let square = u64::from(number) * u64::from(number);
    Row {
        odd: number % 2 == 1,
        number,
        square,
        text: format!("row {number}"),
    }
}

async fn sum(mut rows: StreamReader<Row>) -> u64 {
    let mut sum = 0;
    while let Some(row) = rows.next().await {
        let expected = self::row(row.number);
        assert!(row.odd == expected.odd && row.square == expected.square);
        assert_eq!(row.text, expected.text);
        sum += u64::from(row.number);
    }
    sum
}

/// Rows that are written as they are read.
fn written(count: u32) -> StreamReader<Row> {
    let (mut to, rows) = wit_stream::new();
    wit_bindgen::spawn_local(async move {
        to.write_all((0..count).map(row).collect()).await;
    });
    rows
}

impl Guest for Reader {
    async fn total(count: u32, millis: u32) -> u64 {
        sum(source::rows(count, millis).await).await
    }

    async fn first(rows: u32, count: u32) -> u32 {
        let mut rows = source::rows(rows, 0).await;
        let mut last = 0;
        for _ in 0..count {
            last = rows.next().await.map_or(last, |row| row.number);
        }
        last
    }

    async fn length(count: u64) -> u64 {
        let mut bytes = source::bytes(count).await;
        let mut length = 0;
        loop {
            let (state, some) = bytes.read(Vec::with_capacity(16 << 10)).await;
            length += some.len() as u64;
            if matches!(state, wit_bindgen::StreamResult::Dropped) {
                return length;
            }
        }
    }

    async fn checked(count: u32) -> Result<u64, String> {
        Ok(sum(source::checked(count).await?).await)
    }

    async fn broken(count: u32) -> u32 {
        source::broken(count).await.collect().await.len() as u32
    }

    async fn later(millis: u32) -> String {
        let (_, text) = source::later(millis).await;
        text.await
    }

    async fn sent(count: u32) -> u64 {
        source::sum(written(count)).await
    }

    async fn refused(count: u32, read: u32) -> u32 {
        let (mut to, rows) = wit_stream::new();
        let (tell, told) = oneshot::channel();
        wit_bindgen::spawn_local(async move {
            let mut written = 0;
            while written < count && to.write_one(row(written)).await.is_none() {
                written += 1;
            }
            let _ = tell.send(written);
        });
        source::some(rows, read).await;
        told.await.unwrap_or_default()
    }

    async fn back(count: u32) -> String {
        let rows = source::upper(written(count)).await.collect().await;
        rows.last().map_or_else(String::new, |row| row.text.clone())
    }

    async fn passed(count: u32) -> u32 {
        let rows = source::rows(count, 0).await;
        let rows = source::same(rows).await;
        source::same(rows).await.collect().await.len() as u32
    }

    async fn through(count: u32, millis: u32) -> StreamReader<Row> {
        source::rows(count, millis).await
    }
}
