# Sourced by run.sh and test.sh: makes the light environment once and sets light_python.
project="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)"
export PYTHONPATH="$project${PYTHONPATH:+:$PYTHONPATH}"
light="${LLAMA3_RECIPES_ENVS:-$project/.envs}/tools"
[[ $light == /* ]] || light="$PWD/$light"
light_python="$light/bin/python"

# `python -m` looks in the current directory before anywhere else.
if [ -e common/__init__.py ] && ! [ common/__init__.py -ef "$project/common/__init__.py" ]; then
    echo "error: $PWD holds a Python package named common, which would be taken for the one in $project" >&2
    echo "  to do:    start the command from another directory" >&2
    exit 2
fi

# Up to date when it was completed from this very requirements.txt: no Python is started to find out.
if ! { [ -x "$light_python" ] && [ -f "$light/complete.json" ] && cmp -s "$project/requirements.txt" "$light/source.txt"; }; then
    for candidate in python3.12 python3.13 python3.11 python3.10 python3 python; do
        # Executed, not only found: a version manager's shim may answer "command not found".
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
            light_python="$("$candidate" -m common.environment light)"
            break
        fi
    done
    if [ ! -x "$light_python" ]; then
        echo "error: no Python of version 3.10 or newer was found on PATH" >&2
        exit 2
    fi
fi
