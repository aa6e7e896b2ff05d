//! Kubernetes quantities, as far as sizes need them: `10Gi`, `1.5G`, `11381663335`, `1e9`.

/// The number of bytes, rounded up; `None` if it is no size.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        other => 10_f64.powi(other.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let bytes = (number * factor).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the parsed number has no sign, and a float is cast to the nearest value there is"
    )]
    bytes.is_finite().then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("10Gi", Some(10 << 30)),
            ("1.5G", Some(1_500_000_000)),
            ("11381663335", Some(11_381_663_335)),
            ("1e9", Some(1_000_000_000)),
            ("100E", Some(u64::MAX)),
            ("1500m", Some(2)),
            ("", None),
            ("Gi", None),
            ("-1", None),
            ("1 Gi", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }
}
