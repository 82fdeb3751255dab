"""The optimizer and the schedule of a training run, from its configuration."""

from ..optimizers import AdamW, warmup_cosine


def build_optimizer(model, training):
    """AdamW with betas (0.9, 0.95), whose weight decay spares what `parameter_groups` spares."""
    groups = parameter_groups(model, training.weight_decay)
    return AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.95), eps=1e-8)


def parameter_groups(model, weight_decay):
    """Two groups for an optimizer: what decays, and biases, scales of norms and what the model names, which do not.

    A model may have `no_decay`, ends of the names of its parameters: Mamba's A_log and D are no weights to be made
    smaller, but where the decay of its memory begins.
    """
    spared = tuple(f".{end}" for end in getattr(model, "no_decay", ()))
    decaying, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            stays = parameter.ndim < 2 or f".{name}".endswith(spared)
            (others if stays else decaying).append(parameter)
    groups = [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_schedule(optimizer, training, total_steps):
    """Up in a line for warmup_steps, but at most a tenth of all steps, then half a cosine down to the lowest rate.

    A warm-up that is longer than the training would never let it reach its learning rate.
    """
    warmup = max(1, min(training.warmup_steps, total_steps // 10))
    lowest = training.min_lr_ratio * training.learning_rate
    return warmup_cosine(optimizer, warmup, max(total_steps, warmup + 1), lowest)
