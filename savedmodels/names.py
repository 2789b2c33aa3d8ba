"""Names that a user gives: signatures, quantizations, policies. Imports nothing, so every command can list them."""

from __future__ import annotations

SERVING_DEFAULT = "serving_default"
PREDICT = "predict"
RANK = "rank"
EMBED = "embed"
SIGNATURES = (SERVING_DEFAULT, PREDICT, RANK, EMBED)

QUANTIZATIONS = ("none", "bf16", "int8", "int4")
UNSEEN_POLICIES = ("error", "zero")
