#!/usr/bin/env bash
# Makes environments for what cannot stand beside scgenot: OTT 0.5 (whose GENOT later versions do not have) and CellFlow 0.0.9.
#
#   benchmarks/environments.sh FOLDER [ott05] [cellflow]     both by default; Python 3.11, or $PYTHON
#
# Then: FOLDER/ott05/bin/python benchmarks/solvers/environments/ott05_genot.py IN.npz OUT.npz --options '{"epsilon_b": 1}'
# or, from Python, benchmarks.solvers.foreign, which finds FOLDER in $SCGENOT_ENVIRONMENTS.
set -euo pipefail
folder=${1:?"which folder?"}
shift
[ $# -gt 0 ] || set -- ott05 cellflow
python=${PYTHON:-python3.11}

for name in "$@"; do
    case $name in
        ott05) packages=("ott-jax[neural]==0.5.0") ;;
        # `requests` is not among its dependencies, and it is imported.
        cellflow) packages=("cellflow-tools==0.0.9" "ott-jax[neural]==0.5.0" requests) ;;
        *)
            echo "no environment of that name: $name; there are ott05 and cellflow" >&2
            exit 1
            ;;
    esac
    "$python" -m venv "$folder/$name"
    # Where pip finds a CPU build of PyTorch, take it first: else whatever asks for PyTorch brings gigabytes for GPUs.
    [ "$name" = ott05 ] || "$folder/$name/bin/pip" install -q "torch==2.13.0"
    "$folder/$name/bin/pip" install -q "${packages[@]}"
    "$folder/$name/bin/python" -c "import ott; print('ott', ott.__version__)"
done
