//! What lies in a folder, to compare before and after.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Everything below a folder: kind, size, mode, inode and, for a link, where it points.
pub type Tree = BTreeMap<PathBuf, String>;

/// Lists everything below `folder` on the same filesystem, without following links.
#[must_use]
pub fn list(folder: &Path) -> Tree {
    let mut tree = Tree::new();
    let device = std::fs::symlink_metadata(folder).map_or(0, |meta| meta.dev());
    walk(folder, device, &mut tree);
    tree
}

fn walk(folder: &Path, device: u64, tree: &mut Tree) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(meta) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = if meta.is_symlink() {
            format!(
                "link to {:?}",
                std::fs::read_link(&path).unwrap_or_default()
            )
        } else if meta.is_dir() {
            "folder".to_owned()
        } else {
            format!("file of {} bytes", meta.size())
        };
        let line = format!("{kind}, mode {:o}, inode {}", meta.mode(), meta.ino());
        let is_folder = meta.is_dir() && meta.dev() == device;
        if is_folder {
            walk(&path, device, tree);
        }
        let _before = tree.insert(path, line);
    }
}

/// The differences between two listings, one line each.
#[must_use]
pub fn differences(before: &Tree, after: &Tree) -> Vec<String> {
    let gone = before
        .iter()
        .filter(|(path, _)| !after.contains_key(*path))
        .map(|(path, line)| format!("gone: {} ({line})", path.display()));
    let new_or_changed = after
        .iter()
        .filter_map(|(path, line)| match before.get(path) {
            None => Some(format!("new: {} ({line})", path.display())),
            Some(old) if old != line => {
                Some(format!("changed: {} ({old} -> {line})", path.display()))
            }
            Some(_same) => None,
        });
    gone.chain(new_or_changed).collect()
}

/// Nothing below the folder may have changed.
#[track_caller]
pub fn unchanged(what: &str, before: &Tree, after: &Tree) {
    let differences = differences(before, after);
    assert!(differences.is_empty(), "{what}: {differences:#?}");
}
