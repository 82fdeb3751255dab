"""What has to be the same: on all ranks, and where training goes on."""

import logging

from .fields import flat

log = logging.getLogger("tinytorch")

ELSEWHERE = {"experiment_name", "output_dir", "log_level"}  # where a run is kept, and how much it says


def require_agreement(ranks, config, train_loader, val_loader, resume):
    """Raise ValueError, on all ranks, where one has other settings than rank 0, or where there are no batches.

    Ranks that do not make the same steps would wait for each other forever.
    """
    for name, loader in (("train_dataloader", train_loader), ("val_dataloader", val_loader)):
        if loader is not None and not hasattr(loader, "__len__"):
            raise ValueError(f"DistributedTrainer needs a {name} that knows how many batches a pass has.")
    settings = flat(config.to_dict()) | {
        "number of batches in a pass": len(train_loader),
        "with a val_dataloader": val_loader is not None,
        "resume_from_checkpoint": None if resume is None else str(resume),
    }
    gathered = ranks.gather((settings, 0 if val_loader is None else len(val_loader)))
    first = gathered[0][0]
    for rank, (other, _) in enumerate(gathered):
        for name in dict.fromkeys([*first, *other]):
            if first.get(name) != other.get(name):
                raise ValueError(
                    f"All ranks need to train alike, but on rank {rank} {name} is {other.get(name)!r}, and on rank 0 "
                    f"it is {first.get(name)!r}. Build configuration and loaders in the same way on each."
                )
    if len(train_loader) == 0:
        raise ValueError("DistributedTrainer needs a train_dataloader with at least one batch, but its length is 0.")
    if val_loader is not None and not any(length for _, length in gathered):  # in sum: a single rank may have none
        raise ValueError(
            "DistributedTrainer needs a val_dataloader with at least one batch, or None, but its length is 0."
        )


def log_changes(saved, config):
    """Log which settings are not those that a checkpoint was made with. `saved`: its Config as a dict."""
    saved, now = flat(saved), flat(config.to_dict())
    for name, value in now.items():
        if saved.get(name) != value:
            level = logging.INFO if name in ELSEWHERE else logging.WARNING
            log.log(level, "Going on with another %s: it was %r and is %r.", name, saved.get(name), value)
