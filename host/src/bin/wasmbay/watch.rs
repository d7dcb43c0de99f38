//! Which files change, told in bursts: an editor that saves, or a checkout, is one change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::project::{Project, Source};

/// A burst is over when nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(100);

/// A burst is cut off after this long: something keeps writing.
const LONGEST: Duration = Duration::from_secs(2);

/// Follows the folders that matter, each by itself: a recursive watch would take thousands of the
/// user's inotify watches for `node_modules` and `target`.
pub(crate) struct Watch {
    watcher: RecommendedWatcher,
    changes: mpsc::UnboundedReceiver<PathBuf>,
    followed: BTreeSet<PathBuf>,
}

impl Watch {
    pub(crate) fn new() -> notify::Result<Self> {
        let (sender, changes) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            match event {
                // Reading is no change, and builds read.
                Ok(event) if matches!(event.kind, EventKind::Access(kind) if !written(kind)) => {}
                Ok(event) => {
                    for path in event.paths {
                        // At the end, nobody listens any more.
                        let _ = sender.send(path);
                    }
                }
                Err(error) => tracing::warn!(%error, "changes may be missed"),
            }
        })?;
        Ok(Self {
            watcher,
            changes,
            followed: BTreeSet::new(),
        })
    }

    /// Follows all that the project is made of, and nothing else.
    pub(crate) fn follow(&mut self, project: &Project) {
        let wanted = folders(project);
        for gone in self.followed.difference(&wanted) {
            // A folder that was removed is not watched any more as it is.
            let _ = self.watcher.unwatch(gone);
        }
        self.followed.retain(|folder| wanted.contains(folder));
        for folder in wanted {
            if self.followed.contains(&folder) {
                continue;
            }
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.followed.insert(folder)),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "changes here are not seen; is fs.inotify.max_user_watches large enough?");
                }
            }
        }
    }

    /// Waits for a change and for the end of its burst.
    pub(crate) async fn changed(&mut self) -> BTreeSet<PathBuf> {
        let mut changed = BTreeSet::new();
        let Some(first) = self.changes.recv().await else {
            // The watcher lives as long as this, and so does its sender.
            return std::future::pending().await;
        };
        let end = Instant::now() + LONGEST;
        let mut next = Some(first);
        while let Some(path) = next {
            // A folder that was made anew under the same name has to be watched anew.
            if self.followed.remove(&path) {
                let _ = self.watcher.unwatch(&path);
            }
            changed.insert(path);
            let quiet = timeout(QUIET, self.changes.recv());
            next = timeout_at(end, quiet)
                .await
                .ok()
                .and_then(Result::ok)
                .flatten();
        }
        changed
    }
}

fn written(kind: AccessKind) -> bool {
    matches!(kind, AccessKind::Close(notify::event::AccessMode::Write))
}

/// The folders to watch: those of sources, and those of single files, since editors replace files
/// and a watched file would be lost by that.
fn folders(project: &Project) -> BTreeSet<PathBuf> {
    let mut parents = BTreeSet::new();
    let mut parent_of = |file: &Path| parents.extend(file.parent().map(Path::to_owned));
    parent_of(&project.manifest);
    let mut trees = BTreeMap::new();
    for (name, source) in &project.sources {
        match source {
            Source::File(file) => parent_of(file),
            Source::Guest(guest) => {
                for path in guest.sources() {
                    match path.is_dir() {
                        true => drop(trees.insert(path, name)),
                        false => parent_of(&path),
                    }
                }
            }
        }
    }
    // A folder that only a single file is watched in counts as walked in no tree: a build reads files
    // of the guest's own folder that are no sources, `Cargo.lock` for one.
    let mut folders = BTreeSet::new();
    for (tree, name) in trees {
        if let Some(source) = project.sources.get(name) {
            walk(
                &tree,
                &|folder| folder == tree || source.depends_on(folder),
                &mut folders,
            );
        }
    }
    folders.extend(parents);
    folders
}

fn walk(folder: &Path, matters: &dyn Fn(&Path) -> bool, folders: &mut BTreeSet<PathBuf>) {
    if !matters(folder) || !folders.insert(folder.to_owned()) {
        return;
    }
    // What cannot be read cannot be built either, which is reported there.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    // A link may lead in a circle; builds do not follow it either.
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        walk(&entry.path(), matters, folders);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmbay::build::{Language, scaffold};

    #[test]
    fn a_guests_folders_are_watched_after_its_first_build_as_before() {
        let dir = tempfile::tempdir().unwrap();
        scaffold(Language::Rust, "greeter", dir.path()).unwrap();
        let app = dir.path().join("greeter");
        let watched = || {
            let project = Project::load(&app).unwrap();
            let root = project.root.clone();
            let folders = folders(&project).into_iter();
            let inside = |folder: PathBuf| folder.strip_prefix(&root).unwrap().to_owned();
            folders.map(inside).collect::<Vec<_>>()
        };
        let all = ["", "greeter", "greeter/src", "wit"].map(PathBuf::from);
        assert_eq!(watched(), all);
        // What the first build leaves: the lock file is in the folder, and no source.
        let lock = app.join("greeter/Cargo.lock").display().to_string();
        let read = serde_json::json!({ "sources": "", "tools": "", "elsewhere": [lock] });
        std::fs::create_dir(app.join("greeter/.wasmbay")).unwrap();
        std::fs::write(app.join("greeter/.wasmbay/greeter.json"), read.to_string()).unwrap();
        assert_eq!(watched(), all);
    }
}
