# --ro -a IMAGE -i
echo one two   three
echo "with \"quotes\" and \\ and a tab\tand \x41\102"
echo 'single "quoted" \n'
# a comment
   echo indented
-cat /nonesuch
echo after a failure
cat /t/no-newline | tr a-z A-Z
!echo from the host
<! echo echo from a command
-glob ls-nothing-matches /nonesuch*
glob echo /t/dir/*
time echo timed | sed 's/[0-9.]* seconds/N seconds/'
setenv FOO bar
!echo $FOO
unsetenv FOO
!echo "[$FOO]"
lcd /
!pwd
version | cut -d: -f1
is-file /t/lines
echo "%s %d"
supported | grep -c ext2
