#!/usr/bin/env bash
# One binary under several versions of torch:
#     bash csrc/checks/torch_versions.sh [version ...]       by default the three below
# Builds a wheel with the newest torch, then installs that same wheel beside each version in a fresh
# environment (5 GB, removed afterwards) and runs the op tests.
set -euo pipefail
cd "$(dirname "$0")/../.."
versions=("$@")
[ ${#versions[@]} -gt 0 ] || versions=(2.10.0 2.12.1 2.15.0)

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
DETLITE_NATIVE=require pip wheel -q --no-deps -w "$work" .

for version in "${versions[@]}"; do
  python3 -m venv "$work/environment"
  (
    . "$work/environment/bin/activate"
    pip install -q "$work"/detlite-*.whl "torch==$version" torchvision pytest
    python - <<'PY'
import hashlib, pathlib, detlite, torch, torchvision
binary = next(pathlib.Path(detlite.__path__[0], "ops").glob("_native.*"))
digest = hashlib.sha256(binary.read_bytes()).hexdigest()[:16]
print(f"== {binary.name} {digest} under torch {torch.__version__}, torchvision {torchvision.__version__}")
PY
    # By its own name pytest leaves this folder's detlite aside.
    pytest -q -p no:cacheprovider -m "not slow" tests/ops
  )
  rm -rf "$work/environment"
done
echo "the same binary passed under torch ${versions[*]}"
