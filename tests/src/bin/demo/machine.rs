//! A virtual machine whose only disk is a published volume, and what its guest says on the serial console.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::ChildStdout;
use tokio::sync::watch;

use crate::command::{self, Owned};

/// Hardware virtualisation has to bring a guest up within this time to be trusted.
const PROOF_LIMIT: Duration = Duration::from_secs(6);
/// The guest is up within this time, even emulated on a busy machine.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(90);
/// What begins the guest's first line.
const FIRST_WORD: &str = "guest: ";

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The processor itself.
    Kvm,
    /// Emulation.
    Tcg,
}

/// What the guest is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// Append to its log until it is switched off.
    Write,
    /// Read the log, say how far it is whole, switch off.
    Show,
}

/// What the console has shown.
#[derive(Default)]
pub(crate) struct Console {
    /// Every line.
    pub(crate) lines: Vec<String>,
    /// Number of the last log line that the guest knows to be on its disk.
    pub(crate) log_line: u64,
    /// Longest time the guest has waited for its disk, in milliseconds.
    pub(crate) longest_wait_ms: u64,
}

impl Console {
    fn hear(&mut self, line: String) {
        if let Some((number, wait)) = progress(&line) {
            self.log_line = number;
            self.longest_wait_ms = wait;
        }
        self.lines.push(line);
    }

    /// Whether the guest's own programs run.
    pub(crate) fn is_up(&self) -> bool {
        self.lines.iter().any(|line| line.starts_with(FIRST_WORD))
    }
}

/// `log line 4200 on disk, longest wait 45 ms`
fn progress(line: &str) -> Option<(u64, u64)> {
    let (number, wait) = line
        .strip_prefix("log line ")?
        .split_once(" on disk, longest wait ")?;
    Some((
        number.parse().ok()?,
        wait.strip_suffix(" ms")?.parse().ok()?,
    ))
}

/// See the module.
pub(crate) struct Machine {
    child: Owned,
    console: watch::Receiver<Console>,
}

impl Machine {
    /// Switches a machine on. It boots from `disk` as a real one does: BIOS, boot sector, boot loader.
    pub(crate) fn start(accelerator: Accelerator, disk: &Path, mode: Mode) -> Result<Self> {
        Self::start_with(
            accelerator,
            disk,
            mode,
            "cache=none,aio=native,discard=unmap",
        )
    }

    fn start_with(accelerator: Accelerator, disk: &Path, mode: Mode, how: &str) -> Result<Self> {
        let (accelerator, processor) = match accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            Accelerator::Tcg => ("tcg", "max"),
        };
        let mode = match mode {
            Mode::Write => "write",
            Mode::Show => "show",
        };
        let disk = disk.to_string_lossy().replace(',', ",,");
        let fixed = format!(
            "-accel {accelerator} -cpu {processor} -machine pc -m 256 -nodefaults -no-user-config \
             -no-reboot -display none -nic none -serial stdio -smbios type=1,serial=vd.mode={mode} \
             -device virtio-blk-pci,drive=disk -drive"
        );
        let mut command = command::prepare("qemu-system-x86_64");
        let _ = command
            .args(fixed.split(' '))
            .arg(format!("if=none,id=disk,format=raw,file={disk},{how}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = Owned::spawn(command)?;
        let serial = child.stdout.take().context("qemu has no console")?;
        let (heard, console) = watch::channel(Console::default());
        drop(tokio::spawn(listen(serial, heard)));
        Ok(Self { child, console })
    }

    /// Waits until the console shows what `until` looks for, and returns what that found.
    ///
    /// # Errors
    /// When it does not within `limit`, or the machine goes off before; with the guest's last words.
    pub(crate) async fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        until: impl Fn(&Console) -> Option<T>,
    ) -> Result<T> {
        let seen = tokio::time::timeout(limit, async {
            loop {
                if let Some(found) = until(&self.console.borrow_and_update()) {
                    return Some(found);
                }
                if self.console.changed().await.is_err() {
                    // The console is closed; what came last may be what was waited for.
                    return until(&self.console.borrow());
                }
            }
        })
        .await;
        match seen {
            Ok(Some(found)) => Ok(found),
            Ok(None) => bail!(
                "the machine went off before {what}: {}",
                self.last_words().await
            ),
            Err(_elapsed) => {
                bail!(
                    "{what}: not within {} s; last: {}",
                    limit.as_secs(),
                    self.last_line()
                )
            }
        }
    }

    /// What the console shows now.
    pub(crate) fn console(&self) -> watch::Ref<'_, Console> {
        self.console.borrow()
    }

    /// Pulls the plug: the guest gets no chance to write anything more.
    pub(crate) async fn pull_plug(mut self) -> Result<()> {
        let pid = self.child.id().context("the machine is off already")?;
        kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
        let _status = self.child.wait().await?;
        Ok(())
    }

    /// Waits until the guest has switched itself off.
    pub(crate) async fn off(mut self, limit: Duration) -> Result<()> {
        let ended = tokio::time::timeout(limit, self.child.wait()).await;
        let status = ended.map_err(|_elapsed| anyhow!("the guest does not switch off"))??;
        if !status.success() {
            bail!("qemu ended with {status}: {}", self.last_words().await);
        }
        Ok(())
    }

    fn last_line(&self) -> String {
        self.console
            .borrow()
            .lines
            .last()
            .cloned()
            .unwrap_or_else(|| "nothing".to_owned())
    }

    async fn last_words(&mut self) -> String {
        let mut complaint = String::new();
        if let Some(mut pipe) = self.child.stderr.take() {
            drop(pipe.read_to_string(&mut complaint).await);
        }
        format!("{} {}", self.last_line(), complaint.trim())
    }
}

async fn listen(serial: ChildStdout, heard: watch::Sender<Console>) {
    let mut reader = BufReader::new(serial);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        let text: String = String::from_utf8_lossy(&line)
            .chars()
            .filter(|character| !character.is_control())
            .collect();
        line.clear();
        if !text.is_empty() {
            heard.send_modify(|console| console.hear(text));
        }
    }
}

/// Uses the processor's virtualisation only if it brings this very guest up: a `/dev/kvm` that is
/// there but does not work would hang the demo. Returns the reason beside the choice.
pub(crate) async fn choose_accelerator(guest: &Path) -> (Accelerator, String) {
    if !Path::new("/dev/kvm").exists() {
        return (
            Accelerator::Tcg,
            "emulated: this machine has no /dev/kvm".to_owned(),
        );
    }
    match prove_kvm(guest).await {
        Ok(()) => (Accelerator::Kvm, "hardware virtualisation (KVM)".to_owned()),
        Err(_why) => {
            let told = "emulated: a trial guest did not come up on /dev/kvm";
            (Accelerator::Tcg, told.to_owned())
        }
    }
}

async fn prove_kvm(guest: &Path) -> Result<()> {
    let mut machine = Machine::start_with(Accelerator::Kvm, guest, Mode::Show, "snapshot=on")?;
    machine
        .wait("a guest on KVM", PROOF_LIMIT, |seen| {
            seen.is_up().then_some(())
        })
        .await?;
    machine.pull_plug().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_progress_line_gives_number_and_wait() {
        assert_eq!(
            progress("log line 4200 on disk, longest wait 45 ms"),
            Some((4200, 45))
        );
        assert_eq!(progress("log: 4200 lines, complete and intact"), None);
    }
}
