cat /etc/hostname
cat /etc/hosts
readlink /etc/localtime
cat /root/.ssh/authorized_keys
lstatns /root/.ssh | grep -E '^st_(mode|uid|gid):'
lstatns /root/.ssh/authorized_keys | grep -E '^st_(mode|uid|gid|size):'
grep ^root: /etc/shadow
grep ^daemon: /etc/shadow
grep ^sys: /etc/shadow
lstatns /etc/shadow | grep -E '^st_(mode|uid|gid):'
tail-n 2 /etc/motd
cat /etc/new-lines
lstatns /etc/new-lines | grep -E '^st_(mode|uid|gid|size):'
cat /etc/new
lstatns /etc/new | grep -E '^st_(mode|uid|gid|size):'
exists /etc/touched
find /srv/a
lstatns /srv/a | grep -E '^st_(mode|uid|gid|nlink):'
lstatns /srv/a/copied | grep -E '^st_(mode|uid|gid|size):'
lstatns /srv/a/b/touched | grep -E '^st_(mode|uid|gid|size):'
readlink /srv/l1
readlink /srv/l2
ls /etc/skel
exists /srv/fidelity/many
exists /srv/fidelity/file
lstatns /srv/fidelity/hard-link | grep -E '^st_(mode|uid|gid|nlink):'
filesize /etc/issue
filesize /etc/pam.d/login
filesize /etc/pam.d/sshd
ls /usr/lib/virt-sysprep/scripts
lstatns /usr/lib/virt-sysprep/scripts | grep -E '^st_(mode|uid|gid):'
lstatns /usr/lib/virt-sysprep/firstboot.sh | grep -E '^st_(mode|uid|gid):'
readlink /etc/systemd/system/multi-user.target.wants/guestfs-firstboot.service
