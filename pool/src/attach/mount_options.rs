//! Mount options by allow-list. Pure: text in, flags out.
//!
//! A mount option is a way into the kernel's filesystem code for whoever may write a PersistentVolume, so only options
//! that are known to be harmless pass. `nosuid` and `nodev` are always set: the content of a volume is not trusted.

use sys_mount::MountFlags;

use crate::error::{Error, ErrorKind, Result};
use crate::record::FsType;

/// Options that were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOptions {
    flags: MountFlags,
    data: Vec<String>,
}

/// Every option there is, for the message that refuses another one.
const KNOWN: &str = "ro, rw, noatime, nodiratime, relatime, strictatime, lazytime, sync, async, dirsync, noexec, exec, \
                     nosuid, nodev, discard, nodiscard, nouuid, context=, fscontext=, defcontext=, rootcontext=";
const CONTEXTS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];
const LONGEST_CONTEXT: usize = 1024;

enum Effect {
    Set(MountFlags),
    Clear(MountFlags),
    Data,
    None,
}

impl MountOptions {
    /// Checks `options`, each one option as in `mount -o`. Of two that contradict each other the later one counts, as
    /// with mount(8).
    ///
    /// # Errors
    /// `InvalidInput` that names the option and lists the known ones.
    pub fn parse(options: &[impl AsRef<str>]) -> Result<Self> {
        let mut parsed = Self::default();
        for option in options {
            let option = option.as_ref();
            match effect(option) {
                Some(Effect::Set(flags)) => parsed.flags |= flags,
                Some(Effect::Clear(flags)) => parsed.flags -= flags,
                Some(Effect::Data) => parsed.data.push(option.to_owned()),
                Some(Effect::None) => {}
                None => parsed.data.push(context(option)?),
            }
        }
        Ok(parsed)
    }

    /// The same, read-only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.flags |= MountFlags::RDONLY;
        self
    }

    /// Whether it is a read-only mount.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(MountFlags::RDONLY)
    }

    /// The flags for mount(2).
    #[must_use]
    pub fn flags(&self) -> MountFlags {
        self.flags
    }

    /// The flags that belong to one mount and not to the filesystem: all that a bind mount can be given.
    #[must_use]
    pub fn bind_flags(&self) -> MountFlags {
        self.flags
            & (MountFlags::RDONLY
                | MountFlags::NOSUID
                | MountFlags::NODEV
                | MountFlags::NOEXEC
                | MountFlags::NOATIME
                | MountFlags::NODIRATIME
                | MountFlags::RELATIME
                | MountFlags::STRICTATIME)
    }

    /// The first of these options by which a bind mount with them would differ from one that has `found`. What was not said about
    /// access times is as it was at the source, so it is no difference. Whether it is read-only is compared elsewhere.
    #[must_use]
    pub fn difference(&self, found: &[String]) -> Option<&'static str> {
        let asked = |flag| self.flags.contains(flag);
        let strict = asked(MountFlags::STRICTATIME);
        let times = MountFlags::NOATIME
            | MountFlags::NODIRATIME
            | MountFlags::RELATIME
            | MountFlags::STRICTATIME;
        let says_times = self.flags.intersects(times);
        [
            ("noexec", true, asked(MountFlags::NOEXEC)),
            ("noatime", says_times, asked(MountFlags::NOATIME) && !strict),
            (
                "relatime",
                says_times,
                !asked(MountFlags::NOATIME) && !strict,
            ),
            ("nodiratime", says_times, asked(MountFlags::NODIRATIME)),
        ]
        .into_iter()
        .find(|(name, said, wanted)| *said && *wanted != found.iter().any(|one| one == name))
        .map(|(name, ..)| name)
    }

    /// The options for the filesystem itself. XFS is always told not to insist on unique UUIDs: a restored volume has
    /// the one of its source, which may be mounted on the same node.
    #[must_use]
    pub fn data(&self, fs: FsType) -> String {
        let mut all: Vec<&str> = self.data.iter().map(String::as_str).collect();
        if fs == FsType::Xfs {
            all.push("nouuid");
        }
        all.join(",")
    }
}

impl Default for MountOptions {
    /// What is always set.
    fn default() -> Self {
        Self {
            flags: MountFlags::NOSUID | MountFlags::NODEV,
            data: Vec::new(),
        }
    }
}

