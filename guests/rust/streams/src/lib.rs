//! Gives streams and takes them.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "streams",
    generate_all,
});

use exports::bay::streams::source::{Guest, Row};
use wasip3::clocks::monotonic_clock::wait_for;
use wit_bindgen::{FutureReader, StreamReader, StreamWriter};

struct Streams;

export!(Streams);

fn row(number: u32) -> Row {
    let square = u64::from(number) * u64::from(number);
    Row {
        odd: number % 2 == 1,
        number,
        square,
        text: format!("row {number}"),
    }
}

/// Writes rows one by one, until nobody reads them.
async fn write(mut to: StreamWriter<Row>, count: u32, millis: u32) {
    for number in 0..count {
        if millis > 0 {
            wait_for(u64::from(millis) * 1_000_000).await;
        }
        if to.write_one(row(number)).await.is_some() {
            return;
        }
    }
}

impl Guest for Streams {
    async fn rows(count: u32, millis: u32) -> StreamReader<Row> {
        let (to, rows) = wit_stream::new();
        wit_bindgen::spawn_local(write(to, count, millis));
        rows
    }

    async fn bytes(count: u64) -> StreamReader<u8> {
        let (mut to, bytes) = wit_stream::new();
        wit_bindgen::spawn_local(async move {
            let mut left = count;
            while left > 0 {
                let some = left.min(64 << 10);
                if !to.write_all(vec![0; some as usize]).await.is_empty() {
                    return;
                }
                left -= some;
            }
        });
        bytes
    }

    async fn checked(count: u32) -> Result<StreamReader<Row>, String> {
        if count > 1_000 {
            return Err(format!("{count} rows are too many"));
        }
        let (mut to, rows) = wit_stream::new();
        wit_bindgen::spawn_local(async move {
            to.write_all((0..count).map(row).collect()).await;
        });
        Ok(rows)
    }

    async fn broken(count: u32) -> StreamReader<Row> {
        let (mut to, rows) = wit_stream::new();
        wit_bindgen::spawn_local(async move {
            to.write_all((0..count).map(row).collect()).await;
            panic!("as asked");
        });
        rows
    }

    async fn later(millis: u32) -> (u32, FutureReader<String>) {
        let (to, text) = wit_future::new(String::new);
        wit_bindgen::spawn_local(async move {
            wait_for(u64::from(millis) * 1_000_000).await;
            let _ = to.write("later".to_owned()).await;
        });
        (millis, text)
    }

    async fn sum(mut rows: StreamReader<Row>) -> u64 {
        let mut sum = 0;
        while let Some(row) = rows.next().await {
            sum += u64::from(row.number);
        }
        sum
    }

    async fn some(mut rows: StreamReader<Row>, count: u32) -> u32 {
        let mut read = 0;
        while read < count && rows.next().await.is_some() {
            read += 1;
        }
        read
    }

    async fn upper(mut rows: StreamReader<Row>) -> StreamReader<Row> {
        let (mut to, raised) = wit_stream::new();
        wit_bindgen::spawn_local(async move {
            while let Some(row) = rows.next().await {
                let text = row.text.to_uppercase();
                if to.write_one(Row { text, ..row }).await.is_some() {
                    return;
                }
            }
        });
        raised
    }

    async fn same(rows: StreamReader<Row>) -> StreamReader<Row> {
        rows
    }
}
