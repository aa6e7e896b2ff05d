//! What a path from a request must look like.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};

/// `PATH_MAX`, with the final NUL.
const LONGEST: usize = 4096;

/// Checks the form of a path; the file system is not asked.
pub(super) fn check(path: &str) -> Result<PathBuf> {
    let shown = Path::new(path);
    if path.is_empty() {
        return Err(refused(shown, "is empty"));
    }
    if path.len() >= LONGEST {
        return Err(refused(shown, "has more than 4095 bytes"));
    }
    if path.contains('\0') {
        return Err(refused(shown, "has a NUL byte"));
    }
    if !shown.is_absolute() {
        return Err(refused(shown, "is not absolute"));
    }
    if shown.components().any(|part| part == Component::ParentDir) {
        return Err(refused(shown, "has `..`"));
    }
    // Without doubled and trailing slashes.
    Ok(shown.components().collect())
}

pub(super) fn refused(path: &Path, reason: &str) -> Error {
    let shown: String = path.to_string_lossy().chars().take(256).collect();
    Error::new(
        ErrorKind::InvalidInput,
        format!("the path {shown:?} {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_too_many_are_dropped() {
        assert_eq!(check("//a///b/./c/").unwrap(), Path::new("/a/b/c"));
    }

    #[test]
    fn hostile_paths_are_refused() {
        let long = format!("/{}", "a/".repeat(2048));
        for path in [
            "", "a", "./a", "../a", "/a/../b", "/..", "/a/b/..", "/a\0b", &long,
        ] {
            assert_eq!(
                check(path).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{path:?}"
            );
        }
    }

    #[test]
    fn names_that_only_look_like_parents_pass() {
        check("/a/..b/c..").unwrap();
        check("/a\nb").unwrap();
    }
}
