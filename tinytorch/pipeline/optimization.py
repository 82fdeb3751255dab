"""The optimizer and the schedule of a training run, from its configuration."""

from ..optimizers import AdamW, decay_groups, warmup_cosine


def build_optimizer(model, training):
    """AdamW with betas (0.9, 0.95), whose weight decay spares what `parameter_groups` spares."""
    groups = parameter_groups(model, training.weight_decay)
    return AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.95), eps=1e-8)


def parameter_groups(model, weight_decay):
    """`decay_groups`, where what the model names does not decay either: two groups, or one if the other is empty.

    A model may have `no_decay`, ends of the names of its parameters: Mamba's A_log and D are no weights to be made
    smaller, but where the decay of its memory begins.
    """
    decaying, others = decay_groups(model, weight_decay)
    ends = tuple(f".{end}" for end in getattr(model, "no_decay", ()))
    spared = {parameter for name, parameter in model.named_parameters() if f".{name}".endswith(ends)}
    others["params"] += [parameter for parameter in decaying["params"] if parameter in spared]
    decaying["params"] = [parameter for parameter in decaying["params"] if parameter not in spared]
    return [group for group in (decaying, others) if group["params"]]


def build_schedule(optimizer, training, total_steps):
    """Up in a line for warmup_steps, but at most a tenth of all steps, then half a cosine down to the lowest rate.

    A warm-up that is longer than the training would never let it reach its learning rate.
    """
    warmup = max(1, min(training.warmup_steps, total_steps // 10))
    lowest = training.min_lr_ratio * training.learning_rate
    return warmup_cosine(optimizer, warmup, max(total_steps, warmup + 1), lowest)
