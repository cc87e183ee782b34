"""Makes results of the shape that the comparison of mixing methods has, with losses that are known."""

import numpy as np
import xarray

DOMAINS = ("help", "linux", "rust", "perl")
STEPS = np.arange(1, 11) * 100
# method -> what it adds to the final loss of each domain and of the held-out one, in nats per token
EFFECTS = {
    "uniform": ((0.0, 0.0, 0.0, 0.0), 0.0),
    "proportional": ((0.3, -0.2, 0.3, 0.3), 0.2),
    "temperature": ((0.05, -0.05, 0.05, 0.05), 0.1),
    "unimax": ((0.02, 0.02, 0.02, 0.02), 0.0),
    "erma": ((-0.1, -0.1, -0.1, -0.1), 0.0),
    "erma_va": ((-0.2, -0.2, -0.2, -0.2), -0.1),
    "va": ((0.0, 0.0, 0.0, 0.0), 0.0),
    "group_dro": ((-0.2, 0.4, -0.2, 0.2), 0.3),
    "doremi": ((-0.1, -0.1, 0.1, -0.1), 0.0),
    "doge": ((0.1, 0.1, 0.1, 0.1), 0.1),
    "odm": ((-0.4, -0.4, -0.4, -0.4), -0.1),
    "ado": ((-0.39, -0.39, -0.39, -0.39), -0.1),
    "aioli": ((0.2, 0.2, 0.2, 0.2), 0.2),
}
WEIGHTS = {
    "proportional": (0.1, 0.6, 0.2, 0.1),
    "temperature": (0.2, 0.4, 0.2, 0.2),
    "unimax": (0.24, 0.28, 0.24, 0.24),
}
BASE = np.array([3.0, 3.5, 4.0, 3.2])


def results(seeds=8, noise=0.01, effects=None, timed=("doremi", "doge", "erma"), names=None):
    """Returns run name -> metrics; runs at equal time stop at half of the steps, and are 0.3 nats worse."""
    effects = EFFECTS if effects is None else effects
    names = list(effects) if names is None else names
    rng = np.random.default_rng(0)
    # All methods share what a seed does, as paired seeds do.
    seed_effects = 0.2 * rng.normal(size=(seeds, 1, 1))
    found = {}
    for name in names:
        found[name] = _run(name, effects[name], STEPS, 0.0, seed_effects, noise, rng)
    for name in timed:
        if name in names:
            found[f"{name}_time"] = _run(name, effects[name], STEPS // 2, 0.3, seed_effects, noise, rng)
    return found


def _run(name, effect, steps, worse, seed_effects, noise, rng):
    domain_effects, target = effect
    seeds = len(seed_effects)
    # A straight line of 1 nat to the final loss, so that speed-ups are known.
    falling = (1.0 - np.arange(1, 11) / 10)[None, :, None]
    loss = BASE + np.array(domain_effects) + worse + falling + seed_effects
    loss = loss + noise * rng.normal(size=(seeds, 10, 4))
    targets = 3.8 + target + worse + falling[..., 0] + seed_effects[..., 0] + noise * rng.normal(size=(seeds, 10))
    weights = np.broadcast_to(WEIGHTS.get(name, (0.25,) * 4), (seeds, 10, 4))
    moved = weights
    if name in ("va", "odm", "ado", "aioli", "erma_va", "group_dro", "erma"):
        shift = np.linspace(0.0, 0.15, 10)[None, :, None] * np.array([1, -1, 1, -1])
        moved = weights + shift
    dims = ("seed", "step", "domain")
    return xarray.Dataset(
        {
            "loss": (dims, loss),
            "target_loss": (dims[:2], targets),
            "loss_weight": (dims, weights if name == "va" else moved),
            "sampling_weight": (dims, weights if name in ("erma", "group_dro") else moved),
            "validation_loss": (("seed", "domain"), loss[:, -1]),
            "epochs": (("seed", "domain"), np.ones((seeds, 4))),
            "least_effective_domains": (("seed",), np.full(seeds, 1.5 if name == "group_dro" else 3.5)),
        },
        {"seed": 1000 + np.arange(seeds), "step": steps, "domain": list(DOMAINS)},
    )
