"""Compiles the draws and the updates of :class:`mixjax.samplers.HostSampler` by numba.

The functions do what the NumPy code of :mod:`mixjax.samplers.scored.host` and its tree do, number by number, and give
the same bits: sums are sequential, and each ``exp`` and ``log`` is computed in float64, in the same way, and rounded.
Without numba this module can be imported, but not used. The first call compiles, and numba keeps the machine code
beside this file or in the user's cache. All functions are in one file, because that cache does not notice when a
function of another file changes.

Numbers are float32 throughout. A float32 times a Python float would be a float64 here, so constants are float32 too.
Each step of a draw or an update is a loop over the whole batch, and rows of siblings lie one after the other in flat
arrays: only long loops are turned into vector instructions, and a slice of an array costs more than a row's arithmetic.

Arguments that several functions share:

- ``starts``: int64 ``[levels + 1]``, where each level above the leaves starts in ``rows``, and where the last one ends.
- ``values``: float32 ``[leaf rows, fanout]``, NaN past the end.
- ``rows``: float32 ``[rows, 2, fanout]``, the tops and the logs of all levels above the leaves.
- ``log_prior``, ``prior_rows``: the same of the prior, logs only; without rows where the prior is uniform.
- ``log_uniform``: the log of a uniform prior's share; where there are rows, the log of what their shares are taken of,
  negated.
- ``scores``: whether values are scores, and not losses.
- ``floor``: the share of the prior in every draw; negative where nothing is mixed in.
"""

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mixjax.samplers.scored.host_tree import FARTHEST, PIECE, PIECES, POWERS

numba: Any = importlib.import_module("numba") if importlib.util.find_spec("numba") else None

__all__ = ["draw", "draw_distinct", "store"]

_NO_MASS = np.float32(-np.inf)
_ZERO, _ONE = np.float32(0), np.float32(1)
_LARGEST = np.float32(1e30)
_TINY = np.finfo(np.float32).tiny
_PARITY = np.uint32(0x1BD11BDA)
# 2^-512 to 2^511: a look-up takes less time than ldexp.
_LOWEST, _SHIFT = 512, PIECES.bit_length() - 1
_OCTAVES = np.exp2(np.arange(-_LOWEST, _LOWEST, dtype=np.float64))


def _compile(function: Callable) -> Callable:
    if numba is None:
        return function
    options = {"error_model": "numpy", "nogil": True}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # There is no folder that numba could write to.
        return numba.njit(**options)(function)


@_compile
def _exp(x):
    """Computes what :func:`mixjax.samplers.scored.host_tree.exp` does."""
    wide = min(max(np.float64(x), -FARTHEST), FARTHEST)
    pieces = np.rint(wide * (1 / PIECE))
    rest = wide - pieces * PIECE
    whole = np.int64(pieces)
    within = POWERS[whole & (PIECES - 1)] * (1.0 + rest * (1.0 + 0.5 * rest))
    # The mask changes no number. A NaN has no whole pieces, and without the mask would read past the table's ends.
    return np.float32(within * _OCTAVES[((whole >> _SHIFT) + _LOWEST) & (2 * _LOWEST - 1)])


@_compile
def _log(x):
    return np.float32(math.log(np.float64(x)))


@_compile
def _expm1(x):
    return np.float32(math.expm1(np.float64(x)))


@_compile
def _log1p(x):
    return np.float32(math.log1p(np.float64(x)))


@_compile
def _log_add_exp(x, y):
    larger, smaller = max(x, y), min(x, y)
    if larger == _NO_MASS:
        return larger + _log1p(_ONE)
    return larger + _log1p(_exp(smaller - larger))


@_compile
def _rotated(x, by):
    return np.uint32(np.uint32(x << np.uint32(by)) | np.uint32(x >> np.uint32(32 - by)))


@_compile
def _four_rounds(left, right, a, b, c, d):
    left = np.uint32(left + right)
    right = np.uint32(_rotated(right, a) ^ left)
    left = np.uint32(left + right)
    right = np.uint32(_rotated(right, b) ^ left)
    left = np.uint32(left + right)
    right = np.uint32(_rotated(right, c) ^ left)
    left = np.uint32(left + right)
    right = np.uint32(_rotated(right, d) ^ left)
    return left, right


