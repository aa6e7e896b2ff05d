#!/bin/sh
# The start of a node: makes a root filesystem of its own out of the host's programs and the node's folders, enters it
# and becomes the first process of the node.
#
#   boot.sh FOLDER HOSTNAME PROGRAMS
#
# Runs as root in new mount, PID, network, UTS and IPC namespaces. FOLDER has etc, var and pool (the mounted disk for
# /var/vd); PROGRAMS is the folder with containerd and kubelet. Nothing of the host is changed: /run, /var and /tmp are
# the node's own, and so are the kernel settings that kubelet would write for the whole machine.
set -eu
folder=$1 name=$2 programs=$3
root=$folder/root

mount -t tmpfs -o mode=755 root "$root"
cd "$root"
mkdir -p dev etc opt/cluster proc run sys tmp usr var old
for top in bin sbin lib lib32 lib64; do
    if [ -L "/$top" ]; then
        cp -P "/$top" "$top"
    elif [ -d "/$top" ]; then
        mkdir "$top" && mount --bind "/$top" "$top"
    fi
done
mount --bind /usr usr
mount --bind "$programs" opt/cluster
mount --bind "$folder/etc" etc
mount --bind "$folder/var" var
mount --bind "$folder/pool" var/vd
mount --rbind /dev dev
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp

# kubelet sets these for the machine it believes to own: here it gets files of its own to write to.
mkdir run/settings
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    [ -e "proc/sys/$setting" ] || continue
    own=run/settings/$(echo $setting | tr / -)
    cat "proc/sys/$setting" >"$own"
    mount --bind "$own" "proc/sys/$setting"
done
# Each start of a node is a boot, with an id of its own: kubelet tells a reboot from a restart by it.
cat proc/sys/kernel/random/uuid >run/settings/boot-id
mount --bind run/settings/boot-id proc/sys/kernel/random/boot_id

pivot_root . old
umount --lazy /old
rmdir /old
mount --make-rshared /
hostname "$name"
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
mkdir -p /run/node
touch /run/node/booted
exec tini -s -- sleep infinity