fn effect(option: &str) -> Option<Effect> {
    use Effect::{Clear, Data, Set};
    Some(match option {
        "ro" => Set(MountFlags::RDONLY),
        "rw" => Clear(MountFlags::RDONLY),
        "noatime" => Set(MountFlags::NOATIME),
        "nodiratime" => Set(MountFlags::NODIRATIME),
        "relatime" => Set(MountFlags::RELATIME),
        "strictatime" => Set(MountFlags::STRICTATIME),
        "lazytime" => Set(MountFlags::from_bits_retain(libc::MS_LAZYTIME)),
        "sync" => Set(MountFlags::SYNCHRONOUS),
        "async" => Clear(MountFlags::SYNCHRONOUS),
        "dirsync" => Set(MountFlags::DIRSYNC),
        "noexec" => Set(MountFlags::NOEXEC),
        "exec" => Clear(MountFlags::NOEXEC),
        "nosuid" => Set(MountFlags::NOSUID),
        "nodev" => Set(MountFlags::NODEV),
        "discard" | "nodiscard" => Data,
        // Set for XFS anyway, and meaningless elsewhere.
        "nouuid" => Effect::None,
        _ => return None,
    })
}

/// An SELinux context, which kubelet sends where SELinux is on: `context="system_u:object_r:container_file_t:s0:c1,c2"`.
fn context(option: &str) -> Result<String> {
    let refused = |reason: &str| {
        let shown: String = option.chars().take(64).collect();
        Error::new(
            ErrorKind::InvalidInput,
            format!("mount option {shown:?} {reason}; known options: {KNOWN}"),
        )
    };
    let (key, value) = option
        .split_once('=')
        .filter(|(key, _)| CONTEXTS.contains(key))
        .ok_or_else(|| refused("is not allowed"))?;
    let bare = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(value);
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'-' | b'.' | b',');
    if bare.is_empty() || bare.len() > LONGEST_CONTEXT || !bare.bytes().all(plain) {
        return Err(refused("is not an SELinux context"));
    }
    // In quotes, because categories are separated by the same comma as options.
    Ok(format!("{key}=\"{bare}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<MountOptions> {
        MountOptions::parse(options)
    }

    #[test]
    fn nosuid_and_nodev_are_always_set() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.flags(), MountFlags::NOSUID | MountFlags::NODEV);
        assert_eq!(options.data(FsType::Ext4), "");
        assert_eq!(options.data(FsType::Xfs), "nouuid");
    }

    #[test]
    fn the_later_of_two_options_counts() {
        assert!(parse(&["rw", "ro"]).unwrap().is_read_only());
        assert!(!parse(&["ro", "rw"]).unwrap().is_read_only());
    }

    #[test]
    fn every_known_option_passes() {
        for option in KNOWN.split(", ").filter(|option| !option.ends_with('=')) {
            parse(&[option]).unwrap();
        }
        for key in CONTEXTS {
            let data = parse(&[&format!("{key}=a:b:c:s0:c1,c2")])
                .unwrap()
                .data(FsType::Ext4);
            assert_eq!(data, format!("{key}=\"a:b:c:s0:c1,c2\""));
            assert_eq!(parse(&[&data]).unwrap().data(FsType::Ext4), data);
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_list() {
        for option in [
            "",
            " ro",
            "RO",
            "suid",
            "dev",
            "loop",
            "bind",
            "remount",
            "noatime,suid",
            "journal_dev=0x701",
            "data=writeback",
            "errors=panic",
            "logdev=/dev/sda",
            "init_itable",
            "context=",
            "context=\"",
            "context=\"a\",suid",
            "context=a b",
            "context=a\0",
            "context=a\nb",
            "seclabel",
            "x-systemd.automount",
        ] {
            let error = parse(&[option]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{option:?}");
            assert!(error.to_string().contains("nodiratime"), "{error}");
        }
    }

    #[test]
    fn a_mount_differs_by_what_was_asked_for_and_the_kernel_shows() {
        let found = |text: &str| -> Vec<String> {
            let words = text.split(',').filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        for (asked, shown, difference) in [
            (&[][..], "nosuid,nodev,relatime", None),
            (&[], "nosuid,nodev,noatime", None),
            (&[], "nosuid,nodev,noexec,relatime", Some("noexec")),
            (&["noexec"], "nosuid,nodev,relatime", Some("noexec")),
            (&["noexec"], "noexec", None),
            (&["noatime"], "noatime", None),
            (&["noatime"], "relatime", Some("noatime")),
            (&["strictatime"], "", None),
            (&["strictatime"], "relatime", Some("relatime")),
            (&["relatime"], "noatime", Some("noatime")),
            (&["relatime", "nodiratime"], "nodiratime,relatime", None),
            (&["nodiratime"], "relatime", Some("nodiratime")),
            (&["sync", "discard", "lazytime"], "relatime", None),
        ] {
            let options = parse(asked).unwrap();
            assert_eq!(
                options.difference(&found(shown)),
                difference,
                "{asked:?} {shown}"
            );
        }
    }

    #[test]
    fn a_bind_mount_gets_only_flags_of_a_mount() {
        let options = parse(&["ro", "sync", "noatime", "discard"]).unwrap();
        assert_eq!(
            options.bind_flags(),
            MountFlags::RDONLY | MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV
        );
    }
}
