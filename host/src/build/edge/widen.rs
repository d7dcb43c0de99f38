//! The world that the tool reads: the guest's own, and what the globals of `globals.js` import.

use wit_component::WitPrinter;
use wit_parser::Resolve;

use super::World;
use crate::build::BuildError;

/// The world as text, and the version of WASI that its globals import.
pub(super) struct Widened {
    pub(super) wit: String,
    pub(super) version: String,
}

/// Only what is called: hosts compare what a component imports, not what its WIT could.
const GLOBALS: &str = "package wasmbay:globals;
world globals {
  import wasi:cli/stderr@VERSION;
  import wasi:random/insecure-seed@VERSION;
  import wasi:random/random@VERSION;
}
package wasi:io@VERSION {
  interface error { resource error; }
  interface streams {
    use error.{error};
    variant stream-error { last-operation-failed(error), closed }
    resource output-stream {
      blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
    }
  }
}
package wasi:cli@VERSION {
  interface stderr {
    use wasi:io/streams@VERSION.{output-stream};
    get-stderr: func() -> output-stream;
  }
}
package wasi:random@VERSION {
  interface insecure-seed { insecure-seed: func() -> tuple<u64, u64>; }
  interface random { get-random-bytes: func(len: u64) -> list<u8>; }
}
";

/// Versions that hosts have; one is taken that the guest's own WIT has nothing of.
const PATCHES: std::ops::Range<u32> = 0..13;

pub(super) fn widen(world: &World, folder: &std::path::Path) -> Result<Widened, BuildError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| BuildError::Component {
        step: "adding the globals' imports to the world",
        folder: folder.to_owned(),
        source,
    };
    let taken = |version: &str| {
        world.resolve.packages.iter().any(|(_, package)| {
            let name = &package.name;
            name.namespace == "wasi"
                && name
                    .version
                    .as_ref()
                    .is_some_and(|it| it.to_string() == version)
        })
    };
    let version = PATCHES
        .rev()
        .map(|patch| format!("0.2.{patch}"))
        .find(|version| !taken(version))
        .ok_or_else(|| failed("the WIT has packages of every version of WASI 0.2".into()))?;
    let mut resolve = world.resolve.clone();
    let globals = resolve
        .push_str("globals.wit", &GLOBALS.replace("VERSION", &version))
        .map_err(|error| failed(error.into()))?;
    let imports = resolve
        .select_world(&[globals], None)
        .map_err(|error| failed(error.into()))
        .map(|id| resolve.worlds.get(id).map(|world| world.imports.clone()))?;
    let Some(own) = resolve.worlds.get_mut(world.id) else {
        return Err(failed("the world is gone".into()));
    };
    own.imports.extend(imports.unwrap_or_default());
    let Some(package) = own.package else {
        return Err(failed("the world has no package".into()));
    };
    let wit = print(&resolve, package).map_err(failed)?;
    Ok(Widened { wit, version })
}

fn print(
    resolve: &Resolve,
    main: wit_parser::PackageId,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let others: Vec<_> = (resolve.packages.iter())
        .map(|(id, _)| id)
        .filter(|id| *id != main)
        .collect();
    let mut printer = WitPrinter::default();
    printer.print(resolve, main, &others)?;
    Ok(printer.output.to_string())
}
