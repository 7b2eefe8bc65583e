#!/.vmtest/busybox sh
# The shell of root: the image's own in the image's environment, with programs for those that it does not have.
. /.vmtest/env
export PATH="$PATH:/.vmtest/bin"
[ ! -x /bin/sh ] || exec /bin/sh "$@"
exec /.vmtest/busybox sh "$@"
