# What both tiers share.

step() {
    local name=$1 began=$SECONDS
    shift
    echo "--- $name"
    "$@"
    echo "--- $name: $((SECONDS - began)) s"
}

# Some machines carry tools of a newer QEMU than the distribution's, and apt will not install both.
make_room_for_qemu() {
    command -v qemu-system-x86_64 >/dev/null && return
    apt-get update -q
    if ! apt-get install --simulate -qq --no-install-recommends qemu-system-x86 >/dev/null; then
        apt-get remove -y -q qemu-utils
    fi
}

# The suite on fake machines. From the whole workspace, whose features are built already; its tests wait more than they
# work, so there are more of them at once than there are cores.
without_a_vmm() {
    local names=()
    for test in tests/tests/*; do
        [ "$test" = tests/tests/data ] || names+=(--test "$(basename "$test" .rs)")
    done
    VMTEST_BACKEND=fake RUST_TEST_THREADS=8 cargo test --workspace "${names[@]}" -- --skip real:: --skip qemu::
}

# Tests check what each of them leaves; this looks once more from outside.
nothing_is_left() {
    local runs cache left
    runs=${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/vmtest}
    runs=${VMTEST_RUN:-${runs:-/tmp/vmtest-$(id -u)}}
    cache=${VMTEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vmtest}
    left=$(find "$runs" -mindepth 1 -maxdepth 1 -type d ! -name lease 2>/dev/null || true)
    left+=$(find "$runs/lease" -mindepth 2 2>/dev/null || true)
    left+=$(find "$cache/scratch" -mindepth 1 -maxdepth 1 -type d 2>/dev/null || true)
    left+=$(pgrep -fa 'qemu-system.* -name .*path=console.log|^/bin/sh /etc/vmtest/init' || true)
    [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}
