//! Parameters of a class: some are the driver's, some name the Secrets that its calls need.

use std::collections::{BTreeMap, HashMap};

use crate::objects::VolumeSnapshotClass;

/// What begins with this is for controllers, not for the driver.
const PREFIX: &str = "csi.storage.k8s.io/";

/// The Secret of CreateSnapshot and DeleteSnapshot.
const MAKE: Pair = Pair {
    name: "csi.storage.k8s.io/snapshotter-secret-name",
    namespace: "csi.storage.k8s.io/snapshotter-secret-namespace",
};
/// The Secret of ListSnapshots.
const LIST: Pair = Pair {
    name: "csi.storage.k8s.io/snapshotter-list-secret-name",
    namespace: "csi.storage.k8s.io/snapshotter-list-secret-namespace",
};
/// Also allowed in a class: for groups of snapshots.
const OF_GROUPS: [&str; 4] = [
    "csi.storage.k8s.io/group-snapshotter-secret-name",
    "csi.storage.k8s.io/group-snapshotter-secret-namespace",
    "csi.storage.k8s.io/group-snapshotter-get-secret-name",
    "csi.storage.k8s.io/group-snapshotter-get-secret-namespace",
];

struct Pair {
    name: &'static str,
    namespace: &'static str,
}

/// Where a Secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretReference {
    pub(crate) name: String,
    pub(crate) namespace: String,
}

/// What the names of Secrets may be made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a> {
    pub(crate) content: &'a str,
    /// Namespace and name; not known for a content alone.
    pub(crate) snapshot: Option<(&'a str, &'a str)>,
}

/// The parameters that the driver gets.
pub(crate) fn for_driver(class: &VolumeSnapshotClass) -> Result<HashMap<String, String>, String> {
    let mut known = vec![MAKE.name, MAKE.namespace, LIST.name, LIST.namespace];
    known.extend(OF_GROUPS);
    let mut parameters = HashMap::new();
    for (key, value) in class.parameters.iter().flatten() {
        if !key.starts_with(PREFIX) {
            parameters.insert(key.clone(), value.clone());
        } else if !known.contains(&key.as_str()) {
            return Err(format!(
                "the class has the parameter {key}, which does not exist; under {PREFIX} there are {}",
                known.join(", ")
            ));
        }
    }
    Ok(parameters)
}

/// The Secret with which a snapshot is made and deleted.
pub(crate) fn secret_to_make(
    class: &VolumeSnapshotClass,
    words: Words<'_>,
) -> Result<Option<SecretReference>, String> {
    reference(class, &MAKE, words)
}

/// The Secret with which a snapshot is asked for.
pub(crate) fn secret_to_list(
    class: &VolumeSnapshotClass,
    words: Words<'_>,
) -> Result<Option<SecretReference>, String> {
    reference(class, &LIST, words)
}

fn reference(
    class: &VolumeSnapshotClass,
    pair: &Pair,
    words: Words<'_>,
) -> Result<Option<SecretReference>, String> {
    let empty = BTreeMap::new();
    let parameters = class.parameters.as_ref().unwrap_or(&empty);
    let (name, namespace) = match (parameters.get(pair.name), parameters.get(pair.namespace)) {
        (None, None) => return Ok(None),
        (Some(name), Some(namespace)) if !name.is_empty() && !namespace.is_empty() => {
            (name, namespace)
        }
        _ => {
            return Err(format!(
                "the class has to have both {} and {}, or neither",
                pair.name, pair.namespace
            ));
        }
    };
    let mut known = vec![("volumesnapshotcontent.name", words.content)];
    if let Some((namespace, _)) = words.snapshot {
        known.push(("volumesnapshot.namespace", namespace));
    }
    let namespace = expand(namespace, &known)?;
    if let Some((_, name)) = words.snapshot {
        // Not for the namespace: a user chooses the snapshot's name, and must not choose whose Secrets are read.
        known.push(("volumesnapshot.name", name));
    }
    let name = expand(name, &known)?;
    if !is_label(&namespace) || namespace.len() > 63 {
        return Err(format!(
            "the class's {} comes to {namespace:?}, which is no name of a namespace",
            pair.namespace
        ));
    }
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(format!(
            "the class's {} comes to {name:?}, which is no name of a Secret",
            pair.name
        ));
    }
    Ok(Some(SecretReference { name, namespace }))
}

