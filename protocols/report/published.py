"""What others have published of the same quantities, to stand beside a study's own.

Tanwar et al. (2025), tables 4 and 15. Their `SSA` is a share of squares: it is what their tables 5
and 6 give, E-parallel over E-parallel and E-perpendicular, in 25 of 28 cells; in the other three
(table 6: Q Code's gate, Q Math's gate and up) a power of ten is wrong.
"""

from collections.abc import Mapping

COMPONENTS = ("q", "k", "v", "o", "gate", "up", "down")
# By the model that was tuned, in the order of `COMPONENTS`.
SHARES: Mapping[str, tuple[float, ...]] = {
    "Llama3-Aloe-8B-Alpha": (0.751, 0.914, 0.971, 0.800, 0.278, 0.281, 0.975),
    "Qwen2.5-Aloe-Beta-7B": (0.805, 0.936, 0.988, 0.818, 0.195, 0.211, 0.987),
    "Qwen2.5-Coder-Instruct": (0.906, 0.990, 0.993, 0.870, 0.460, 0.443, 0.997),
    "Qwen2.5-Math-Instruct": (0.877, 0.985, 0.993, 0.840, 0.351, 0.332, 0.995),
}
# Cosine, times 100, of a base with what was tuned from it.
COSINES: Mapping[str, float] = {
    "Llama-3-8B with its Instruct": 99.93,
    "Llama-3-8B with Aloe-Alpha": 99.75,
    "Qwen2.5-7B with its Instruct": 99.99,
    "Qwen2.5-7B with Aloe": 99.98,
    "Phi-3.5-Instruct with MediPhi": 99.98,
}
# More than this no change at random has inside of a gate or what goes up: width over neurons.
ROOM = {"Llama-3-8B": 4096 / 14336, "Qwen2.5-7B": 3584 / 18944}
