//! How a node is named in CSI topology: the key of a driver, and the value of a node.
//!
//! Both sides of the driver use it: the node announces its value, the controller matches it.

/// The longest value a Kubernetes label can have, in bytes.
const LABEL_VALUE_LIMIT: usize = 63;

/// The topology key of a driver: `topology.<driver>/node`.
#[must_use]
pub fn key(driver: &str) -> String {
    format!("topology.{driver}/node")
}

/// The topology value of a node: its name, or `node-` and a hash of it if it is longer than a
/// label value may be (63 bytes; node names may have 253).
#[must_use]
pub fn value(node: &str) -> String {
    if node.len() <= LABEL_VALUE_LIMIT {
        return node.to_owned();
    }
    let hash = blake3::hash(node.as_bytes()).to_hex();
    format!("node-{}", &hash.as_str()[..32])
}

#[cfg(test)]
mod tests {
    use super::{key, value};

    #[test]
    fn a_name_that_fits_a_label_is_its_own_value() {
        assert_eq!(value("edge-1"), "edge-1");
        assert_eq!(value(&"n".repeat(63)), "n".repeat(63));
    }

    #[test]
    fn a_longer_name_is_hashed_and_stays_apart_from_others() {
        let long = "n".repeat(64);
        assert_eq!(value(&long).len(), 37);
        assert!(value(&long).starts_with("node-"));
        assert_ne!(value(&long), value(&"n".repeat(65)));
    }

    #[test]
    fn the_key_belongs_to_the_driver() {
        assert_eq!(key("vd.csi.io"), "topology.vd.csi.io/node");
    }
}
