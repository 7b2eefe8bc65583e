# Read by the first process of a guest that has a root file system, which is at $root: what a machine is told goes there,
# and its own first process takes over.
put() {
    # A link would lead out of it.
    rm -f "$root/$1" && mkdir -p "$root/${1%/*}" && cp "/$1" "$root/$1"
}
tell_root() {
    put etc/hostname && put etc/hosts || return
    [ ! -e /etc/resolv.conf ] || put etc/resolv.conf || return
    put etc/ssh/ssh_host_ed25519_key && chmod 600 "$root/etc/ssh/ssh_host_ed25519_key" || return
    mkdir -p "$root/root/.ssh" && chmod 700 "$root/root/.ssh" || return
    grep -qxFf /root/.ssh/authorized_keys "$root/root/.ssh/authorized_keys" 2>/dev/null ||
        cat /root/.ssh/authorized_keys >>"$root/root/.ssh/authorized_keys" || return
    chmod 600 "$root/root/.ssh/authorized_keys"
    # For who turns systemd-networkd on: the interfaces are as they shall be already.
    number=0
    while read -r mac address gateway address6 mtu; do
        file=$root/etc/systemd/network/00-vmtest-$number.network
        mkdir -p "${file%/*}" || return
        {
            printf '[Match]\nMACAddress=%s\n[Link]\nMTUBytes=%s\n' "$mac" "$mtu"
            printf '[Network]\nKeepConfiguration=static\nIPv6AcceptRA=no\nLinkLocalAddressing=ipv6\nAddress=%s\n' "$address"
            [ "$address6" = - ] || printf 'Address=%s\n' "$address6"
            [ "$gateway" = - ] || printf 'Gateway=%s\n' "$gateway"
        } >"$file" || return
        number=$((number + 1))
    done </etc/vmtest/interfaces
}
tell_root || failed "cannot write to the root file system"
umount /tmp /run || failed "cannot unmount what the root file system has of its own"
for dir in dev sys proc; do
    mount --move "/$dir" "$root/$dir" || failed "cannot hand over /$dir"
done
# What its first process would mount too, with a process for each. A kernel that has not all of them has the rest.
while read -r kind at options; do
    mkdir -p "$root/$at" && mount -t "$kind" -o "$options" "$kind" "$root/$at"
done 2>/dev/null <<END
hugetlbfs dev/hugepages nosuid,nodev
mqueue dev/mqueue nosuid,nodev,noexec
debugfs sys/kernel/debug nosuid,nodev,noexec
tracefs sys/kernel/tracing nosuid,nodev,noexec
END
echo "vmtest: ready"
exec switch_root "$root" /sbin/init
