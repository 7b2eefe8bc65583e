# Read by the first process of a guest whose root file system, at $root, is the image of a container: brings what a machine
# needs beside it, in a directory of its own that is gone with the machine, and hands over to a first process from there.
own=$root/.vmtest
bring_own() {
    mkdir -p "$own" && mount -t tmpfs -o mode=755 tmpfs "$own" && mkdir "$own/bin" "$own/lib" "$own/seed" || return
    cp /bin/busybox /lib/vmtest/oci/* "$own" && cp /lib64/ld-linux-x86-64.so.2 "$own/ld.so" || return
    cp /lib/x86_64-linux-gnu/* "$own/lib" && cp /etc/dropbear/host_key "$own" && chmod 600 "$own/host_key" || return
    cp /etc/hostname /etc/hosts /root/.ssh/authorized_keys "$own/seed" || return
    [ ! -e /etc/resolv.conf ] || cp /etc/resolv.conf "$own/seed" || return
}
bring_own || failed "cannot make a machine of the image"
umount /tmp /run || failed "cannot unmount what the root file system has of its own"
mkdir -p "$root/dev" "$root/sys" "$root/proc" "$root/run" "$root/tmp" || failed "cannot write to the root file system"
for dir in dev sys proc; do
    mount --move "/$dir" "$root/$dir" || failed "cannot hand over /$dir"
done
mount -t tmpfs -o mode=755 tmpfs "$root/run" || failed "cannot mount a tmpfs"
# Inside, where a link of the image leads to where it does for the image.
chroot "$root" /.vmtest/busybox sh /.vmtest/prepare || failed "cannot make a machine of the image"
chmod 1777 "$root/tmp"
echo "vmtest: ready"
exec switch_root "$root" /.vmtest/init
