# Run in the root file system of a container's image: writes what makes it this machine.
set -eu
/.vmtest/busybox --install -s /.vmtest/bin
export PATH=/.vmtest/bin
seed=/.vmtest/seed
put() {
    rm -f "$2"
    mkdir -p "${2%/*}"
    cp "$seed/$1" "$2"
}
put hostname /etc/hostname
put hosts /etc/hosts
[ ! -e "$seed/resolv.conf" ] || put resolv.conf /etc/resolv.conf

# Root comes in by the test's key, to the image's own shell where it has one.
{
    echo 'root:x:0:0:root:/root:/.vmtest/login'
    [ ! -e /etc/passwd ] || grep -v '^root:' /etc/passwd || :
} >"$seed/passwd"
put passwd /etc/passwd
if [ ! -e /etc/group ]; then
    echo 'root:x:0:' >"$seed/group"
    put group /etc/group
fi
{
    if [ -e /etc/shells ]; then grep -vxF /.vmtest/login /etc/shells || :; else echo /bin/sh; fi
    echo /.vmtest/login
} >"$seed/shells"
put shells /etc/shells
mkdir -p /root/.ssh
chown 0:0 /root /root/.ssh
chmod 700 /root /root/.ssh
keys=/root/.ssh/authorized_keys
grep -qxFf "$seed/authorized_keys" $keys 2>/dev/null || cat "$seed/authorized_keys" >>$keys
chmod 600 $keys
rm -r "$seed"
