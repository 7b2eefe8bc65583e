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

# Built test binaries as a user who is not root, made for this: some of the suite on fake machines, whose image is built on
# the way, and what a machine with a kernel of its own adds. Needs root, to become somebody else.
without_root() {
    [ "$(id -u)" = 0 ] || { echo "not run: everything here runs without root"; return; }
    local user=vmtest-ordinary place status=0
    command -v newuidmap >/dev/null || apt-get install -y -q --no-install-recommends uidmap
    id "$user" >/dev/null 2>&1 || useradd --create-home "$user"
    grep -q "^$user:" /etc/subuid || usermod --add-subuids 300000000-300065535 --add-subgids 300000000-300065535 "$user"
    # Checkouts are often where only their owner may look.
    place=$(mktemp -d)
    mkdir "$place/bin" "$place/dev"
    cargo test --workspace --no-run 2>&1 | sed -n 's|.*Executable tests/\([a-z_]*\).* (\(.*\))$|\2 \1|p' |
        while read -r binary name; do
            case " rootless $* " in *" $name "*) cp "$binary" "$place/bin/$name" ;; esac
        done
    cp "${CARGO_TARGET_DIR:-target}/debug/cargo-vmtest" "$place/bin/cargo-vmtest"
    cp -r tests "$place/tests"
    chown -R "$user:" "$place"
    unshare --mount bash -euc '
        place=$1 user=$2
        # Some machines have a device that is root'"'"'s alone; this one is seen by this step only.
        mount -t tmpfs none "$place/dev"
        mknod -m 666 "$place/dev/tun" c 10 200
        mount --bind "$place/dev/tun" /dev/net/tun
        cd "$place/tests"
        exec setpriv --reuid "$user" --regid "$user" --init-groups env -u XDG_RUNTIME_DIR -u XDG_CACHE_HOME \
            HOME="$place" USER="$user" VMTEST_RUN="$place/run" VMTEST_CACHE="$place/cache" \
            CARGO_MANIFEST_DIR="$place/tests" CARGO_PKG_NAME=vmtest-tests RUST_TEST_THREADS=8 \
            bash -euc '"'"'
                for name in $1; do VMTEST_BACKEND=fake "$2/bin/$name" --skip real:: --skip qemu:: --skip nextest; done
                "$2/bin/rootless" qemu::
                "$2/bin/cargo-vmtest" demo
                "$2/bin/cargo-vmtest" prune
                [ -z "$(find "$2/run" -mindepth 1 -maxdepth 1 -type d ! -name lease)" ]
            '"'"' step "$3" "$place"
    ' step "$place" "$user" "$*" || status=$?
    # Some of it belongs to the machines of that user.
    rm -rf "$place"
    return $status
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
