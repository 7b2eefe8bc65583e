# What both tiers share.

# Everything is built once, and no one looks at it with a debugger: half of the time, a third of the disk.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=line-tables-only CARGO_PROFILE_DEV_BUILD_OVERRIDE_DEBUG=line-tables-only

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

# With it, tests of images push some and pull them; without, they say that they are not run.
a_registry() {
    local as_root=()
    command -v docker-registry >/dev/null && return
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    { "${as_root[@]}" apt-get update -q && "${as_root[@]}" apt-get install -y -q --no-install-recommends docker-registry; } ||
        echo "not run: tests with a registry, since docker-registry cannot be installed"
}

# What must pass elsewhere, or needs the rights of root or a compiler: not for a user who is not root.
not_without_root=(--skip real:: --skip qemu:: --skip as_root:: --skip nextest)

# Built test binaries as a user who is not root, made for this: these modules of the suite, or everything, on fake machines, whose
# image is built on the way, and what a machine with a kernel of its own adds; with `--nextest` everything under nextest. Needs
# root, to become somebody else.
without_root() {
    [ "$(id -u)" = 0 ] || { echo "not run: everything here runs without root"; return; }
    local user=vmtest-ordinary place status=0 nextest=
    local binaries=(rootless_code without_the_macro) modules=("${@/%/::}")
    [ $# != 0 ] || binaries+=(conformance traces trials)
    [ "${1:-}" != --nextest ] || nextest=$(command -v cargo-nextest)
    command -v newuidmap >/dev/null || apt-get install -y -q --no-install-recommends uidmap
    id "$user" >/dev/null 2>&1 || useradd --create-home "$user"
    grep -q "^$user:" /etc/subuid || usermod --add-subuids 300000000-300065535 --add-subgids 300000000-300065535 "$user"
    # Checkouts are often where only their owner may look.
    place=$(mktemp -d)
    mkdir "$place/bin" "$place/dev" "$place/temporary"
    cargo test --workspace --no-run 2>&1 | sed -n 's|.*Executable tests/\([a-z_]*\).* (\(.*\))$|\2 \1|p' |
        while read -r binary name; do
            case " suite rootless ${binaries[*]} " in *" $name "*) cp "$binary" "$place/bin/$name" ;; esac
        done
    cp "${CARGO_TARGET_DIR:-target}/debug/cargo-vmtest" "$place/bin/cargo-vmtest"
    cp -r Cargo.toml tests "$place"
    if [ -n "$nextest" ]; then
        cargo nextest archive --workspace --archive-file "$place/suite.tar.zst"
    fi
    chown -R "$user:" "$place"
    unshare --mount bash -eu -c "$(declare -f where_anyone_may_make_taps); where_anyone_may_make_taps \"\$@\"" step \
        "$place" setpriv --reuid "$user" --regid "$user" --init-groups env -u XDG_RUNTIME_DIR -u XDG_CACHE_HOME \
        HOME="$place" USER="$user" TMPDIR="$place/temporary" VMTEST_RUN="$place/run" VMTEST_CACHE="$place/cache" \
        bash -eu -c "$(declare -p not_without_root binaries modules)
            $(declare -f suite_of_user enter_a_run_of_user); suite_of_user \"\$@\"" step "$place" "$nextest" || status=$?
    # Some of it belongs to the machines of that user.
    rm -rf "$place"
    return $status
}

# Some machines have a device that is root's alone; this one is seen by what is started here only.
where_anyone_may_make_taps() {
    mount -t tmpfs none "$1/dev"
    mknod -m 666 "$1/dev/tun" c 10 200
    mount --bind "$1/dev/tun" /dev/net/tun
    cd "$1"
    "${@:2}"
}

suite_of_user() {
    local place=$1 nextest=$2
    if [ -n "$nextest" ]; then
        VMTEST_BACKEND=fake "$nextest" nextest run --archive-file "$place/suite.tar.zst" --workspace-remap "$place" \
            --test-threads 8 -E "package(vmtest-tests) and kind(test)" -- "${not_without_root[@]}"
    else
        for name in suite "${binaries[@]}"; do
            [ "$name" = suite ] || modules=()
            (cd tests && VMTEST_BACKEND=fake CARGO_MANIFEST_DIR=$PWD CARGO_PKG_NAME=vmtest-tests RUST_TEST_THREADS=8 \
                "$place/bin/$name" "${modules[@]}" "${not_without_root[@]}")
        done
        "$place/bin/rootless" qemu::
        "$place/bin/cargo-vmtest" demo
        enter_a_run_of_user "$place"
    fi
    "$place/bin/cargo-vmtest" prune
    [ -z "$(find "$place/run" -mindepth 1 -maxdepth 1 -type d ! -name lease)" ]
}

# What a person does with a cluster that is held, all of it without root.
enter_a_run_of_user() {
    local place=$1 vmtest=$1/bin/cargo-vmtest held
    (cd tests && VMTEST_HOLD=failed exec "$place/bin/suite" hold::victims::fails --exact --ignored >/dev/null 2>&1) &
    held=$!
    until "$vmtest" ls | grep -q 'held for'; do kill -0 "$held" && sleep 0.2; done
    [ "$("$vmtest" ssh alice -- cat /run/state)" = "as the test left it" ]
    "$vmtest" cp alice:/run/state "$place/state"
    "$vmtest" cp "$place/state" bob:/srv/
    [ "$("$vmtest" ssh bob -- cat /srv/state)" = "as the test left it" ]
    "$vmtest" down
    ! wait "$held"
}

# Into the directory where the same versions of what it needs are built already.
a_downstream_project() {
    cargo test --manifest-path tests/downstream/Cargo.toml --target-dir "${CARGO_TARGET_DIR:-target}"
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
    left+=$(pgrep -fa 'qemu-system.* -name .*path=console.log|--event-monitor path=events.json|^/bin/sh /etc/vmtest/init' || true)
    [ -z "$left" ] || { echo "left behind: $left"; return 1; }
}