/// Replaces `${word}` and `$word`.
fn expand(template: &str, known: &[(&str, &str)]) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let (word, remaining) = match after.strip_prefix('{') {
            Some(braced) => braced
                .split_once('}')
                .ok_or_else(|| format!("{template:?} has a ${{ without its }}"))?,
            None => {
                let end = after.find(|c: char| c != '_' && !c.is_ascii_alphanumeric());
                after.split_at(end.unwrap_or(after.len()))
            }
        };
        let value = known.iter().find(|(name, _)| *name == word);
        let Some((_, value)) = value else {
            let names: Vec<String> = known
                .iter()
                .map(|(name, _)| format!("${{{name}}}"))
                .collect();
            return Err(format!(
                "{template:?} names {word:?}; it can name {}",
                names.join(", ")
            ));
        };
        result.push_str(value);
        rest = remaining;
    }
    result.push_str(rest);
    Ok(result)
}

fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(inner)
        && bytes.last().copied().is_some_and(inner)
        && bytes.iter().all(|&c| inner(c) || c == b'-')
}

#[cfg(test)]
mod tests {
    use super::{SecretReference, Words, for_driver, secret_to_list, secret_to_make};
    use crate::objects::VolumeSnapshotClass;

    const WORDS: Words<'_> = Words {
        content: "snapcontent-1",
        snapshot: Some(("shop", "daily")),
    };

    fn class(parameters: &[(&str, &str)]) -> VolumeSnapshotClass {
        let all = parameters
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        VolumeSnapshotClass {
            parameters: Some(all.collect()),
            ..VolumeSnapshotClass::default()
        }
    }

    fn with_secret(name: &str, namespace: &str) -> VolumeSnapshotClass {
        class(&[
            ("csi.storage.k8s.io/snapshotter-secret-name", name),
            ("csi.storage.k8s.io/snapshotter-secret-namespace", namespace),
        ])
    }

    #[test]
    fn the_driver_gets_what_is_not_reserved() {
        let class = class(&[
            ("compression", "zstd"),
            ("csi.storage.k8s.io/snapshotter-list-secret-name", "x"),
            ("csi.storage.k8s.io/group-snapshotter-secret-name", "x"),
        ]);
        let got = for_driver(&class).unwrap();
        assert_eq!(
            got.into_iter().collect::<Vec<_>>(),
            [("compression".to_owned(), "zstd".to_owned())]
        );
    }

    #[test]
    fn a_reserved_parameter_that_does_not_exist_is_refused_by_name() {
        let refused = for_driver(&class(&[("csi.storage.k8s.io/fstype", "xfs")]));
        assert!(refused.unwrap_err().contains("csi.storage.k8s.io/fstype"));
    }

    #[test]
    fn a_class_without_secrets_has_none() {
        assert_eq!(secret_to_make(&class(&[]), WORDS), Ok(None));
        assert_eq!(
            secret_to_list(&VolumeSnapshotClass::default(), WORDS),
            Ok(None)
        );
        assert_eq!(secret_to_list(&with_secret("a", "b"), WORDS), Ok(None));
    }

    #[test]
    fn templates_are_filled_in() {
        let class = with_secret(
            "${volumesnapshot.name}-of-${volumesnapshotcontent.name}",
            "${volumesnapshot.namespace}",
        );
        let want = SecretReference {
            name: "daily-of-snapcontent-1".to_owned(),
            namespace: "shop".to_owned(),
        };
        assert_eq!(secret_to_make(&class, WORDS), Ok(Some(want)));
    }

    #[test]
    fn a_user_cannot_choose_the_namespace_by_the_name_of_a_snapshot() {
        assert!(secret_to_make(&with_secret("a", "${volumesnapshot.name}"), WORDS).is_err());
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused() {
        let alone = Words {
            content: "c",
            snapshot: None,
        };
        for (name, namespace, words) in [
            ("", "b", WORDS),
            ("a", "", WORDS),
            ("A", "b", WORDS),
            ("a", "b.c", WORDS),
            ("a", "-b", WORDS),
            ("a..b", "b", WORDS),
            ("a", "${what}", WORDS),
            ("a", "$what", WORDS),
            ("${a", "b", WORDS),
            ("$", "b", WORDS),
            ("${volumesnapshot.name}", "b", alone),
        ] {
            assert!(
                secret_to_make(&with_secret(name, namespace), words).is_err(),
                "{name} {namespace}"
            );
        }
        let half = class(&[("csi.storage.k8s.io/snapshotter-secret-name", "a")]);
        assert!(secret_to_make(&half, WORDS).is_err());
    }
}