@_compile
def _threefry(first, second, counter):
    """Encrypts one counter; see :func:`mixjax.samplers.scored.threefry.threefry2x32`."""
    third = np.uint32(first ^ second ^ _PARITY)
    left, right = first, np.uint32(np.uint32(counter) + second)
    left, right = _four_rounds(left, right, 13, 15, 26, 6)
    left, right = np.uint32(left + second), np.uint32(right + third + np.uint32(1))
    left, right = _four_rounds(left, right, 17, 29, 16, 24)
    left, right = np.uint32(left + third), np.uint32(right + first + np.uint32(2))
    left, right = _four_rounds(left, right, 13, 15, 26, 6)
    left, right = np.uint32(left + first), np.uint32(right + second + np.uint32(3))
    left, right = _four_rounds(left, right, 17, 29, 16, 24)
    left, right = np.uint32(left + second), np.uint32(right + third + np.uint32(4))
    left, right = _four_rounds(left, right, 13, 15, 26, 6)
    return np.uint32(left + third), np.uint32(right + first + np.uint32(5))


@_compile
def _uniforms(first, second, count):
    """Computes ``jax.random.uniform``, float32 ``[count]``."""
    bits = np.empty(count, np.uint32)
    for i in range(count):
        left, right = _threefry(first, second, i)
        # The bits become the mantissa of a number in [1, 2).
        bits[i] = np.uint32((np.uint32(left ^ right) >> np.uint32(9)) | np.uint32(0x3F800000))
    return bits.view(np.float32) - _ONE


@_compile
def _gumbels(first, second, count):
    """Computes ``jax.random.gumbel``, float32 ``[count]``."""
    numbers = _uniforms(first, second, count)
    for i in range(count):
        inner = -_log(max(numbers[i], _TINY))
        numbers[i] = -_log(inner)
    return numbers


@_compile
def _score(value, log_prior, scores):
    """Returns an example's top and log; a NaN, which is never stored, marks a place past the end."""
    if scores:
        return _ZERO, (_NO_MASS if np.isnan(value) else _log(max(value, _ZERO)) + log_prior)
    return (_ZERO, _NO_MASS) if np.isnan(value) else (value, log_prior)


@_compile
def _look_up(level, parents, count, tops, logs, starts, values, rows, log_prior, log_uniform, scores):
    """Writes the masses of the children, which are of ``level``, of the first ``count`` parents."""
    fanout = values.shape[1]
    if level:
        first = starts[level - 1]
        for b in range(count):
            row = first + parents[b]
            for j in range(fanout):
                tops[b * fanout + j] = rows[row, 0, j]
                logs[b * fanout + j] = rows[row, 1, j]
        return
    uniform = log_prior.shape[0] == 0
    for b in range(count):
        row = parents[b]
        for j in range(fanout):
            prior = log_uniform if uniform else log_prior[row, j]
            tops[b * fanout + j], logs[b * fanout + j] = _score(values[row, j], prior, scores)


@_compile
def _relate(tops, logs, size, heat, top, log):
    """Turns masses into log-masses relative to ``exp(log + heat * top)``, in place."""
    for i in range(size):
        related = logs[i] + heat * (tops[i] - top) - log
        logs[i] = related if logs[i] > _NO_MASS else _NO_MASS


@_compile
def _largest(numbers, start, end):
    """Returns the largest of some numbers; 0 where all are -inf, as their difference would be NaN."""
    largest = _NO_MASS
    for i in range(start, end):
        largest = numbers[i] if numbers[i] > largest else largest
    return largest if largest > _NO_MASS else _ZERO


@_compile
def _share(logs, count, fanout, largest):
    """Turns rows of log-masses into masses in proportion to the row's largest, which are written too; in place."""
    for b in range(count):
        largest[b] = _largest(logs, b * fanout, (b + 1) * fanout)
        for i in range(b * fanout, (b + 1) * fanout):
            logs[i] -= largest[b]
    for i in range(count * fanout):
        logs[i] = _exp(logs[i])


