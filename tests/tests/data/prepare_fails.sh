#!/bin/sh
# Does not prepare the Debian of `a_script_that_fails_is_shown`.
echo "looking for the moon"
ls /moon
