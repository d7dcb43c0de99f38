//! The seed of an nkey: where it is, and what it is.

use std::fmt;
use std::path::PathBuf;

use super::connect::ConnectError;

/// The seed of an nkey.
#[derive(Clone)]
pub enum Nkey {
    /// In a file, alone or between `BEGIN`/`END` lines.
    File(PathBuf),
    /// In the options.
    Seed(String),
}

impl From<&str> for Nkey {
    /// A seed if it looks like one (a user's begins with `SU` and has 58 letters and digits), else
    /// a path.
    fn from(text: &str) -> Self {
        if text.len() == 58
            && text.starts_with("SU")
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            Self::Seed(text.to_owned())
        } else {
            Self::File(PathBuf::from(text))
        }
    }
}

impl Nkey {
    /// Where it is, for errors.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::File(path) => format!("in {}", path.display()),
            Self::Seed(_) => "given".to_owned(),
        }
    }
}

impl fmt::Debug for Nkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Seed(_) => f.write_str("Seed(…)"),
        }
    }
}

/// The file is small, and a connection is not opened often.
pub(super) fn seed(nkey: &Nkey) -> Result<String, ConnectError> {
    let text = match nkey {
        Nkey::File(path) => {
            std::fs::read_to_string(path).map_err(|source| ConnectError::ReadFile {
                what: "nkey",
                path: path.clone(),
                source,
            })?
        }
        Nkey::Seed(seed) => seed.clone(),
    };
    text.lines()
        .map(str::trim)
        .find(|line| line.starts_with("SU"))
        .map(str::to_owned)
        .ok_or_else(|| ConnectError::BadNkey {
            from: nkey.origin(),
        })
}
