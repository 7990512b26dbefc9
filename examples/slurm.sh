#!/usr/bin/env bash
# One compression on several machines of a SLURM cluster, on all their GPUs.
#
#     sbatch examples/slurm.sh
#
# Submit it again to go on after a time limit or a lost machine: it resumes what is there. The
# folder it is submitted from holds the images and the run, so all machines have to see that folder.
#SBATCH --job-name=drc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
set -euo pipefail

processes=4 # per machine, one for each GPU
run=runs/drn_s_slurm
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / processes))

if [ -f "$run/steps.json" ]; then
  options=(--resume --run "$run")
else
  options=(--output "$run" --model drn_s --ratio 0.3 --data DIV2K --steps 20000)
fi

srun torchrun --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$processes" \
  --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:29500" \
  -m -- drc compress "${options[@]}"
