#!/bin/sh
# Builds the guest of the demo and of the tests: a raw disk that boots by itself (MBR, extlinux,
# Debian's cloud kernel, a root filesystem on ext4) and keeps a numbered log, see numbered_log.rs.
#
#   tests/guest/build.sh CACHE_FOLDER      prints the path of the disk on the last line
#
# Everything comes from Debian packages of the machine's own sources; they are unpacked, not
# installed. Needs root (a loop mount for the boot loader, in a mount namespace of its own, so that
# nothing stays mounted whatever happens) and: apt, mkfs.ext4, sfdisk, extlinux, cpio, rustc. An up-to-date disk is not built again.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cache=$(cd "$1" && pwd)
disk=$cache/guest.raw
disk_mib=192
first_sector=2048

sources=$(cat "$here/build.sh" "$here/numbered_log.rs" "$here/initramfs-init" "$here/root-init" | sha256sum)
if [ -f "$disk" ] && [ "$(cat "$cache/built-from" 2>/dev/null)" = "$sources" ]; then
    echo "$disk"
    exit 0
fi

work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# 1. Packages. The kernel's name changes with every security update, so it is asked for.
newest_kernel() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}
kernel_package=$(newest_kernel)
if [ -z "$kernel_package" ]; then
    apt-get -q update >&2
    kernel_package=$(newest_kernel)
fi
[ -n "$kernel_package" ] || {
    echo "build.sh: this machine's package sources have no linux-image-cloud-amd64 (it takes Debian, amd64)" >&2
    exit 1
}
mkdir -p "$cache/packages"
(cd "$cache/packages" && apt-get -q -o APT::Sandbox::User=root download "$kernel_package" busybox-static base-files >&2)
for package in "$kernel_package" busybox-static base-files; do
    newest=$(ls -t "$cache/packages/${package}"_*.deb | head -n 1)
    dpkg-deb -x "$newest" "$work/debian"
done
kernel=$(ls "$work/debian/boot" | sed -n 's/^vmlinuz-//p')

# 2. The one program of the guest.
rustc --edition 2024 -O -C target-feature=+crt-static -C panic=abort -C strip=symbols \
    -o "$work/numbered-log" "$here/numbered_log.rs"

# 3. Initramfs: busybox and the modules the root disk needs. Not compressed: an emulated processor
#    unpacks more slowly than it reads.
ram=$work/initramfs
mkdir -p "$ram/bin" "$ram/dev" "$ram/root" "$ram/modules"
cp "$work/debian/bin/busybox" "$ram/bin/busybox"
cp "$here/initramfs-init" "$ram/init"
for module in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
    find "$work/debian/lib/modules" -name "$module.ko" -exec cp {} "$ram/modules/" \;
done
chmod 0755 "$ram/init"

# 4. Root filesystem: the packages as they are, without what the boot loader reads (step 5).
root=$work/debian
mkdir -p "$root/sbin" "$root/dev" "$root/proc" "$root/sys" "$root/var/log"
cp "$here/root-init" "$root/sbin/init"
chmod 0755 "$root/sbin/init"
cp "$work/numbered-log" "$root/bin/numbered-log"
for applet in sh mount umount cat grep cut uname sync poweroff; do
    ln -sf busybox "$root/bin/$applet"
done
boot=$work/boot
mv "$root/boot" "$boot"
mkdir "$root/boot"
mv "$boot/vmlinuz-$kernel" "$boot/vmlinuz"
(cd "$ram" && find . | cpio --quiet -o -H newc) >"$boot/initramfs"
cat >"$boot/extlinux.conf" <<CONF
default guest
prompt 0
timeout 0
label guest
  kernel /boot/vmlinuz
  append initrd=/boot/initramfs console=ttyS0 quiet mitigations=off nokaslr no_timer_check random.trust_cpu=on panic=-1
CONF

# 5. The disk. extlinux cannot read ext4 with 64-bit block numbers, nor files with holes, which
#    mkfs.ext4 -d makes of zeroes: so its files are copied in afterwards.
building=$work/guest.raw
truncate -s "${disk_mib}M" "$building"
echo "start=$first_sector, type=83, bootable" | sfdisk --quiet "$building"
mkfs.ext4 -q -F -O ^64bit,^metadata_csum -m 0 -L vd-guest -E "offset=$((first_sector * 512)),root_owner=0:0" \
    -d "$root" "$building" "$((disk_mib - 1))M"
dd if=/usr/lib/EXTLINUX/mbr.bin of="$building" bs=440 count=1 conv=notrunc status=none
mkdir "$work/mounted"
unshare --mount --propagation private sh -eu -c '
    mount -o "loop,offset=$3" "$1" "$2"
    cp --sparse=never "$4"/* "$2/boot/"
    extlinux --install "$2/boot" >"$4.log" 2>&1 || { cat "$4.log" >&2; exit 1; }
    umount "$2"
' install-boot-loader "$building" "$work/mounted" "$((first_sector * 512))" "$boot"

mv "$building" "$disk"
printf '%s' "$sources" >"$cache/built-from"
echo "$disk"
