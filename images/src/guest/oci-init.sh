#!/.vmtest/busybox sh
# The first process of a machine whose root file system is the image of a container: keeps the SSH server, and ends the
# machine when it is asked to, as busybox asks an init.
export PATH=/.vmtest/bin

# Another process is still there that is none of the kernel's.
populated() {
    for command in /proc/[0-9]*/cmdline; do
        [ "$command" = /proc/1/cmdline ] || ! read -r -n 1 _ <"$command" || return 0
    done 2>/dev/null
    return 1
}

# Processes have two seconds, as every init gives them.
stop() {
    trap : TERM USR1 USR2
    kill -TERM -1
    tries=0
    while populated && [ $((tries += 1)) -le 100 ]; do sleep 0.02; done
    kill -KILL -1
    sync
    exec "$1" -f
}
trap "stop poweroff" USR1 USR2
trap "stop reboot" TERM

while :; do
    LD_LIBRARY_PATH=/.vmtest/lib /.vmtest/dropbear -F -E -s -r /.vmtest/host_key -p 22 -W 262144 &
    server=$!
    # Ends for every signal too.
    while kill -0 $server 2>/dev/null; do wait $server; done
done
