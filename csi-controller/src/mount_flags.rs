//! Which mount flags a StorageClass or a PersistentVolume may ask for.
//!
//! An allow-list, because a flag reaches mount(2) on the host: what is not known to be harmless
//! is refused. `dev` and `suid` are not on it: every mount is `nodev,nosuid`.

use proto::errors::Failure;

/// Flags without a value.
pub const ALLOWED: [&str; 17] = [
    "ro",
    "rw",
    "noatime",
    "nodiratime",
    "relatime",
    "strictatime",
    "lazytime",
    "sync",
    "async",
    "dirsync",
    "discard",
    "nodiscard",
    "nosuid",
    "nodev",
    "noexec",
    "exec",
    "nouuid",
];

/// Flags with an SELinux label as their value; kubelet adds `context` itself.
pub const ALLOWED_WITH_LABEL: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

/// CSI's limit for all flags of one capability together, in bytes.
const TOTAL_LIMIT: usize = 4096;
const LABEL_LIMIT: usize = 255;

/// Checks all flags of one capability.
///
/// # Errors
/// `InvalidArgument` that names the first flag that is not allowed, without its value, which may
/// be a secret.
pub fn check(flags: &[String]) -> Result<(), Failure> {
    let total: usize = flags.iter().map(String::len).sum();
    if total > TOTAL_LIMIT {
        return Err(Failure::invalid(format!(
            "mount flags are {total} bytes long together; at most {TOTAL_LIMIT} are allowed"
        )));
    }
    flags.iter().try_for_each(|flag| check_one(flag))
}

fn check_one(flag: &str) -> Result<(), Failure> {
    if ALLOWED.contains(&flag) {
        return Ok(());
    }
    let name = flag.split('=').next().unwrap_or_default();
    match flag.split_once('=') {
        Some((key, label)) if ALLOWED_WITH_LABEL.contains(&key) => {
            if is_label(label) {
                return Ok(());
            }
            Err(Failure::invalid(format!(
                "mount flag {name:?} needs an SELinux label like \
                 \"system_u:object_r:container_file_t:s0\", in double quotes if it has a comma"
            )))
        }
        _ => {
            let name: String = name.chars().take(32).collect();
            Err(Failure::invalid(format!(
                "mount flag {name:?} is not allowed; allowed are {}, and {} with a label",
                ALLOWED.join(", "),
                ALLOWED_WITH_LABEL.join(", ")
            )))
        }
    }
}

/// An SELinux label, bare or in double quotes. A bare one may not hold a comma, which would end
/// the option and begin another one.
fn is_label(label: &str) -> bool {
    let quoted = label
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let text = quoted.unwrap_or(label);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_:.-".contains(&byte);
    !text.is_empty()
        && text.len() <= LABEL_LIMIT
        && text
            .bytes()
            .all(|byte| plain(byte) || (quoted.is_some() && byte == b','))
}

#[cfg(test)]
mod tests {
    use proto::errors::Kind;

    use super::{ALLOWED, check};

    fn refused(flag: &str) -> String {
        let failure = check(&[flag.to_owned()]).expect_err(flag);
        assert_eq!(failure.kind, Kind::InvalidArgument, "{flag}");
        failure.message
    }

    #[test]
    fn flags_on_the_list_are_allowed() {
        check(&ALLOWED.map(str::to_owned)).expect("allowed");
        check(&[]).expect("none");
    }

    #[test]
    fn labels_are_allowed_as_kubelet_writes_them() {
        for flag in [
            "context=system_u:object_r:container_file_t:s0",
            "context=\"system_u:object_r:container_file_t:s0:c10,c20\"",
            "rootcontext=u:r:t:s0",
        ] {
            check(&[flag.to_owned()]).expect(flag);
        }
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for flag in [
            "suid",
            "dev",
            "bind",
            "RO",
            "",
            " ro",
            "ro ",
            "remount",
            "loop",
            "data=journal",
        ] {
            let name = flag.split('=').next().unwrap_or_default();
            assert!(refused(flag).contains(&format!("{name:?}")), "{flag}");
        }
    }

    #[test]
    fn a_flag_cannot_smuggle_in_another_one() {
        for flag in [
            "ro,suid",
            "context=u:r:t:s0,suid",
            "context=\"u:r:t:s0\",suid",
            "context=\"u:r:t:s0\",\"suid\"",
            "context=",
            "context=\"\"",
            "context",
            "context=a b",
            "context=u:r:t:s0\0",
            "noatime\nsuid",
        ] {
            refused(flag);
        }
    }

    #[test]
    fn the_value_of_a_refused_flag_is_not_repeated() {
        assert!(!refused("password=hunter2").contains("hunter2"));
        assert!(!refused("context=hunter 2").contains("hunter"));
    }

    #[test]
    fn too_many_flags_are_refused() {
        let flags = vec!["noatime".to_owned(); 1000];
        assert_eq!(
            check(&flags).expect_err("too many").kind,
            Kind::InvalidArgument
        );
        assert!(refused(&"x".repeat(4000)).len() < 500);
    }
}
