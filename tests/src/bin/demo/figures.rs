//! Figures as people read them.

use std::time::Duration;

/// One mebibyte.
pub(crate) const MIB: u64 = 1 << 20;
/// One gibibyte.
pub(crate) const GIB: u64 = 1 << 30;

/// Bytes in the largest binary unit that leaves something before the point.
pub(crate) fn bytes(count: u64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scaled = tenths(count, 1);
    while scaled >= 10_240 && unit + 1 < units.len() {
        unit += 1;
        scaled = tenths(count, 1 << (10 * unit));
    }
    let name = units[unit];
    if scaled.is_multiple_of(10) || unit == 0 {
        format!("{} {name}", scaled / 10)
    } else {
        format!("{}.{} {name}", scaled / 10, scaled % 10)
    }
}

fn tenths(count: u64, unit: u64) -> u64 {
    u64::try_from(u128::from(count) * 10 / u128::from(unit)).unwrap_or(u64::MAX)
}

/// A duration in milliseconds below one second, else in seconds.
pub(crate) fn time(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis().max(1))
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// How many times `large` is `small`, rounded down.
pub(crate) fn times(large: Duration, small: Duration) -> u128 {
    large.as_micros() / small.as_micros().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(2 * GIB), "2 GiB");
        assert_eq!(bytes(3 * MIB / 2), "1.5 MiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn times_are_shown_in_the_unit_that_fits() {
        assert_eq!(time(Duration::from_micros(20)), "1 ms");
        assert_eq!(time(Duration::from_millis(950)), "950 ms");
        assert_eq!(time(Duration::from_millis(2340)), "2.3 s");
    }
}
