# Makes the disk of what is in `root`, on the file that is open as 9.
echo "I: making the disk"
# A quarter more than what is in it, for what describes it; what is not used takes no room on the host.
size=$(($(du -sk root | cut -f 1) * 5 / 4 + 65536))
inodes=$(($(find root | wc -l) * 5 / 4 + 1024))
mkfs.ext4 -q -F -b 4096 -I 256 -N "$inodes" -m 0 -O ^has_journal,^metadata_csum,^resize_inode -L "$label" -d root \
    /proc/self/fd/9 "${size}k"
e2fsck -fn /proc/self/fd/9
