//! Which files change, reported in bursts: an editor that saves, or a checkout, is one change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use wasmbay::manifest::LOCK;

use crate::project::{Project, Source, named_components};

/// A burst is over when nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(100);

/// A burst is cut off after this long: something keeps writing.
const LONGEST: Duration = Duration::from_secs(2);

/// Looks at what is wanted until nothing more comes into being while it is looked at.
const ROUNDS: usize = 8;

/// Links on the way to one file, as the kernel bounds them.
const MAX_LINKS: usize = 40;

/// Follows the folders that matter, each by itself: a recursive watch would take thousands of the
/// user's inotify watches for `node_modules` and `target`.
pub(crate) struct Watch {
    watcher: RecommendedWatcher,
    sender: mpsc::UnboundedSender<PathBuf>,
    changes: mpsc::UnboundedReceiver<PathBuf>,
    followed: BTreeSet<PathBuf>,
    wanted: Wanted,
}

impl Watch {
    pub(crate) fn new() -> notify::Result<Self> {
        let (sender, changes) = mpsc::unbounded_channel();
        let told = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // At the end, there is no receiver any more.
            let send = |path: PathBuf| drop(told.send(path));
            match event {
                // What was missed can be anywhere, and this path is above everything.
                Ok(event) if event.need_rescan() => send(PathBuf::new()),
                Ok(event) if !changes_something(&event) => {}
                Ok(event) => event.paths.into_iter().for_each(send),
                Err(error) => tracing::warn!(%error, "changes may be missed"),
            }
        })?;
        Ok(Self {
            watcher,
            sender,
            changes,
            followed: BTreeSet::new(),
            wanted: Wanted::default(),
        })
    }

    /// Follows all that the project is made of, and nothing else; of what its manifest names and is not
    /// there, the nearest folder above.
    pub(crate) fn follow(&mut self, project: &Project) {
        self.follow_wanted(|| Wanted::of(project));
    }

    /// The same, and a folder of the project besides.
    pub(crate) fn follow_also(&mut self, project: &Project, folder: &Path) {
        self.follow_wanted(|| Wanted::of(project).with(folder));
    }

    fn follow_wanted(&mut self, wanted: impl Fn() -> Wanted) {
        for round in 0..ROUNDS {
            let wanted = wanted();
            if round > 0 {
                // It came into being before what is above it was watched.
                for folder in wanted.folders.difference(&self.wanted.folders) {
                    let _ = self.sender.send(folder.clone());
                }
            }
            self.wanted = wanted;
            if !self.watch_wanted() {
                break;
            }
        }
    }

    /// Watches what is wanted and is not watched yet; returns whether there was any.
    fn watch_wanted(&mut self) -> bool {
        let wanted = &self.wanted.folders;
        for gone in self.followed.difference(wanted) {
            // A folder that was removed is not watched any more as it is.
            let _ = self.watcher.unwatch(gone);
        }
        self.followed.retain(|folder| wanted.contains(folder));
        let mut more = false;
        for folder in wanted {
            if self.followed.contains(folder) {
                continue;
            }
            more = true;
            match self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.followed.insert(folder.clone())),
                // The next round finds what is there instead.
                Err(_) if !folder.exists() => {}
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "changes here are not seen; is fs.inotify.max_user_watches large enough?");
                }
            }
        }
        more
    }

    /// Waits for a change that matters and for the end of its burst.
    pub(crate) async fn changed(&mut self) -> BTreeSet<PathBuf> {
        let mut changed = BTreeSet::new();
        let mut end = None;
        loop {
            let path = match end {
                // The watcher lives as long as this, and so does its sender.
                None => self.changes.recv().await,
                Some(end) => {
                    let quiet = timeout(QUIET, self.changes.recv());
                    timeout_at(end, quiet)
                        .await
                        .ok()
                        .and_then(Result::ok)
                        .flatten()
                }
            };
            let Some(path) = path else { return changed };
            // Folders at and below it that were made anew under the same names have to be watched anew.
            let stale = self.followed.iter().filter(|one| one.starts_with(&path));
            for folder in stale.cloned().collect::<Vec<_>>() {
                self.followed.remove(&folder);
                let _ = self.watcher.unwatch(&folder);
            }
            if self.wanted.matters(&path) {
                end = end.or_else(|| Some(Instant::now() + LONGEST));
                changed.insert(path);
            }
        }
    }

    /// Whether the manifest is among what has changed.
    pub(crate) fn is_manifest(&self, changed: &BTreeSet<PathBuf>) -> bool {
        changed.iter().any(|path| self.wanted.is_manifest(path))
    }

    /// Whether the project has to be read again: its manifest has changed, or what a path in it leads to.
    pub(crate) fn renews(&self, changed: &BTreeSet<PathBuf>) -> bool {
        changed.iter().any(|path| self.wanted.renews(path))
    }
}

