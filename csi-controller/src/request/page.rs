//! Paging of lists: how many entries, and where to continue.

use proto::errors::{Failure, Kind};

/// The most entries of one answer, so that it stays below the 4 MiB that gRPC clients accept.
pub(crate) const MAX_ENTRIES: usize = 10_000;

/// Before the id in a token, so that a token can get another form one day and be told apart.
const TOKEN_PREFIX: &str = "after:";

/// What part of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// The id to continue after.
    pub(crate) after: Option<String>,
    /// At least 1.
    pub(crate) max: usize,
}

/// Reads the paging fields of a list request. `is_id` says whether the list can have such an id;
/// the object need not exist any more.
pub(crate) fn parse(
    max_entries: i32,
    starting_token: &str,
    is_id: fn(&str) -> bool,
) -> Result<PageRequest, Failure> {
    let max = usize::try_from(max_entries).map_err(|_negative| {
        Failure::invalid(format!(
            "max_entries {max_entries} is negative; 0 means no limit"
        ))
    })?;
    let max = if max == 0 {
        MAX_ENTRIES
    } else {
        max.min(MAX_ENTRIES)
    };
    if starting_token.is_empty() {
        return Ok(PageRequest { after: None, max });
    }
    match starting_token.strip_prefix(TOKEN_PREFIX) {
        Some(id) if is_id(id) => Ok(PageRequest {
            after: Some(id.to_owned()),
            max,
        }),
        _ => Err(Failure::new(
            Kind::BadToken,
            "starting_token is not one that this list returned; begin again without a token",
        )),
    }
}

/// The token for the page after this id; empty on the last page.
pub(crate) fn token(next: Option<&str>) -> String {
    next.map(|id| format!("{TOKEN_PREFIX}{id}"))
        .unwrap_or_default()
}
