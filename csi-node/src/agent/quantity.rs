//! Sizes as Kubernetes people read them.

/// `10Gi`, `1.5Gi`, `300Mi`: in the largest unit of which there is at least one, with one decimal if it is not whole.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "for display only")]
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [(&str, u32); 5] = [("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let fitting = UNITS.iter().find(|(_, shift)| bytes >> shift > 0);
    let Some((unit, shift)) = fitting else {
        return bytes.to_string();
    };
    let whole = bytes >> shift;
    if whole << shift == bytes {
        return format!("{whole}{unit}");
    }
    let value = bytes as f64 / (1_u64 << shift) as f64;
    format!("{value:.1}{unit}")
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_print_as_quantities() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1 << 20, "1Mi"),
            (10 << 30, "10Gi"),
            (3 << 29, "1.5Gi"),
            ((10 << 30) + 1, "10.0Gi"),
            (u64::MAX, "16384.0Pi"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
