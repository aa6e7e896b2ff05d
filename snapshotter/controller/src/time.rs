//! Times as Kubernetes writes them, and sizes.

use k8s_openapi::jiff::Timestamp;

/// Now, to the second.
pub(crate) fn now() -> String {
    show(Timestamp::now())
}

/// A time in nanoseconds since 1970, to the second. One that no calendar has is none.
pub(crate) fn of_nanoseconds(nanoseconds: i64) -> Option<String> {
    Timestamp::from_nanosecond(i128::from(nanoseconds))
        .ok()
        .map(show)
}

/// Now, in nanoseconds since 1970.
pub(crate) fn nanoseconds_now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn show(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A size as the API server would write it: with the largest binary unit that leaves it whole.
pub(crate) fn quantity(bytes: i64) -> String {
    let mut number = bytes;
    let mut unit = "";
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
        if number == 0 || number % 1024 != 0 {
            break;
        }
        number /= 1024;
        unit = next;
    }
    format!("{number}{unit}")
}

#[cfg(test)]
mod tests {
    use super::{of_nanoseconds, quantity};

    #[test]
    fn sizes_have_the_largest_unit_that_leaves_them_whole() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1"),
            (1000, "1000"),
            (1024, "1Ki"),
            (10 << 20, "10Mi"),
            (3 << 29, "1536Mi"),
            (1 << 60, "1Ei"),
            (5_000_000_000, "5000000000"),
        ] {
            assert_eq!(quantity(bytes), text);
        }
    }

    #[test]
    fn times_are_cut_to_seconds() {
        assert_eq!(
            of_nanoseconds(1_700_000_000_999_999_999).unwrap(),
            "2023-11-14T22:13:20Z"
        );
        assert_eq!(of_nanoseconds(0).unwrap(), "1970-01-01T00:00:00Z");
        assert!(of_nanoseconds(i64::MAX).is_some());
    }
}
