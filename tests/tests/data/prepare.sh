#!/bin/sh
# Prepares the Debian of `a_script_prepares_an_image`.
set -eu
useradd --create-home --shell /bin/sh greeter
install -o greeter -m 4755 /usr/bin/id /usr/local/bin/id-of-greeter
# Its own apt and what it knows.
apt-cache policy bash | grep -q 'Installed: [0-9]'
echo "prepared by $(id -un) in $HOME, apt is ${APT_CONFIG-its own}, questions are for $DEBIAN_FRONTEND" >/etc/prepared
