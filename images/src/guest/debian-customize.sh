#!/bin/sh
# Run when all packages of the root file system in $1 are there: makes of it what every machine of the image begins with.
set -eu
root=$1

# That of the release in it: older versions of mmdebstrap say it to apt themselves.
[ -z "${MMDEBSTRAP_APT_CONFIG-}" ] || export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"

echo "I: adding the kernel"
mkdir /mnt/kernel
cd /mnt/kernel
package=$(apt-cache depends --important "$KERNEL_PACKAGE" | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
apt-get download -q -o APT::Sandbox::User=root "$package"
dpkg-deb -x ./*.deb .
if [ -d lib/modules ]; then modules=lib/modules; else modules=usr/lib/modules; fi
mkdir -p "$root/usr/lib/modules" "$root/boot"
cp -a "$modules"/. "$root/usr/lib/modules/"
cp boot/vmlinuz-* boot/config-* "$root/boot/"
for release in "$modules"/*; do
    chroot "$root" depmod "${release##*/}"
done
cd /
rm -r /mnt/kernel

# Keys by which apt knows its sources here, where it looks for them there.
for key in $(sed -n 's/^Signed-By://p' /mnt/debian.sources); do
    case $key in
    /*) [ -e "$root$key" ] || install -D -m 644 "$key" "$root$key" ;;
    esac
done

# Beside a test nobody looks for updates or checks disks.
for timer in apt-daily apt-daily-upgrade dpkg-db-backup e2scrub_all fstrim logrotate man-db; do
    chroot "$root" systemctl -q mask "$timer.timer"
done
chroot "$root" systemctl -q mask e2scrub_reap.service
# Loaded at each boot whether anybody needs them or not, each by a service. The kernel loads them for who does; then the services
# have to succeed for what is mounted with them.
for module in configfs dm_mod drm efi_pstore fuse loop; do
    mkdir -p "$root/etc/systemd/system/modprobe@$module.service.d"
    printf '[Unit]\nConditionPathExists=/sys/module/%s\n' "$module" \
        >"$root/etc/systemd/system/modprobe@$module.service.d/00-vmtest.conf"
done
# What an emulated processor seems to want. Our initramfs has loaded KVM where a machine is to run others.
mkdir -p "$root/etc/modprobe.d"
printf 'blacklist %s\n' kvm_amd kvm_intel powernow_k8 >"$root/etc/modprobe.d/00-vmtest.conf"
# Its journal is on the disk of each machine, which a large file would fill with the empty tables that it begins with.
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nSystemMaxFileSize=2M\n' >"$root/etc/systemd/journald.conf.d/00-vmtest.conf"
# What greets who comes in is made by processes at each connection, which no test reads. What a package greets with stays.
rm -f "$root/etc/update-motd.d/10-uname"
# Its initramfs gives each machine its own key, which is the only one, and lets the test in by another.
rm -f "$root"/etc/ssh/ssh_host_*
cat >"$root/etc/ssh/sshd_config.d/00-vmtest.conf" <<'END'
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
UseDNS no
MaxStartups 100
MaxSessions 100
END

if [ -e /mnt/prepare ]; then
    echo "I: preparing"
    cp /mnt/prepare "$root/root/.vmtest-prepare"
    # What apt is told here is said of paths outside.
    env -u APT_CONFIG -u TMPDIR HOME=/root DEBIAN_FRONTEND=noninteractive chroot "$root" /root/.vmtest-prepare
    rm "$root/root/.vmtest-prepare"
fi

rmdir --ignore-fail-on-non-empty "$root/etc/update-motd.d"
# Newer than /usr, which says that nothing has to be brought in line with that at the first boot (systemd-update-done).
touch "$root/etc/.updated" "$root/var/.updated"
# Each machine makes its own at its first boot.
: >"$root/etc/machine-id"
rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
