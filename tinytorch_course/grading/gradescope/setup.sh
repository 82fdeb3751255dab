#!/usr/bin/env bash
# Gradescope runs this once, as root, when it builds the image. After it, no network is needed.
set -euo pipefail
umask 022

root=${AUTOGRADER_ROOT:-/autograder}
unset PYTHONPATH PYTHONHOME

find_python() { # 3.11 or newer, and able to make environments
    local name
    for name in python3 python3.11 python3.12 python3.13 python3.14; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

install() {
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

find_python >/dev/null || install python3 python3-venv
find_python >/dev/null || install python3.11 python3.11-venv # Ubuntu 22.04's own is older
if ! python=$(find_python); then
    echo "Grading needs Python 3.11 or newer. Choose a newer base image under Configure Autograder." >&2
    exit 1
fi
# libseccomp keeps students' code from the network; it is part of most images.
"$python" -c 'import ctypes; ctypes.CDLL("libseccomp.so.2")' 2>/dev/null || install libseccomp2

"$python" -m venv "$root/venv"
"$root/venv/bin/pip" install --no-input --disable-pip-version-check --editable "$root/source[grade]"

# Students' code runs as a user without rights, who reads Python and the tests, and not what the answers are in.
chmod -R a+rX "$root/source" "$root/venv"
chmod -R go= "$root/source/tinytorch" "$root/source/modules"

# An empty submission: whether the reference passes here is better known now than when the first student uploads.
check=$(mktemp -d)
trap 'rm -rf "$check"' EXIT
mkdir "$check/submission"
"$root/venv/bin/tinytorch" grade @ARGUMENTS@ "$check/submission" --single --jobs 1 --out "$check/grades"
