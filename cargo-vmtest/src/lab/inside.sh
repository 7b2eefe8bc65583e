# Runs in the machine: makes a root directory of what was shipped and runs the program in it.
# Arguments: the package's directory, the user who runs it, the program and its arguments. What is in the environment
# stays.
set -e
package=$1 user=$2
shift 2
root=/mnt/lab
mkdir -p $root /scratch/upper /scratch/work
mount -t overlay -o lowerdir=/lab/root,upperdir=/scratch/upper,workdir=/scratch/work overlay $root
for dir in proc sys dev; do
    mkdir -p "$root/$dir"
    mount --rbind "/$dir" "$root/$dir"
done
mkdir -p "$root/run" "$root/lab/program" "$root/lab/out" "$root/tmp"
chmod 1777 "$root/tmp"
mount --bind /lab/program "$root/lab/program"
if [ -e /lab/package ]; then
    mkdir -p "$root$package"
    mount --bind /lab/package "$root$package"
fi
chmod 666 /dev/kvm /dev/net/tun
if [ "$user" != root ]; then
    export HOME="/home/$user" USER="$user"
    mkdir -p "$root$HOME"
    # Its cache is where the image is.
    chroot $root chown -R "$user:" "$HOME" "$VMTEST_CACHE" /lab/out
    set -- setpriv --reuid "$user" --regid "$user" --init-groups "$@"
fi
# The mark of a command of the framework, which one in the machine takes for a setting.
unset VMTEST_COMMAND
# Mounted over the root, as an initramfs does it: a process whose root is a directory somewhere may make no user namespace.
exec unshare -m sh -c 'cd "$1" && shift && mount --move . / && exec chroot . "$@"' sh $root \
    /bin/sh -c 'cd "$1" && shift && exec "$@"' sh "$package" "$@"
