# Becomes PID 1 of a machine: sh boot.sh ROOT, in fresh mount, UTS, IPC, PID and cgroup namespaces.
# Its first line of output is the id of this process, and so of systemd, as the host numbers it. It comes when nothing of the host's
# files is to be seen any more, its own systemd's sockets among them.
set -eu
root=$1
read -r pid _ < /proc/self/stat
mount --rbind "$root" "$root"
mount -t proc proc "$root/proc"
# What is not in a namespace belongs to the host: its kernel is not changed from here.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
    # Its three words, on purpose.
    set -- $node
    mknod -m 666 "$root/dev/$1" c "$2" "$3"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
hostname towpath-machine
cd "$root"
pivot_root . .old
umount -l /.old
echo "$pid"
# Without it a service finds its folder of credentials empty.
mount --make-rshared /
exec setpriv --bounding-set -sys_module,-sys_time,-sys_rawio -- \
    env -i container=other PATH=/usr/sbin:/usr/bin TERM=dumb /usr/lib/systemd/systemd --system --show-status=no