@_compile
def _combine(tops, logs, count, fanout, heat, sum_tops, sum_logs):
    """Adds up the masses of each row; ``logs`` are overwritten by shares."""
    for b in range(count):
        top = _NO_MASS
        for i in range(b * fanout, (b + 1) * fanout):
            # A node of mass zero may have any loss.
            top = tops[i] if (tops[i] > top) & (logs[i] > _NO_MASS) else top
        sum_tops[b] = top if top > _NO_MASS else _ZERO
        for i in range(b * fanout, (b + 1) * fanout):
            related = logs[i] + heat * (tops[i] - sum_tops[b])
            logs[i] = related if logs[i] > _NO_MASS else _NO_MASS
    _share(logs, count, fanout, sum_logs)
    for b in range(count):
        total = 0.0
        for i in range(b * fanout, (b + 1) * fanout):
            total += np.float64(logs[i])
        sum_logs[b] += _log(total)


@_compile
def _mix(level, parents, count, logs, all_zero, floor, n, starts, fanout, log_prior, prior_rows, log_uniform):
    """Mixes the prior into the log-masses of the parents' children, in place."""
    width, rest, share = fanout**level, _log1p(-floor), _log(floor)
    for b in range(count):
        for j in range(fanout):
            if log_prior.shape[0]:
                prior = prior_rows[starts[level - 1] + parents[b], j] if level else log_prior[parents[b], j]
                prior += log_uniform
            else:
                below = min(max(n - (parents[b] * fanout + j) * width, 0), width)
                prior = log_uniform + _log(np.float32(below))
            i = b * fanout + j
            logs[i] = prior if all_zero else _log_add_exp(rest + logs[i], share + prior)


@_compile
def _root(n, starts, values, rows, log_prior, prior_rows, log_uniform, heat, scores, floor):
    """Returns the root's children's log-masses, their unit, the log of the total mass, and whether all are zero."""
    levels, fanout = starts.size - 1, values.shape[1]
    count = starts[levels] - starts[levels - 1] if levels else values.shape[0]
    size, parents = count * fanout, np.arange(count)
    tops, logs = np.empty(size, np.float32), np.empty(size, np.float32)
    _look_up(levels, parents, count, tops, logs, starts, values, rows, log_prior, log_uniform, scores)
    top, total, masses = np.empty(1, np.float32), np.empty(1, np.float32), logs.copy()
    _combine(tops, masses, 1, size, heat, top, total)
    all_zero, mixes = scores and total[0] == _NO_MASS, floor >= _ZERO
    # Relative to the total only where the prior is mixed in, or may be.
    unit = total[0] if (scores or mixes) and total[0] > _NO_MASS else _ZERO
    _relate(tops, logs, size, heat, top[0], unit)
    if all_zero or mixes:
        _mix(levels, parents, count, logs, all_zero, floor, n, starts, fanout, log_prior, prior_rows, log_uniform)
    return logs, top[0], unit, total[0], all_zero


