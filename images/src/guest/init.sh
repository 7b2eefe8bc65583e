#!/bin/sh
# The first process of a guest. Each step says on the console that it is done; the first that fails says why and ends
# the machine. The framework watches for both.
export PATH=/sbin:/usr/sbin:/bin:/usr/bin

failed() {
    echo "vmtest: failed: $*"
    sync
    poweroff -f
    # The machine ends; nothing after the failure may run.
    while :; do sleep 1; done
}

mount -t proc proc /proc || failed "cannot mount /proc"
mount -t sysfs sysfs /sys || failed "cannot mount /sys"
mount -t devtmpfs devtmpfs /dev || failed "cannot mount /dev"
exec </dev/console >/dev/console 2>&1
mkdir -p /dev/pts /dev/shm /run /tmp
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts || failed "cannot mount /dev/pts"
mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs -o mode=755 tmpfs /run && mount -t tmpfs -o mode=1777 tmpfs /tmp ||
    failed "cannot mount a tmpfs"

# What this machine is told is behind this archive, or the firmware has it.
if [ ! -e /etc/vmtest/interfaces ]; then
    insmod /lib/vmtest/qemu_fw_cfg.ko || failed "cannot load the kernel module qemu_fw_cfg.ko"
    # By few reads: for each, the driver goes over all that is before it.
    cat /sys/firmware/qemu_fw_cfg/by_name/opt/vmtest/facts/raw | cpio -idu 2>/dev/null ||
        failed "cannot read what the firmware has for this machine"
fi
while read -r module; do
    insmod "/lib/vmtest/$module" || failed "cannot load the kernel module $module"
done </lib/vmtest/order
# Why what follows may fail with a kernel that is not the image's.
foreign=
[ -s /lib/vmtest/order ] ||
    foreign=": the kernel $(uname -r) has no modules here, because it is not the image's own; ext4 and overlay must be built into it"
# What only some machines have.
while read -r pattern modules; do
    for device in /sys/bus/virtio/devices/* /sys/bus/pci/devices/*; do
        read -r alias <"$device/modalias"
        case $alias in
        $pattern)
            for module in $modules; do
                insmod "/lib/vmtest/$module" || failed "cannot load the kernel module $module"
            done
            break
            ;;
        esac
    done
done </lib/vmtest/drivers
# A machine that runs machines itself.
if [ -e /lib/vmtest/host-order ]; then
    while read -r module; do
        case $module in
        kvm_intel.ko) grep -qw vmx /proc/cpuinfo || continue ;;
        kvm_amd.ko) grep -qw svm /proc/cpuinfo || continue ;;
        esac
        insmod "/lib/vmtest/$module" || failed "cannot load the kernel module $module"
    done </lib/vmtest/host-order
    [ -c /dev/kvm ] || failed "there is no /dev/kvm: the processor of this machine cannot run machines"
fi
echo "vmtest: modules loaded"

hostname -F /etc/hostname || failed "cannot set the host name"
ip link set lo up
while read -r mac address gateway address6 mtu; do
    device=
    for candidate in /sys/class/net/*; do
        [ "$(cat "$candidate/address")" = "$mac" ] && device=${candidate##*/}
    done
    [ -n "$device" ] || failed "there is no network interface with the address $mac"
    ip link set "$device" mtu "$mtu" || failed "cannot give $device the MTU $mtu"
    if [ "$address6" != - ] && [ -e "/proc/sys/net/ipv6/conf/$device" ]; then
        # Addresses are planned: nobody has to be asked whether they are taken, and nobody hands out others.
        echo 0 >"/proc/sys/net/ipv6/conf/$device/accept_dad"
        echo 0 >"/proc/sys/net/ipv6/conf/$device/accept_ra"
        ip -6 address add "$address6" dev "$device" || failed "cannot give $device the address $address6"
    fi
    ip address add "$address" dev "$device" && ip link set "$device" up || failed "cannot give $device the address $address"
    [ "$gateway" = - ] || ip route add default via "$gateway" || failed "cannot route through $gateway"
done </etc/vmtest/interfaces
echo "vmtest: network up"

root=
if [ -e /etc/vmtest/root ]; then
    read -r lower upper </etc/vmtest/root
    mkdir -p /lower /upper /newroot
    for label in "$lower" "$upper"; do
        device=$(findfs "LABEL=$label") || failed "there is no disk with the label $label"
        case $label in
        "$lower") mount -t ext4 -o ro "$device" /lower ;;
        *) mount -t ext4 -o rw,noinit_itable "$device" /upper ;;
        esac || failed "cannot mount $label$foreign"
    done
    mkdir -p /upper/files /upper/work &&
        mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /newroot ||
        failed "cannot mount the root file system$foreign"
    root=/newroot
fi
while read -r label at options; do
    device=$(findfs "LABEL=$label") || failed "there is no disk with the label $label"
    mkdir -p "$root$at" && mount -t ext4 -o "$options" "$device" "$root$at" || failed "cannot mount $label at $at"
done </etc/vmtest/mounts
echo "vmtest: disks mounted"
[ -z "$root" ] || . /lib/vmtest/switch.sh

chmod 700 /root /root/.ssh
echo "vmtest: ready"
exec /sbin/init
