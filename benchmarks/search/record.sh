#!/usr/bin/env bash
# The grid that benchmarks/search.py replays: 14 divisions of 20,000 parameters, three seeds, 2, 5 and 10 epochs; 40 minutes
# on one of two cores that other work was using.
# Usage: benchmarks/search/record.sh RESULTS_DIR && python benchmarks/search.py --collect RESULTS_DIR/search
# Interrupted, it goes on where it was.
set -eu
common=(hydra/sweeper=budget hydra/launcher=joblib hydra.launcher.n_jobs=1 study.name=search "results_dir=$1"
  data=digits recipe=digits search.budget.params=20000 search.space.width_step=1 'search.seeds=[0,1,2]'
  trainer.threads=1 trainer.precision=32 trainer.accelerator=cpu logger=csv 'evaluate.checkpoints=[best]')
shares='[[0.05,0.15,0.8],[0.1,0.3,0.6],[0.15,0.55,0.3],[0.33,0.33,0.34],[0.6,0.25,0.15],[0.3,0.6,0.1]]'
extreme='[[0.8,0.1,0.1],[0.02,0.08,0.9]]'

record() { # DEPTHS SHARES
  given=("${common[@]}" "search.space.depths=$1" "search.space.shares=$2")
  "${PYTHON:-python}" -m robust_arch.train -m "${given[@]}" trainer.max_epochs=2,5 'evaluate.attacks=[]'
  "${PYTHON:-python}" -m robust_arch.train -m "${given[@]}" trainer.max_epochs=10 'evaluate.attacks=[pgd20]'
}

record '[[1],[1],[1]]' "$shares"
record '[[2],[2],[2]]' "$shares"
record '[[1],[1],[1]]' "$extreme"
