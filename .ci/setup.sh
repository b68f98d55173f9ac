#!/bin/sh
# Create .venv and install the project into it against constraints.txt, unless that has been done.
# What an install depends on (both files, the folder, torch's index, what is asked for below) is kept
# in .venv/.installed, written last: an install that failed or was interrupted leaves no stamp and is
# done again.
#
# PYTHON        the Python to use (python3)
# VENV          the environment's folder (.venv)
# EXTRAS        the project's extras to install (book,test)
# ALONE         packages to install last and without their dependencies: a peer must not replace torch
# TORCH_INDEX   where to take torch from, when not from the usual package index
# PIP_ARGS      further arguments for pip

set -u
cd "$(dirname "$0")/.." || exit 1

python=${PYTHON:-python3}
torch_index=${TORCH_INDEX:-}
venv=${VENV:-.venv}
extras=${EXTRAS:-book,test}
alone=${ALONE:-}
stamp=$venv/.installed
log=$venv/install.log
needed_gb=4

fail() {
    echo "setup: $*" >&2
    exit 1
}

if ! command -v "$python" >/dev/null 2>&1; then
    fail "no '$python' here; install Python 3.11 or newer, or name one: make ... PYTHON=/path/to/python3"
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    version=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null)
    fail "Python 3.11 or newer is needed, '$python' is ${version:-not a working Python}; name another: make ... PYTHON=python3.12"
fi

minor=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
key="$(cat pyproject.toml constraints.txt | cksum) python$minor ${torch_index:-index} $extras $alone $(pwd)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] && "$venv"/bin/python -c '' 2>/dev/null; then
    exit 0
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    fail "'$python' cannot make virtual environments; on Debian or Ubuntu: apt-get install python$minor-venv"
fi
free_kb=$(df -Pk . | awk 'NR == 2 { print $4 }')
if [ "$free_kb" -lt $((needed_gb * 1024 * 1024)) ]; then
    fail "$((free_kb / 1024)) MB free in $(pwd), the install needs $needed_gb GB; free some space and call make again"
fi

# An environment of another Python, or one that was moved here, is made anew: its scripts name the old place.
rm -f "$stamp"
if [ -d "$venv" ]; then
    found=$("$venv"/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
    script=$(head -n 2 "$venv"/bin/pip 2>/dev/null)
    case "$found $script" in
        "$minor "*"$(pwd)/$venv/bin/python"*) ;;
        *) rm -rf "$venv" ;;
    esac
fi
if [ ! -x "$venv"/bin/pip ] && ! message=$("$python" -m venv "$venv" 2>&1); then
    rm -rf "$venv"
    fail "could not create $venv: $(echo "$message" | tail -n 1)"
fi

why() { # one line from pip's many
    if grep -qi 'no space left on device' "$log"; then
        echo "the disk is full (pip also unpacks under ${TMPDIR:-/tmp})"
    elif grep -qiE 'connection (refused|reset|broken|timed out)|name resolution|name or service not known|network is unreachable|max retries|timed? ?out|ProxyError' "$log"; then
        echo "no package index could be reached; check the network, or name one with PIP_INDEX_URL"
    else
        grep '^ *ERROR:' "$log" | grep -v 'subprocess-exited' | tail -n 1 | cut -c 1-300 || true
    fi
}

progress() { # what pip is at: its last line, or while it unpacks, how far it is
    if grep -q '^Installing collected packages' "$log"; then
        echo "$(ls "$venv"/lib/python*/site-packages | grep -c '\.dist-info$') packages unpacked"
    else
        tail -n 1 "$log" | sed 's/^ *//' | cut -c 1-90
    fi
}

install() { # runs pip in the background and says every 15 seconds what it is at
    : >"$log"
    "$venv"/bin/python -m pip install --disable-pip-version-check --no-input --retries 2 \
        --no-compile --progress-bar off -c constraints.txt "$@" >>"$log" 2>&1 &
    pip=$!
    trap 'kill $pip 2>/dev/null; exit 130' INT TERM
    while kill -0 $pip 2>/dev/null; do
        sleep 1
        ticks=$((ticks + 1))
        if [ $((ticks % 15)) -eq 0 ]; then
            printf '  %4s s  %s\n' "$ticks" "$(progress)"
        fi
    done
    wait $pip || fail "the install failed: $(why) (all of it: $log)"
}

echo "Installing into $venv; the first time takes a few minutes (log: $log)"
started=$(date +%s)
ticks=0
if [ -n "$torch_index" ]; then
    # shellcheck disable=SC2086
    install --index-url "$torch_index" ${PIP_ARGS:-} torch
fi
# shellcheck disable=SC2086
install ${PIP_ARGS:-} -e ".[$extras]"
if [ -n "$alone" ]; then
    # shellcheck disable=SC2086
    install ${PIP_ARGS:-} --no-deps $alone
fi
echo "$key" >"$stamp"
echo "Installed in $(($(date +%s) - started)) s"
