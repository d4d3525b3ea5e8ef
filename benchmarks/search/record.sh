#!/usr/bin/env bash
# The grid that benchmarks/search.py replays: divisions of 20,000 parameters at two depths, three seeds, 2, 5 and 10 epochs.
# Usage: benchmarks/search/record.sh RESULTS_DIR && python benchmarks/search.py --collect RESULTS_DIR/search
# Interrupted, it goes on where it was.
set -eu
common=(hydra/sweeper=budget hydra/launcher=joblib hydra.launcher.n_jobs=1 study.name=search "results_dir=$1"
  data=digits recipe=digits search.budget.params=20000 search.space.width_step=1 'search.seeds=[0,1,2]'
  trainer.threads=1 trainer.precision=32 trainer.accelerator=cpu logger=csv 'evaluate.checkpoints=[best]')
first='[[0.05,0.15,0.8],[0.1,0.3,0.6],[0.15,0.55,0.3],[0.33,0.33,0.34],[0.6,0.25,0.15],[0.3,0.6,0.1]]'
second='[[0.8,0.1,0.1],[0.02,0.08,0.9]]'
for shares in "$first" "$second"; do
  for depths in '[[1],[1],[1]]' '[[2],[2],[2]]'; do
    given=("${common[@]}" "search.space.shares=$shares" "search.space.depths=$depths")
    "${PYTHON:-python}" -m robust_arch.train -m "${given[@]}" trainer.max_epochs=2,5 'evaluate.attacks=[]'
    "${PYTHON:-python}" -m robust_arch.train -m "${given[@]}" trainer.max_epochs=10 'evaluate.attacks=[pgd20]'
  done
done