/// Reading is no change, and builds read; nor are the times of a folder.
fn changes_something(event: &notify::Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => written(kind),
        EventKind::Modify(ModifyKind::Metadata(_)) => !event.paths.iter().all(|path| path.is_dir()),
        _ => true,
    }
}

fn written(kind: AccessKind) -> bool {
    matches!(kind, AccessKind::Close(notify::event::AccessMode::Write))
}

/// What is watched, and what of it matters.
#[derive(Debug, Default)]
struct Wanted {
    folders: BTreeSet<PathBuf>,
    /// Of these folders, everything matters.
    whole: BTreeSet<PathBuf>,
    /// The manifest.
    manifest: BTreeSet<PathBuf>,
    /// What the manifest names, with the links on the way there.
    named: BTreeSet<PathBuf>,
}

impl Wanted {
    fn of(project: &Project) -> Self {
        let mut whole = folders(project);
        whole.retain(|folder| folder.is_dir());
        let manifest = Way::to(&project.given);
        let mut wanted = Self {
            folders: manifest.folders.union(&whole).cloned().collect(),
            whole,
            manifest: manifest.passed,
            named: BTreeSet::new(),
        };
        wanted.manifest.insert(project.manifest.clone());
        // It says which components the manifest means.
        let lock = Way::to(&project.given.with_file_name(LOCK));
        wanted.manifest.extend(lock.passed);
        wanted.folders.extend(lock.folders);
        let guests = project.sources.values().filter_map(Source::guest);
        let wits = guests.map(|guest| guest.wit.clone());
        for named in named_components(&project.manifest).into_iter().chain(wits) {
            let way = Way::to(&named);
            wanted.folders.extend(way.folders);
            // A folder of the app that is moved away takes along what is in it.
            let root = &project.root;
            for end in &way.passed {
                let above = end.ancestors().skip(1);
                let inside = above.take_while(|folder| folder.starts_with(root));
                let there = inside.filter(|folder| folder.is_dir());
                wanted.folders.extend(there.map(Path::to_owned));
            }
            wanted.named.extend(way.passed);
        }
        wanted
    }

    /// With all of a folder, or with the place where it may come into being.
    fn with(mut self, folder: &Path) -> Self {
        let mut inside = BTreeSet::new();
        walk(folder, &|folder| folder.is_dir(), &mut inside);
        let way = Way::to(folder);
        self.folders
            .extend(inside.iter().cloned().chain(way.folders));
        self.whole.extend(inside);
        self.named.extend(way.passed);
        self
    }

    fn matters(&self, path: &Path) -> bool {
        let inside = path
            .parent()
            .is_some_and(|folder| self.whole.contains(folder));
        inside || self.is_above(path) || self.is_named(path)
    }

    /// Something that matters is at this path or below it.
    fn is_above(&self, path: &Path) -> bool {
        let sets = [&self.whole, &self.manifest, &self.named];
        sets.into_iter().flatten().any(|one| one.starts_with(path))
    }

