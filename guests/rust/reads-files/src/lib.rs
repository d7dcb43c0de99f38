//! Reads files, and tries what is not allowed: tests of granted folders call it.

use std::fs;
use std::io;

wit_bindgen::generate!({
    path: "../../../wit",
    world: "reads-files",
    generate_all,
});

use exports::bay::reads_files::files::Guest;

struct ReadsFiles;

export!(ReadsFiles);

fn why<T>(result: io::Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("{:?}", error.kind()))
}

impl Guest for ReadsFiles {
    fn read(path: String) -> Result<String, String> {
        why(fs::read_to_string(path))
    }

    fn write(path: String, text: String) -> Result<(), String> {
        why(fs::write(path, text))
    }

    fn remove(path: String) -> Result<(), String> {
        why(fs::remove_file(path))
    }

    fn names(path: String) -> Result<Vec<String>, String> {
        let entries = why(fs::read_dir(path))?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = why(names.collect())?;
        names.sort();
        Ok(names)
    }

    fn open(path: String, times: u32) -> Result<(), String> {
        let open = (0..times).map(|_| fs::File::open(&path));
        let open: Vec<_> = why(open.collect())?;
        // Time in which the host counts what is open.
        let mut sum = 0_u64;
        for number in 0..30_000_000_u64 {
            sum = std::hint::black_box(sum ^ number);
        }
        drop(open);
        Ok(())
    }
}
