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
    --customize-hook=/mnt/customize "$release" /mnt/root /mnt/debian.sources

dpkg-query --admindir=root/var/lib/dpkg -W >versions