@_compile
def _prior_of(example, log_prior, log_uniform):
    fanout = log_prior.shape[1]
    return log_uniform + (log_prior[example // fanout, example % fanout] if log_prior.shape[0] else _ZERO)


@_compile
def _lay(shares, start, end, ends):
    """Writes where each share ends when the shares are laid end to end, -1 for a share of zero; returns the largest."""
    reached, largest = _ZERO, np.float32(-1)
    for i in range(start, end):
        share = shares[i]
        reached += share
        ends[i] = reached if share > _ZERO else np.float32(-1)
        largest = ends[i] if ends[i] > largest else largest
    return largest


@_compile
def _choose(point, ends, start, end):
    """Returns the position, from the start, of the first end beyond a point; 0 where there is none."""
    for i in range(start, end):
        if ends[i] > point:
            return i - start
    return 0


@_compile
def draw(key, batch, n, width, starts, values, rows, log_prior, prior_rows, log_uniform, heat, scores, floor):
    """Draws independently; returns int32 ``indices [B]`` and float32 ``weights [B]``.

    Args:
        key: uint32 ``[2]``.
        batch: ``B``.
        n: number of examples.
        width: number of the root's children.
        starts: see the module, like all that follow.
        values: see there.
        rows: see there.
        log_prior: see there.
        prior_rows: see there.
        log_uniform: see there.
        heat: scalar in [0, 1e30].
        scores: see the module.
        floor: see there.
    """
    levels, fanout = starts.size - 1, values.shape[1]
    first, second = _threefry(key[0], key[1], 0)
    uniforms = _uniforms(first, second, (levels + 2) * batch)
    masses, unit_top, unit_log, total, all_zero = _root(
        n, starts, values, rows, log_prior, prior_rows, log_uniform, heat, scores, floor
    )
    # The root's children form a square: a draw picks a row, then a cell.
    side = np.int64(math.ceil(math.sqrt(width)))
    lines = -(-width // side)
    shares, ends = np.zeros(side * lines, np.float32), np.empty(side * lines, np.float32)
    sums, sum_ends, most = np.empty(lines, np.float32), np.empty(lines, np.float32), np.empty(lines, np.float32)
    largest = _largest(masses, 0, width)
    for i in range(width):
        shares[i] = _exp(masses[i] - largest)
    for line in range(lines):
        added = 0.0
        for i in range(line * side, (line + 1) * side):
            added += np.float64(shares[i])
        sums[line] = np.float32(added)
        most[line] = _lay(shares, line * side, (line + 1) * side, ends)
    last = _lay(sums, 0, lines, sum_ends)
    nodes, logs = np.empty(batch, np.int64), np.empty(batch, np.float32)
    for b in range(batch):
        line = _choose(uniforms[(levels + 1) * batch + b] * last, sum_ends, 0, lines)
        point = uniforms[levels * batch + b] * most[line]
        nodes[b] = line * side + _choose(point, ends, line * side, (line + 1) * side)
        logs[b] = masses[nodes[b]]
    size = batch * fanout
    tops, siblings, shares = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    ends, most = np.empty(size, np.float32), np.empty(batch, np.float32)
    for level in range(levels - 1, -1, -1):
        _look_up(level, nodes, batch, tops, siblings, starts, values, rows, log_prior, log_uniform, scores)
        _relate(tops, siblings, size, heat, unit_top, unit_log)
        if all_zero or floor >= _ZERO:
            _mix(
                level, nodes, batch, siblings, all_zero, floor, n, starts, fanout, log_prior, prior_rows, log_uniform
            )  # fmt: skip
        shares[:] = siblings
        _share(shares, batch, fanout, most)
        for b in range(batch):
            start, end = b * fanout, (b + 1) * fanout
            point = uniforms[level * batch + b] * _lay(shares, start, end, ends)
            chosen = _choose(point, ends, start, end)
            nodes[b], logs[b] = nodes[b] * fanout + chosen, siblings[start + chosen]
    indices, weights = np.empty(batch, np.int32), np.empty(batch, np.float32)
    for b in range(batch):
        indices[b] = nodes[b]
        log_prob = logs[b] if scores or floor >= _ZERO else logs[b] - total
        weights[b] = _exp(_prior_of(nodes[b], log_prior, log_uniform) - log_prob)
    return indices, weights


@_compile
def _top_k(x, k):
    """Finds the positions of the ``k`` largest, descending, equal ones in their order; none that is -inf."""
    least = np.partition(x, x.size - k)[x.size - k] if k < x.size else _NO_MASS
    candidates = np.empty(x.size, np.int64)
    count = 0
    for i in range(x.size):
        if x[i] >= least and x[i] > _NO_MASS:
            candidates[count] = i
            count += 1
    candidates = candidates[:count]
    order = np.argsort(-x[candidates], kind="mergesort")
    return candidates[order[: min(k, count)]]


@_compile
def _condition(perturbed, maxima, fanout):
    """Shifts each row of Gumbel variables, in place, to a draw given that the row's largest is its ``maxima``."""
    for b in range(maxima.size):
        start, end, maximum = b * fanout, (b + 1) * fanout, maxima[b]
        largest = _largest(perturbed, start, end)
        for i in range(start, end):
            if perturbed[i] > _NO_MASS:
                gap = _log(-_expm1(perturbed[i] - largest))
                excess = maximum - perturbed[i] + gap
                perturbed[i] = maximum - max(excess, _ZERO) - _log1p(_exp(-abs(excess)))


@_compile
def draw_distinct(key, batch, n, width, starts, values, rows, log_prior, prior_rows, log_uniform, heat, scores, floor):
    """Draws without replacement; arguments and results are those of :func:`draw`."""
    levels, fanout, k = starts.size - 1, values.shape[1], batch + 1
    masses, unit_top, unit_log, _, all_zero = _root(
        n, starts, values, rows, log_prior, prior_rows, log_uniform, heat, scores, floor
    )
    first, second = _threefry(key[0], key[1], levels) if levels else (key[0], key[1])
    perturbed = masses[:width] + _gumbels(first, second, width)
    nodes = _top_k(perturbed, k)
    logs, maxima = masses[nodes], perturbed[nodes]
    for level in range(levels - 1, -1, -1):
        first, second = _threefry(key[0], key[1], level)
        size = nodes.size * fanout
        tops, below = np.empty(size, np.float32), np.empty(size, np.float32)
        _look_up(level, nodes, nodes.size, tops, below, starts, values, rows, log_prior, log_uniform, scores)
        _relate(tops, below, size, heat, unit_top, unit_log)
        if all_zero or floor >= _ZERO:
            _mix(
                level, nodes, nodes.size, below, all_zero, floor, n, starts, fanout, log_prior, prior_rows, log_uniform
            )  # fmt: skip
        perturbed = below + _gumbels(first, second, size)
        _condition(perturbed, maxima, fanout)
        chosen = _top_k(perturbed, k)
        nodes = nodes[chosen // fanout] * fanout + chosen % fanout
        logs, maxima = below[chosen], perturbed[chosen]
    indices, weights = np.empty(batch, np.int32), np.zeros(batch, np.float32)
    # The perturbed log-mass of the first example left out; there may be fewer examples than that.
    threshold = maxima[batch] if nodes.size == k else _NO_MASS
    # Without any example there is no node to repeat, and compiled code checks no bounds.
    repeated = nodes[0] if nodes.size else 0
    for b in range(batch):
        drawn = b < nodes.size
        indices[b] = nodes[b] if drawn else repeated
        if drawn:
            inclusion = -_expm1(-_exp(logs[b] - threshold))
            weights[b] = np.float32(batch) * _exp(_prior_of(nodes[b], log_prior, log_uniform)) / inclusion
    return indices, weights


@_compile
def store(indices, fresh, n, decay, starts, values, rows, log_prior, log_uniform, heat, scores):
    """Stores a batch's values, and refreshes the sums above them.

    Args:
        indices: int64 ``[B]``.
        fresh: float32 ``[B]``.
        n: number of examples.
        decay: float32 scalar, the weight of the old value.
        starts: see the module, like all that follow.
        values: see there.
        rows: see there.
        log_prior: see there.
        log_uniform: see there.
        heat: scalar in [0, 1e30].
        scores: see the module.
    """
    levels, fanout, flat = starts.size - 1, values.shape[1], values.reshape(-1)
    nodes, new, count = np.empty(indices.size, np.int64), np.empty(indices.size, np.float32), 0
    for b in range(indices.size):
        if 0 <= indices[b] < n and np.isfinite(fresh[b]):
            value = min(max(fresh[b], -_LARGEST), _LARGEST)
            nodes[count], new[count] = indices[b], decay * flat[indices[b]] + (_ONE - decay) * value
            count += 1
    # An example that occurs twice gets the mean of its values: all occurrences find their common slot in the store.
    sums, times, slots = np.zeros(count), np.zeros(count, np.float32), np.empty(count, np.int64)
    for b in range(count):
        flat[nodes[b]] = np.float32(b)
    for b in range(count):
        slots[b] = np.int64(flat[nodes[b]])
        sums[slots[b]] += np.float64(new[b])
        times[slots[b]] += _ONE
    for b in range(count):
        if slots[b] == b:
            flat[nodes[b]] = np.float32(sums[b]) / times[b]
    size = count * fanout
    tops, logs = np.empty(size, np.float32), np.empty(size, np.float32)
    sum_tops, sum_logs = np.empty(count, np.float32), np.empty(count, np.float32)
    for level in range(levels):
        for b in range(count):
            nodes[b] //= fanout
        _look_up(level, nodes, count, tops, logs, starts, values, rows, log_prior, log_uniform, scores)
        _combine(tops, logs, count, fanout, heat, sum_tops, sum_logs)
        for b in range(count):
            row, column = starts[level] + nodes[b] // fanout, nodes[b] % fanout
            rows[row, 0, column], rows[row, 1, column] = sum_tops[b], sum_logs[b]
