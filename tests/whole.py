"""Runs of training that are cut in time, in one piece."""

import jax

from mixjax.sweeps import Segments


def whole(train: Segments):
    """Returns ``function(key, hparams, data) -> metrics``, all segments of a run and its end in one program."""

    def function(key, hparams, data):
        carry, parts = jax.lax.scan(
            lambda carry, _: train.advance(carry, hparams, data), train.init(key, hparams, data), length=train.num
        )
        joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), parts)
        return joined | ({} if train.finish is None else train.finish(carry, hparams, data))

    return function
