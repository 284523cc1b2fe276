#!/bin/sh
# topaz (GPL, its own environment, its own process) trained on the labels that our pickers have, for a given CPU time.
#
#     sh experiments/pick/topaz_train.sh TOPAZ_PYTHON OUT CPU_SECONDS [SET_FOLDER]
#
# TOPAZ_PYTHON runs topaz-em 0.3.20 and torchvision. Its recipe as it stands (resnet8 of 32 units from its pretrained
# weights, GE-binomial with a tenth more particles than are labelled, minibatches of 256), on the ten micrographs that train the arms of
# real.py, normalised by topaz; an epoch is 5 updates here instead of 1000, so that a model is kept each time, and the
# last one within the time is taken. Then: DETECTOR=OUT/model_epochN.sav sh experiments/pick/topaz_peer.sh ...
set -e
python=$1 out=$2 budget=$3 set=${4:-../shared/data/cryoem/bgal_10017}
topaz() { "$python" -c "import sys, torch; torch.set_num_threads(1)
from topaz.main import main; sys.argv[0] = 'topaz'; main()" "$@"; }
mkdir -p "$out/train"
names=$(awk -F, '$2 == "train" {print $1}' "$set/split.csv" | head -n -2)
topaz normalize -o "$out/train" $(for name in $names; do echo "$set/$name.mrc"; done)
(head -n 1 "$set/coordinates.txt"; for name in $names; do grep "^$name" "$set/coordinates.txt"; done) > "$out/train.txt"
labels=$(($(wc -l < "$out/train.txt") - 1))
(
    ulimit -t "$budget"
    topaz train --train-images "$out/train" --train-targets "$out/train.txt" --num-particles \
        $((labels * 11 / 10 / $(echo "$names" | wc -l))) --model resnet8 --units 32 -d -1 --num-threads 1 \
        --epoch-size 5 --num-epochs 1000 --save-prefix "$out/model" -o "$out/curve.txt"
) || true # stopped by its time
ls -t "$out"/model_epoch*.sav | head -n 1
