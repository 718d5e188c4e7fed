"""What the machines' image is made of. A change of this file is another image: its hash names the cached one."""

from __future__ import annotations

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"  # where this machine's own apt knows no Debian mirror
COMPONENTS = ("main", "contrib")
DISK_MB = 6144  # sparse: what is not used costs nothing

PACKAGES = (
    # The kernel, and OpenZFS built for it by DKMS while the packages are configured.
    "linux-image-cloud-amd64", "linux-headers-cloud-amd64", "zfs-dkms", "zfsutils-linux", "initramfs-tools", "zstd",
    # An ordinary small server.
    "systemd-sysv", "sudo", "udev", "dbus", "kmod", "procps", "bash", "iproute2", "rsync", "socat", "openssh-server",
    "openssh-client", "python3", "lvm2", "thin-provisioning-tools", "xfsprogs", "postgresql", "python3-pyzfs",
    # Derby and what runs it.
    "default-jre-headless", "libderby-java", "libderbyclient-java", "derby-tools",
)  # fmt: skip

# Nobody reads manuals there. Their directories stay: some packages link into them.
DPKG_OPTIONS = (
    "path-exclude=/usr/share/man/*/*", "path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright",
)  # fmt: skip

# The tests inside run with Debian's Python and these, in the versions that scripts/constraints.txt names.
WHEELS = ("hypothesis", "msgspec", "paramiko", "pytest", "pytest-timeout", "rich", "click")
WHEELS_PYTHON = "3.13"
WHEELS_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
WHEELS_PLACE = f"usr/local/lib/python{WHEELS_PYTHON}/dist-packages"

DERBY_UID = 900
DERBY_HOME = "/var/lib/derby"

# The first process. An emulated machine is up in seconds with it, and in minutes with systemd. A second disk carries
# what differs from machine to machine, keys, names, addresses: it is laid over the root once.
INIT = """\
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /dev/pts /dev/shm /run/sshd /run/lock
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
if [ ! -e /var/lib/seeded ]; then
    mount -o ro /dev/vdb /mnt && cp -a /mnt/. / && umount /mnt && touch /var/lib/seeded
fi
hostname -F /etc/hostname
modprobe virtio_net
ip link set lo up
sh /etc/network.sh
modprobe zfs
/usr/lib/systemd/systemd-udevd --daemon
udevadm trigger --subsystem-match=block --action=add
udevadm settle --timeout=60
if [ -e /etc/zfs/zpool.cache ]; then
    zpool import -a -N -c /etc/zfs/zpool.cache
    zfs mount -a
fi
echo the machine is up
exec perl -e '
    my $sshd = 0;
    while (1) {
        if (!$sshd) {
            $sshd = fork;
            if (!$sshd) {
                open STDOUT, ">>", "/var/log/sshd.log";
                open STDERR, ">&STDOUT";
                exec "/usr/sbin/sshd", "-D", "-e";
            }
        }
        $sshd = 0 if waitpid(-1, 0) == $sshd;
    }'
"""

FILES = {
    "usr/sbin/machine-init": INIT,
    # Only what finds the root disk: a small initrd is unpacked quickly, even by an emulated processor.
    "etc/initramfs-tools/conf.d/machines": "MODULES=list\nCOMPRESS=zstd\nFSTYPE=ext4\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
    "etc/fstab": "/dev/vda / ext4 rw,noatime 0 0\n",
    # Half of a small machine's memory would be the ARC's otherwise, and Derby wants it.
    "etc/modprobe.d/zfs.conf": "options zfs zfs_arc_max=268435456\n",
    "etc/ssh/sshd_config.d/machines.conf": (
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUseDNS no\nUsePAM no\nLogLevel VERBOSE\n"
        "MaxStartups 200:30:400\nMaxSessions 200\nHostKey /etc/ssh/ssh_host_ed25519_key\n"
    ),
}

# Run in the image after its packages, in this order; each must succeed.
COMMANDS = (
    "chmod 755 /usr/sbin/machine-init",
    f"groupadd --gid {DERBY_UID} derby",
    f"useradd --uid {DERBY_UID} --gid {DERBY_UID} --home-dir {DERBY_HOME} --create-home --shell /bin/false derby",
    "rm -f /etc/ssh/ssh_host_*",
    "update-initramfs -u",
    "apt-get clean",
)