    /// It is in a folder that the manifest names and that may be no guest yet.
    fn is_named(&self, path: &Path) -> bool {
        self.named.iter().any(|one| path.starts_with(one))
    }

    fn is_manifest(&self, path: &Path) -> bool {
        self.manifest.iter().any(|one| one.starts_with(path))
    }

    fn renews(&self, path: &Path) -> bool {
        if self.is_manifest(path) {
            return true;
        }
        let mut below = self.named.iter().filter(|one| one.starts_with(path));
        // A file that is written again is the same component in other words.
        below.any(|one| one != path || !is_plain_file(path))
    }
}

fn is_plain_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|file| file.is_file())
}

/// How the system gets to a file: over links, each of which can be changed, and up to where something is
/// missing.
#[derive(Debug, Default)]
struct Way {
    /// Folders in which a change leads elsewhere.
    folders: BTreeSet<PathBuf>,
    /// The links, and the end, or what is missing.
    passed: BTreeSet<PathBuf>,
}

impl Way {
    fn to(path: &Path) -> Self {
        let mut way = Self::default();
        let mut here = PathBuf::new();
        let owned = |path: &Path| -> VecDeque<PathBuf> {
            let parts = path.components();
            parts.map(|part| PathBuf::from(part.as_os_str())).collect()
        };
        let mut rest = owned(path);
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            match part.components().next() {
                Some(Component::ParentDir) => drop(here.pop()),
                Some(Component::CurDir) | None => {}
                Some(_) => {
                    let next = here.join(&part);
                    let Ok(found) = next.symlink_metadata() else {
                        way.folders.insert(here);
                        way.passed
                            .insert(next.join(rest.iter().collect::<PathBuf>()));
                        way.passed.insert(next);
                        return way;
                    };
                    if found.is_symlink() && links < MAX_LINKS {
                        links += 1;
                        way.folders.insert(here.clone());
                        let target = std::fs::read_link(&next).unwrap_or_default();
                        let mut parts = owned(&target);
                        parts.append(&mut rest);
                        rest = parts;
                        way.passed.insert(next);
                    } else {
                        here = next;
                    }
                }
            }
        }
        let end = if here.is_dir() {
            Some(&*here)
        } else {
            here.parent()
        };
        way.folders.extend(end.map(Path::to_owned));
        way.passed.insert(here);
        way
    }
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
            Source::Fetched(_) => {}
            Source::Guest(guest) => {
                for path in guest.sources() {
                    if path.is_dir() {
                        trees.insert(path, name);
                    } else {
                        parent_of(&path);
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
                &|folder| folder == tree || source.is_watched(folder),
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
    fn the_way_to_a_file_leads_over_links_and_ends_where_something_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path);
        let set = |paths: &[&str]| paths.iter().map(|path| at(path)).collect::<BTreeSet<_>>();
        std::fs::create_dir_all(at("releases/one")).unwrap();
        std::fs::write(at("releases/one/x.wasm"), "").unwrap();
        std::os::unix::fs::symlink("releases/one", at("current")).unwrap();
        std::os::unix::fs::symlink(at("circle"), at("circle")).unwrap();

        let way = Way::to(&at("current/../one/x.wasm"));
        assert_eq!(way.folders, set(&["", "releases/one"]));
        assert_eq!(way.passed, set(&["current", "releases/one/x.wasm"]));
        let way = Way::to(&at("current/later/x.wasm"));
        assert_eq!(way.folders, set(&["", "releases/one"]));
        let missing = ["current", "releases/one/later", "releases/one/later/x.wasm"];
        assert_eq!(way.passed, set(&missing));
        assert!(Way::to(&at("circle/x")).folders.contains(&root));
    }

    #[test]
    fn a_guests_folders_are_watched_after_its_first_build_as_before() {
        let dir = tempfile::tempdir().unwrap();
        scaffold(Language::Rust, "greeter", dir.path()).unwrap();
        let app = dir.path().join("greeter");
        let watched = || {
            let (project, ..) = Project::read(&app).unwrap();
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
