#!/usr/bin/env bash
# Runs this recipe from raw data to a report; --help shows the options, recipe.yaml the stages.
set -euo pipefail
recipe="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
source "$recipe/../../tools/light.sh"
exec "$light_python" -m common.run "$recipe" "$@"
