#!/bin/sh
# The guest's first process: makes the host's files its root, below a layer in memory.
/bin/busybox --install -s /bin
export PATH=/bin
stop() {
  echo "init: $1"
  poweroff -f
}
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do
  insmod "/modules/$module" || stop "$module does not load"
done
share=trans=virtio,version=9p2000.L,msize=1048576
mount -t 9p -o $share,ro,cache=loose,access=any root /lower || stop "no files of the host"
mount -t tmpfs -o size=90%,mode=755 tmpfs /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work,metacopy=off overlay /newroot ||
  stop "no layer above the host's files"
cd /newroot || stop "no root"
mount -t proc proc proc
mount -t sysfs sys sys
mount -t devtmpfs dev dev
mkdir -p dev/pts dev/shm dev/net
mount -t devpts -o mode=600,ptmxmode=666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/vm run/netns run/lock
mount -t 9p -o $share,cache=none,access=any vm run/vm || stop "no folder of this run"
[ -d sys/fs/cgroup ] && mount -t cgroup2 cgroup2 sys/fs/cgroup
[ -d sys/fs/bpf ] && mount -t bpf bpf sys/fs/bpf
ln -sfn /proc/self/fd dev/fd
# Opening it loads its module.
[ -e dev/net/tun ] || mknod dev/net/tun c 10 200
chmod 666 dev/net/tun
mkdir -p lib/modules
rm -rf "lib/modules/$(uname -r)"
ln -s "$(cat run/vm/modules)" "lib/modules/$(uname -r)"
ifconfig lo 127.0.0.1 up
hostname vm
cd /
exec switch_root /newroot /bin/sh /run/vm/stage2
