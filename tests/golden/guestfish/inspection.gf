# --ro -a IMAGE -i
echo "--- inspect-get-roots"
inspect-get-roots
echo "--- inspect-get-type /dev/sda1"
inspect-get-type /dev/sda1
echo "--- inspect-get-arch /dev/sda1"
inspect-get-arch /dev/sda1
echo "--- inspect-get-distro /dev/sda1"
inspect-get-distro /dev/sda1
echo "--- inspect-get-major-version /dev/sda1"
inspect-get-major-version /dev/sda1
echo "--- inspect-get-minor-version /dev/sda1"
inspect-get-minor-version /dev/sda1
echo "--- inspect-get-product-name /dev/sda1"
inspect-get-product-name /dev/sda1
echo "--- inspect-get-product-variant /dev/sda1"
inspect-get-product-variant /dev/sda1
echo "--- inspect-get-hostname /dev/sda1"
inspect-get-hostname /dev/sda1
echo "--- inspect-get-mountpoints /dev/sda1 | sort"
inspect-get-mountpoints /dev/sda1 | sort
echo "--- inspect-get-filesystems /dev/sda1 | sort"
inspect-get-filesystems /dev/sda1 | sort
echo "--- inspect-get-package-format /dev/sda1"
inspect-get-package-format /dev/sda1
echo "--- inspect-get-package-management /dev/sda1"
inspect-get-package-management /dev/sda1
echo "--- inspect-get-format /dev/sda1"
inspect-get-format /dev/sda1
echo "--- inspect-get-osinfo /dev/sda1"
inspect-get-osinfo /dev/sda1
echo "--- inspect-is-live /dev/sda1"
inspect-is-live /dev/sda1
echo "--- inspect-is-netinst /dev/sda1"
inspect-is-netinst /dev/sda1
echo "--- inspect-is-multipart /dev/sda1"
inspect-is-multipart /dev/sda1
echo "--- inspect-list-applications /dev/sda1"
inspect-list-applications /dev/sda1
echo "--- inspect-list-applications2 /dev/sda1"
inspect-list-applications2 /dev/sda1
echo "--- -inspect-get-type /dev/sda2"
-inspect-get-type /dev/sda2
echo "--- -inspect-get-windows-systemroot /dev/sda1"
-inspect-get-windows-systemroot /dev/sda1
echo "--- inspect-get-drive-mappings /dev/sda1"
inspect-get-drive-mappings /dev/sda1
echo "--- mountpoints"
mountpoints
