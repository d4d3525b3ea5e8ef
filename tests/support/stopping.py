"""A signal in the middle of training."""

import signal

from robust_arch.training.module import AdversarialTraining


def stopped_at(monkeypatch, step):
    """Let the process be stopped while it takes this step, once."""
    take, sent = AdversarialTraining.training_step, []

    def taken(self, batch, batch_idx):
        if self.global_step == step and not sent:
            sent.append(step)
            signal.raise_signal(signal.SIGTERM)
        return take(self, batch, batch_idx)

    monkeypatch.setattr(AdversarialTraining, "training_step", taken)
