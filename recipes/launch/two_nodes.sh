#!/usr/bin/env bash
# Two machines with torchrun. On each, from the same folder of a file system that both share:
#
#     recipes/launch/two_nodes.sh NODE_RANK MASTER_ADDR run recipes/tiny/train_teacher.yaml finetune.batch_size=16 ...
#
# NODE_RANK is 0 on the machine MASTER_ADDR and 1 on the other. GPUS is how many each has, NODES how many machines there are.
set -euo pipefail
node_rank=$1 master_addr=$2
shift 2
exec .venv/bin/torchrun --nnodes "${NODES:-2}" --nproc-per-node "${GPUS:-8}" --node-rank "$node_rank" \
    --master-addr "$master_addr" --master-port "${MASTER_PORT:-29500}" --module recipes.cli "$@"
