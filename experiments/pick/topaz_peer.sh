#!/bin/sh
# Picks of topaz (GPL, its own environment, its own process) with its pretrained detector, on micrographs as they are.
#
#     sh experiments/pick/topaz_peer.sh TOPAZ_PYTHON OUT RADIUS_PX MICROGRAPH...
#
# TOPAZ_PYTHON is the interpreter of an environment with topaz-em 0.3.20. Gradients are switched off, which topaz itself
# forgets; scores do not depend on it. Then: equivox pick evaluate ... --picks OUT/picks.txt
set -e
python=$1 out=$2 radius=$3
shift 3
mkdir -p "$out/normalized"
"$python" -c "import sys; from topaz.main import main; sys.argv[0] = 'topaz'; main()" \
    normalize -o "$out/normalized" "$@"
"$python" -c "import sys, torch; torch.set_grad_enabled(False); torch.set_num_threads(1)
from topaz.main import main; sys.argv[0] = 'topaz'; main()" \
    extract -m "${DETECTOR:-resnet16}" -r "$radius" -t -8 -d -1 -o "$out/picks.txt" "$out"/normalized/*.mrc
