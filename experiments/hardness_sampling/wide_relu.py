"""The experiment on theorem 3.1: SGD with hardness weighted sampling on a wide ReLU network (paper 004, 3.1, 3.3, 12).

The network and its initialisation are those of section 12.1. Each run trains it twice from one start:

- With *exact* losses, batches are drawn by the probabilities ``p̄(L)`` of all losses as they are (theorem 12.1).
- With *stale* losses, they are drawn by algorithm 1 without importance sampling (theorem 12.2).

One seed is one draw of the data, the network and the batches.

The experiment can show whether the gradient norm gets below a given epsilon, and the largest step of a grid with which
it does. It cannot contradict the theorems: they give steps that *suffice*, by bounds with unspecified constants. That
the bounds fall with beta is algebra. Section 12.2 reads into them that the largest stable step falls as well, which is
measured here.
"""

import jax
import jax.numpy as jnp

from experiments.hardness_sampling.wide_network import WideReLU, data_set, laws, train_both
from experiments.hardness_sampling.wide_relu_report import METHODS, claims, figure
from mixjax.runner import configs
from mixjax.runner.experiment import Experiment

__all__ = ["wide_relu"]


def wide_relu(config: WideReLU) -> Experiment:
    """Builds the experiment on theorems 3.1, 3.2, 12.1 and 12.2, and on lemma 3.2."""

    def train(key, hparams, data):
        # Each seed draws its own examples.
        del data
        settings = configs.replace(config, hparams)
        x, _ = data_set(jax.random.split(key, 3)[0], settings)
        # The 2 on the diagonal, where the distance is 0, is the largest distance of two unit vectors.
        gaps = jnp.linalg.norm(x[:, None] - x, axis=-1) + 2.0 * jnp.eye(config.num_examples)
        return {**train_both(key, settings), **laws(key, settings), "separation": gaps.min()}

    trained = dict.fromkeys(("grad_norm", "robust", "distance"), ("method", "record"))
    checked = dict.fromkeys(("law_error", "own_change", "other_change"), ("divergence",))
    return Experiment(
        train=train,
        data=None,
        dims={**trained, **checked, "separation": ()},
        coords={
            "method": list(METHODS),
            "divergence": ["kl", "chi2"],
            "record": [config.num_steps // config.num_records * i for i in range(config.num_records + 1)],
        },
        units={
            "grad_norm": "first gradient norm of ERM",
            "robust": "loss units",
            **dict.fromkeys(("distance", "own_change", "other_change"), "probability"),
            **dict.fromkeys(("law_error", "separation"), "1"),
        },
        figure=lambda results: figure(results, config),
        claims=lambda results: claims(results, config),
    )
