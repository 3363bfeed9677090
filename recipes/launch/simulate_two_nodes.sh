#!/usr/bin/env bash
# Two machines on one: two network namespaces joined by a virtual cable, one torchrun in each. Needs root and iproute2.
#
#     sudo recipes/launch/simulate_two_nodes.sh [ZERO]      ZERO: zero2 (default), zero3, or null for none
#
# Runs a short recipe in one process, then on the two "machines", and compares what came of it.
set -euo pipefail
cd "$(dirname "$0")/../.."
zero=${1:-zero2}
bin=${BIN:-.venv/bin}
runs=$(mktemp -d)
a=tutelage$$a b=tutelage$$b
trap 'ip netns del $a 2>/dev/null; ip netns del $b 2>/dev/null; rm -rf "$runs"' EXIT

ip netns add "$a"
ip netns add "$b"
ip link add "v$$a" netns "$a" type veth peer name "v$$b" netns "$b"
ip -n "$a" addr add 10.77.0.1/24 dev "v$$a"
ip -n "$b" addr add 10.77.0.2/24 dev "v$$b"
for end in a b; do
    ip -n "${!end}" link set lo up
    ip -n "${!end}" link set "v$$$end" up
done

recipe=(recipes/tiny/train_teacher.yaml rounds=1 contexts_per_round=2 candidates=4 student.cohort=1 student.epochs=4
    teacher.batch_size=2 teacher.max_new_tokens=60 finetune.learning_rate=3e-4)
export OMP_NUM_THREADS=1
"$bin/tutelage" run "${recipe[@]}" runs="$runs" name=one

node() { # NAMESPACE INTERFACE RANK: gloo must be told which network joins the machines
    GLOO_SOCKET_IFNAME=$2 ip netns exec "$1" "$bin/torchrun" --nnodes 2 --nproc-per-node 1 --node-rank "$3" \
        --master-addr 10.77.0.1 --master-port 29400 --module recipes.cli run "${recipe[@]}" runs="$runs" name=two \
        distributed.deepspeed="$zero"
}
node "$b" "v$$b" 1 &
node "$a" "v$$a" 0
wait %1

"$bin/python" - "$runs" <<'PYTHON'
import re, sys
from pathlib import Path
from safetensors.torch import load_file
from protocol.journal import read_records

one, two = (Path(sys.argv[1]) / name for name in ("one", "two"))
# Times differ, and so do the last bits of a finetuning.
journals = [sorted(re.sub('"(seconds|fingerprint)":[^,}]*', "", r.model_dump_json()) for r in read_records(run / "journal.jsonl")) for run in (one, two)]
assert journals[0] == journals[1], "the journals differ"
weights = [load_file(run / "teacher/round-1/adapter_model.safetensors") for run in (one, two)]
difference = max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0])
assert difference <= 1e-5, f"the teachers differ by {difference}"
print(f"two nodes do what one does: {len(journals[0])} records equal, teachers differ by {difference:.1e}")
PYTHON
