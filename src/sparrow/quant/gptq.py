"""Round weights one input after another, and let those to come make up for each error.

GPTQ, Frantar et al. 2022 (arXiv:2210.17323), in the form that Chee et al. 2023 (arXiv:2307.13304,
theorem 6) show to be the same: with H = (U + I) D (U + I)^T the moments of the inputs, U strictly
upper triangular, weight k is rounded after the errors of those before it were added to it,

    q_k = round(w_k + sum over j < k of (w_j - q_j) U[j, k])

which leaves the error of the layer's outputs at sum D[k, k] r_k^2, r the roundings. Unlike theirs,
a weight moves by less than a code: one that is far off has been damaged (`sparrow blame`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparrow.quant.adaround import output_error

Matrix = NDArray[np.float64]
# Share of the mean of the diagonal that is added to it: inputs that never vary have no say.
DAMPING = 0.01


def gptq(w: Matrix, moments: Matrix, low: int, high: int, step: Matrix | None = None) -> Matrix:
    """Codes of weights given in steps.

    Args:
        w: [G, M, K], real weights over their scale, in groups that read different inputs.
        moments: [G, K, K], second moments of the inputs of each group.
        low: Smallest code.
        high: Largest code.
        step: What a code of each weight is worth, [G, M, K], where that differs within a row.

    Returns:
        Integers [G, M, K], each next to its weight; no row errs more than rounded to the nearest.
    """
    k = w.shape[-1]
    diagonal = np.einsum("gkk->gk", moments)
    # inputs of much power first: nothing makes up for the errors of the last ones
    order = np.argsort(-diagonal, axis=1, kind="stable")
    sorted_moments = np.take_along_axis(
        np.take_along_axis(moments, order[:, :, None], 1), order[:, None], 2
    )
    damping = np.maximum(DAMPING * diagonal.mean(1), 1e-30)[:, None, None]
    upper = _cholesky((sorted_moments + damping * np.eye(k))[:, ::-1, ::-1])[:, ::-1, ::-1]
    feedback = upper / np.einsum("gkk->gk", upper)[:, None]
    real = np.take_along_axis(w, order[:, None], 2)
    worth = np.ones((1, 1, k)) if step is None else np.take_along_axis(step, order[:, None], 2)
    least, most = np.clip(np.floor(real), low, high), np.clip(np.ceil(real), low, high)
    codes, errors = np.empty_like(real), np.zeros_like(real)
    for i in range(k):
        made_up = (errors[..., :i] @ feedback[:, :i, i, None])[..., 0]
        wanted = real[..., i] + made_up / worth[..., i]
        codes[..., i] = np.clip(np.rint(wanted), least[..., i], most[..., i])
        errors[..., i] = (real[..., i] - codes[..., i]) * worth[..., i]
    found = np.empty_like(codes)
    np.put_along_axis(found, order[:, None], codes, 2)
    nearest = np.clip(np.rint(w), low, high)
    scale = 1.0 if step is None else step
    mine, other = (output_error((q - w) * scale, moments) for q in (found, nearest))
    result: Matrix = np.where((mine > other)[..., None], nearest, found)
    return result


def _cholesky(damped: Matrix) -> NDArray[np.floating[Any]]:
    """Lower factors; of inputs that hardly vary the rounding of their sums may be all there is."""
    try:
        return np.linalg.cholesky(damped)
    except np.linalg.LinAlgError:
        noise = -np.linalg.eigvalsh(damped)[:, 0]
        more = 2 * np.maximum(noise, 0)[:, None, None] * np.eye(damped.shape[-1])
        return np.linalg.cholesky(damped + more)
