# Makes a root file system below the directory that it runs in, and its disk on what it reads. Called with the release,
# the packages, the kernel's package and the disk's label; root here, in mounts of its own.
set -eu
# The disk, out of the way of programs that read.
exec 2>&1 9<&0 </dev/null
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
release=$1 packages=$2 label=$4
export KERNEL_PACKAGE="$3"

# Not by its path: whoever this is here may not read what is above it.
mount -c --bind . /mnt
cd /mnt
mkdir -m 1777 tmp
mmdebstrap --mode=unshare --format=directory --variant=minbase --include="$packages" \
    --customize-hook=/mnt/customize "$release" /mnt/root /mnt/sources.list

echo "I: making the disk"
dpkg-query --admindir=root/var/lib/dpkg -W >versions
# A quarter more than what is in it, for what describes it; what is not used takes no room on the host.
size=$(($(du -sk root | cut -f 1) * 5 / 4 + 65536))
inodes=$(($(find root | wc -l) * 5 / 4 + 1024))
mkfs.ext4 -q -F -b 4096 -I 256 -N "$inodes" -m 0 -O ^has_journal,^metadata_csum,^resize_inode -L "$label" -d root \
    /proc/self/fd/9 "${size}k"
e2fsck -fn /proc/self/fd/9
