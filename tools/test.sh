#!/usr/bin/env bash
# Every check that can run on this machine: makes the light environment and runs nox in it.
# Arguments go to nox: tools/test.sh -s lint
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/light.sh"
cd -- "$project"
exec "$light_python" -m nox "$@"
