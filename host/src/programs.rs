//! Which folders' programs are run without being on `PATH`: those of the project alone, and only
//! what no other user can have put there.
//!
//! A folder above the project may be another user's: `/tmp/.tools/bin/go` can be put there by any.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "wasmbay.toml";

/// Why a program is not run.
#[derive(Debug, thiserror::Error)]
pub struct Unsafe {
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Owner(u32),
    Writable(u32),
    Unreadable(io::Error),
}

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.why {
            Why::Owner(uid) => write!(
                f,
                "{path} belongs to user {uid}, neither to the one who runs this nor to root"
            ),
            Why::Writable(mode) => write!(f, "{path} can be written by others (mode {mode:03o})"),
            Why::Unreadable(error) => write!(f, "{path} cannot be looked at: {error}"),
        }
    }
}

/// The folder and those above it that belong to its project, from near to far.
///
/// A project begins at the nearest folder with a manifest, or at the root of the git repository
/// around it. A repository whose root others can write to is no project: any user can make `/tmp`
/// one.
pub(crate) fn project(start: &Path) -> Vec<PathBuf> {
    let start = std::path::absolute(start).unwrap_or_else(|_| start.to_owned());
    let mut folders = Vec::new();
    let (mut manifest, mut repository) = (None, None);
    for folder in start.ancestors() {
        folders.push(folder.to_owned());
        let git = folder.join(".git");
        if git.exists() {
            if look(folder, true).and_then(|()| look(&git, true)).is_ok() {
                repository = Some(folders.len());
            }
            break;
        }
        if manifest.is_none() && folder.join(MANIFEST).is_file() {
            manifest = Some(folders.len());
        }
    }
    folders.truncate(repository.or(manifest).unwrap_or(1));
    folders
}

/// Whether the program, which is below the folder, and everything on the way to it is its user's or
/// root's, and no other user can change it.
pub(crate) fn check(folder: &Path, program: &Path) -> Result<(), Unsafe> {
    let below = program.strip_prefix(folder).unwrap_or(Path::new(""));
    let mut at = folder.to_owned();
    look(&at, false)?;
    for part in below {
        at.push(part);
        look(&at, false)?;
    }
    // Behind a link is another folder.
    let target = program.canonicalize().map_err(|error| Unsafe {
        path: program.to_owned(),
        why: Why::Unreadable(error),
    })?;
    target.parent().map_or(Ok(()), |parent| look(parent, false))
}

fn look(path: &Path, strict: bool) -> Result<(), Unsafe> {
    let why = match path.metadata() {
        Ok(about) => fault(&about, strict),
        Err(error) => Some(Why::Unreadable(error)),
    };
    why.map_or(Ok(()), |why| {
        Err(Unsafe {
            path: path.to_owned(),
            why,
        })
    })
}

#[cfg(unix)]
fn fault(about: &Metadata, strict: bool) -> Option<Why> {
    use std::os::unix::fs::MetadataExt as _;

    judge(
        rustix::process::geteuid().as_raw(),
        (about.uid(), about.gid(), about.mode()),
        about.is_dir() && !strict,
    )
}

#[cfg(not(unix))]
fn fault(_about: &Metadata, _strict: bool) -> Option<Why> {
    None
}

/// What is wrong with a file of this owner, group and mode. In a folder with the sticky bit others
/// can make files but take none away, and what they make is not the user's.
#[cfg(unix)]
fn judge(user: u32, (uid, gid, mode): (u32, u32, u32), sticky_is_fine: bool) -> Option<Why> {
    if uid != user && uid != 0 {
        return Some(Why::Owner(uid));
    }
    if sticky_is_fine && mode & 0o1000 != 0 {
        return None;
    }
    // Many systems give each user a group of the same number, and let groups write.
    let forbidden = if gid == uid { 0o002 } else { 0o022 };
    (mode & forbidden != 0).then_some(Why::Writable(mode & 0o777))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_file_is_its_users_or_roots_and_nobody_else_writes_it() {
        for (about, dir, fine) in [
            ((1000, 1000, 0o755), false, true),
            ((0, 0, 0o755), false, true),
            ((1000, 1000, 0o775), false, true),
            ((1000, 100, 0o775), false, false),
            ((1000, 1000, 0o757), false, false),
            ((1001, 1001, 0o755), false, false),
            ((0, 0, 0o1777), true, true),
            ((0, 0, 0o1777), false, false),
            ((1001, 1001, 0o1777), true, false),
        ] {
            assert_eq!(judge(1000, about, dir).is_none(), fine, "{about:?}");
        }
        assert!(judge(0, (1000, 1000, 0o755), false).is_some());
    }

    #[test]
    fn a_project_is_what_its_manifest_or_its_repository_holds() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        chmod(root.path(), 0o1777);
        fs::create_dir_all(at("shop/guests/one")).unwrap();
        assert_eq!(project(&at("shop/guests/one")), [at("shop/guests/one")]);
        // One that others could have made.
        fs::create_dir(at(".git")).unwrap();
        assert_eq!(project(&at("shop/guests/one")), [at("shop/guests/one")]);
        touch(&at("wasmbay.toml"));
        let shop = [at("shop/guests/one"), at("shop/guests"), at("shop")];
        touch(&at("shop/wasmbay.toml"));
        assert_eq!(project(&at("shop/guests/one")), shop);
        fs::create_dir(at("shop/.git")).unwrap();
        touch(&at("shop/guests/wasmbay.toml"));
        assert_eq!(project(&at("shop/guests/one")), shop);
        fs::remove_dir(at("shop/.git")).unwrap();
        touch(&at("shop/guests/one/wasmbay.toml"));
        assert_eq!(project(&at("shop/guests/one")), shop[..1]);
    }

    #[test]
    fn what_others_can_write_is_not_run_and_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        touch(&at(".tools/go-1/bin/go"));
        fs::create_dir(at(".tools/bin")).unwrap();
        std::os::unix::fs::symlink("../go-1/bin/go", at(".tools/bin/go")).unwrap();
        let program = at(".tools/bin/go");
        check(root.path(), &program).unwrap();
        for open in [
            ".tools/go-1/bin/go",
            ".tools/bin",
            ".tools",
            ".tools/go-1/bin",
        ] {
            let before = at(open).metadata().unwrap().permissions();
            chmod(&at(open), 0o777);
            let message = check(root.path(), &program).unwrap_err().to_string();
            assert!(
                message.ends_with("can be written by others (mode 777)"),
                "{message}"
            );
            fs::set_permissions(at(open), before).unwrap();
        }
        check(root.path(), &program).unwrap();
    }
}
