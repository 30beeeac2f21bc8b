# --ro -a IMAGE -i
echo "--- stat /t/lines"
stat /t/lines
echo "--- lstat /t/link"
lstat /t/link
echo "--- statns /t/lines"
statns /t/lines
echo "--- lstatns /t/link"
lstatns /t/link
echo "--- lstatns /t/char"
lstatns /t/char
echo "--- statns /t/block"
statns /t/block
echo "--- statns /t/sparse"
statns /t/sparse
echo "--- statns /t/dir"
statns /t/dir
echo "--- lstatlist /t \"lines nonesuch\""
lstatlist /t "lines nonesuch"
echo "--- lstatnslist /t \"lines nonesuch link\""
lstatnslist /t "lines nonesuch link"
echo "--- getxattrs /t/lines"
getxattrs /t/lines
echo "--- getxattr /t/lines user.one"
getxattr /t/lines user.one
echo "--- getxattr /t/lines user.two | xxd"
getxattr /t/lines user.two | xxd
echo "--- lgetxattrs /t/link"
lgetxattrs /t/link
echo "--- -getxattr /t/lines user.none"
-getxattr /t/lines user.none
echo "--- lxattrlist /t \"lines link\""
lxattrlist /t "lines link"
echo "--- acl-get-file /t/dir/hello access"
acl-get-file /t/dir/hello access
echo "--- acl-get-file /t/dir default"
acl-get-file /t/dir default
echo "--- acl-get-file /t/lines access"
acl-get-file /t/lines access
echo "--- -cap-get-file /t/lines"
-cap-get-file /t/lines
echo "--- statns /t/dir/hello"
statns /t/dir/hello
