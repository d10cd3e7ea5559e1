#!/bin/bash
# Trains on 2 nodes of 4 GPUs, with a copy of the model on each GPU (DDP).
# Without a queue: the same line on every node, in any order, with any options of `cxrssl fit`:
#   HEAD=node0:29500 bash examples/cluster/torchrun_ddp.sh --data.root /data/radiographs
# After a failure torchrun starts all processes again, and `--ckpt_path last` lets them go on.
set -euo pipefail

nodes=${NODES:-2} gpus=${GPUS:-4}
config=${CONFIG:-examples/recipes/dinov2_vitl14.yaml}
torchrun --nnodes "$nodes" --nproc-per-node "$gpus" --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "${HEAD:?name and port of one of the nodes}" --rdzv-id cxrssl \
  -m cxrssl fit --config "$config" --trainer.num_nodes "$nodes" --trainer.devices "$gpus" \
  --trainer.strategy ddp --trainer.precision bf16-mixed \
  --trainer.default_root_dir "${RUN:-runs/cluster}" \
  --ckpt_path last "$@"
