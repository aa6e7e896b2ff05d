//! Limits that CSI sets for strings and maps, and how strings of callers are shown.

use std::collections::HashMap;

use proto::errors::Failure;

/// The longest string that CSI allows where it says nothing else, in bytes.
pub(crate) const STRING_LIMIT: usize = 128;
/// The largest map that CSI allows, keys and values together, in bytes.
const MAP_LIMIT: usize = 4096;
/// How much of a caller's string a message or a log line shows, in characters.
const SHOWN_CHARACTERS: usize = 64;

/// A caller's string in quotes, control characters escaped, cut if it is long.
///
/// Messages travel in HTTP/2 headers and end up in events and logs: without the cut a long name
/// breaks the answer, without the escapes it forges log lines.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

/// Checks the name of a volume or a snapshot.
///
/// Any Unicode up to 128 bytes, white space and newlines too: names become ids by hashing, never
/// paths. Other control characters are refused, as CSI demands.
pub(crate) fn name(text: &str) -> Result<&str, Failure> {
    if text.is_empty() {
        return Err(Failure::invalid("name is missing"));
    }
    check_length("name", text)?;
    let banned = |letter: char| letter.is_control() && !matches!(letter, '\t' | '\n' | '\r');
    if text.contains(banned) {
        return Err(Failure::invalid(format!(
            "name {} has control characters, which CSI does not allow in a name",
            shown(text)
        )));
    }
    Ok(text)
}

/// Checks an id that must name something: not empty, at most 128 bytes.
pub(crate) fn id<'a>(field: &str, text: &'a str) -> Result<&'a str, Failure> {
    required(field, text)?;
    check_length(field, text)?;
    Ok(text)
}

/// Checks an id of something to be deleted. An over-long one names nothing, so there is nothing
/// left to delete: no failure.
pub(crate) fn required<'a>(field: &str, text: &'a str) -> Result<&'a str, Failure> {
    if text.is_empty() {
        return Err(Failure::invalid(format!("{field} is missing")));
    }
    Ok(text)
}

fn check_length(field: &str, text: &str) -> Result<(), Failure> {
    if text.len() > STRING_LIMIT {
        return Err(Failure::invalid(format!(
            "{field} is {} bytes long; CSI allows {STRING_LIMIT}",
            text.len()
        )));
    }
    Ok(())
}

/// Checks the size of a map.
pub(crate) fn map(field: &str, map: &HashMap<String, String>) -> Result<(), Failure> {
    let total: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if total > MAP_LIMIT {
        return Err(Failure::invalid(format!(
            "{field} is {total} bytes long; CSI allows {MAP_LIMIT}"
        )));
    }
    Ok(())
}
