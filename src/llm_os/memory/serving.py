"""Bytes that a served replica needs: weights, KV cache, and the engine's own. Pure; knows no engine by name."""

from __future__ import annotations


def estimate(weights: int, *, kv_bytes: int = 0, overhead: int = 300 * 2**20) -> int:
    """Peak resident bytes of a replica.

    Args:
        weights: bytes of the weights as they lie in memory (file size times what the engine makes of it).
        kv_bytes: bytes set aside for keys and values.
        overhead: interpreter, engine library and work space, in bytes.
    """
    return weights + kv_bytes + overhead


def kv_bytes_per_token(*, layers: int, kv_width: int, bytes_per_value: float) -> int:
    """Keys and values of one token over all layers (Kwon et al. 2023, section 3: 2 x layers x width x bytes)."""
    return int(2 * layers * kv_width * bytes_per_value)
