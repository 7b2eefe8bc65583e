#!/bin/sh
# The first process of a fake machine: what a kernel and an init do in a real one. Its arguments say what it does wrong.
export PATH=/sbin:/usr/sbin:/bin:/usr/bin
faults=" $* "

is_to() {
    case "$faults" in *" $1 "*) return 0 ;; esac
    return 1
}

panic() {
    echo "Kernel panic - not syncing: injected by the test"
    exec /bin/busybox reboot -n -f
}

# A rung of the readiness ladder comes: what was injected for it.
rung() {
    is_to "dies=$1" && exit 1
    is_to "panics=$1" && panic
    while is_to "stops=$1"; do
        sleep 1000 &
        wait $!
    done
}

# Another process is still there.
populated() {
    set -- /proc/[0-9]*
    [ $# -gt 1 ]
}

# Processes have two seconds, as every init gives them.
stop() {
    trap : TERM USR1 USR2
    kill -TERM -1
    tries=0
    while populated && [ $((tries += 1)) -le 100 ]; do sleep 0.02; done
    exec /bin/busybox "$1" -n -f
}

# As busybox asks an init. Not ignored but handled, so that what is started from here does not ignore them.
trap "stop poweroff" USR1 USR2
trap "stop reboot" TERM
trap panic ALRM
trap "exit 1" VTALRM
is_to ignores_sigterm && trap : TERM
is_to ignores_shutdown && trap : USR1 USR2

rung vmm_alive
rung kernel_speaks
read -r release </proc/sys/kernel/osrelease
echo "vmtest: a fake machine, in namespaces of Linux $release"
# No faster than the serial line of an emulated machine, 1.5 MB/s: whoever writes more has to wait, and no disk is filled.
while dd bs=16384 count=1 2>/dev/null; do sleep 0.01; done <>/dev/console &
for fault in $faults; do
    case "$fault" in slow=*) sleep "${fault#*=}" ;; esac
done

rung network_answers
ip link set lo up
number=0
while read -r _ address gateway address6 mtu; do
    device=eth$number
    number=$((number + 1))
    ip link set "$device" mtu "$mtu"
    if [ "$address6" != - ] && [ -e "/proc/sys/net/ipv6/conf/$device" ]; then
        echo 0 >"/proc/sys/net/ipv6/conf/$device/accept_dad"
        echo 0 >"/proc/sys/net/ipv6/conf/$device/accept_ra"
        ip -6 address add "$address6" dev "$device"
    fi
    ip address add "$address" dev "$device"
    ip link set "$device" up
    [ "$gateway" = - ] || ip route add default via "$gateway"
done </etc/vmtest/interfaces
echo "vmtest: network up"

rung ssh_banner
chmod 700 /root /root/.ssh
keys=/root/.ssh/authorized_keys
is_to refuses_key && : >$keys
# From here on a command can come at any time, so the next rung is in what the key may do.
for fault in $faults; do
    case "$fault" in
    stops=ssh_authenticated) sed -i 's/^/command="sleep 1000000" /' $keys ;;
    dies=ssh_authenticated) sed -i 's/^/command="kill -VTALRM 1; sleep 1000" /' $keys ;;
    panics=ssh_authenticated) sed -i 's/^/command="kill -ALRM 1; sleep 1000" /' $keys ;;
    crashes=*)
        (
            sleep "${fault#*=}"
            kill -VTALRM 1
        ) &
        ;;
    esac
done
echo "vmtest: ready"
while :; do
    /usr/sbin/dropbear -F -E -s -r /etc/dropbear/host_key -p 22 -W 262144 &
    server=$!
    # Ends for every signal too.
    while kill -0 $server 2>/dev/null; do wait $server; done
done
