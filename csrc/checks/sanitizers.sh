#!/usr/bin/env bash
# The op tests on kernels built with AddressSanitizer and UndefinedBehaviorSanitizer:
#     bash csrc/checks/sanitizers.sh [arguments of pytest]
# Needs g++ and an environment in which detlite and its tests run. The kernels are compiled for plain
# x86-64: the sanitizers do not follow the choice of an instruction set at load time.
set -euo pipefail
cd "$(dirname "$0")/../.."

package="$(mktemp -d)"
trap 'rm -rf "$package"' EXIT
cp -r detlite "$package/"
rm -f "$package"/detlite/ops/_native*.so

torch="$(python -c 'import os, torch; print(os.path.dirname(torch.__file__))')"
for source in csrc/library.cpp csrc/cpu/*.cpp; do
  echo "compiling $source"
  g++ -c "$source" -o "$package/$(basename "$source").o" -std=c++20 -O1 -g -fPIC -Wall -Wextra \
    -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all \
    -fno-omit-frame-pointer -ffp-contract=off -DDETLITE_NO_CLONES \
    -DTORCH_TARGET_VERSION=0x020a000000000000 -isystem "$torch/include"
done
g++ -shared -fsanitize=address,undefined -o "$package/detlite/ops/_native.abi3.so" \
  "$package"/*.o -L"$torch/lib" -ltorch_cpu -lc10

# Python itself is not instrumented, so the runtime has to be loaded before it, and its own leaks
# are none of ours.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0:strict_init_order=1 UBSAN_OPTIONS=print_stacktrace=1
export PYTHONPATH="$package"
# Loaded by pytest, so that it sees the package that the tests see.
cat > "$package/the_right_package.py" <<PY
import detlite.ops
assert detlite.__file__.startswith("$package"), detlite.__file__
PY
pytest -q -p the_right_package -p no:cacheprovider -m "not slow" -k "not without_the_extension" \
  "${@:-tests/ops}"
echo "no error of memory, and no undefined behaviour"
