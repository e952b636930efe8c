#!/usr/bin/env bash
# The README's two commands, each in a fresh clone with a fresh virtual environment and an empty cache, timed.
#
#     experiments/readme_commands/run.sh FOLDER [demo|test]
#
# FOLDER is made for the clones, the environments, the cache and the logs; the seconds are in its seconds.txt.
set -euo pipefail

root=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
work=$1
mkdir -p "$work"
unset PYTHONPATH
export MEMCONTROL_CACHE="$work/cache"

timed() {  # timed NAME COMMAND: runs it in a fresh clone and environment, appends NAME and seconds
    local name=$1 command=$2
    rm -rf "${work:?}/$name" && git clone -q "$root" "$work/$name"
    (
        cd "$work/$name"
        "${PYTHON:-python3.11}" -m venv .venv && source .venv/bin/activate
        began=$SECONDS
        bash -c "$command" >"$work/$name.log" 2>&1
        printf '%s %d\n' "$name" $((SECONDS - began)) >>"$work/seconds.txt"
    )
}

for name in ${2:-demo test}; do
    case $name in
        demo) timed demo 'pip install -c constraints.txt -e ".[demo]" && memcontrol search --budget 50' ;;
        test) timed test 'pip install -c constraints.txt -e ".[demo,test]" && pytest' ;;
    esac
done
cat "$work/seconds.txt"
