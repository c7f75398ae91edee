"""Objectives: frozen dataclasses of hyperparameters that map encoded columns to a loss.

An objective holds no model and no state. Masks, weights, guides, queues and Matryoshka widths are
arguments or wrappers that compose. Under several processes the mean of their gradients is the
gradient of one process on the whole batch (``mmembed.gpte.distributed``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from mmembed.gpte.objectives.balance import ExpertBalance
from mmembed.gpte.objectives.base import Learnable, learned_parameters
from mmembed.gpte.objectives.building import build
from mmembed.gpte.objectives.distillation import (
    EmbeddingDistillation,
    KLDistillation,
    MarginMSE,
    SimilarityDistillation,
)
from mmembed.gpte.objectives.entities import EntityContrast
from mmembed.gpte.objectives.infonce import HardestSoftplus, InfoNCE, RankingHinge
from mmembed.gpte.objectives.isbert import LocalGlobalInformation
from mmembed.gpte.objectives.joint import Joint, Part
from mmembed.gpte.objectives.late import LateToDense
from mmembed.gpte.objectives.locality import LocalityPreservation
from mmembed.gpte.objectives.m3 import M3Distillation, M3SelfDistillation
from mmembed.gpte.objectives.masks import DuplicateMask, GuideMask, ModalityMask, ThresholdMask
from mmembed.gpte.objectives.matryoshka import Matryoshka
from mmembed.gpte.objectives.mixing import MixedNegatives
from mmembed.gpte.objectives.momentum import MomentumContrast
from mmembed.gpte.objectives.pairs import (
    PairBinary,
    PairDistillation,
    PairLikelihood,
    PairSoftmax,
)
from mmembed.gpte.objectives.quantization import Quantized
from mmembed.gpte.objectives.ranking import AnglE, CoSENT, CosineRegression
from mmembed.gpte.objectives.scd import SCD
from mmembed.gpte.objectives.sigmoid import Sigmoid
from mmembed.gpte.objectives.sparse import SparsityPenalty
from mmembed.gpte.objectives.triplet import SpreadOut, Triplet
from mmembed.gpte.objectives.weights import CodeSageWeights, Hardness
from mmembed.gpte.protocols import Objective

__all__ = [
    "MASKS",
    "OBJECTIVES",
    "SCD",
    "WEIGHTS",
    "AnglE",
    "CoSENT",
    "CodeSageWeights",
    "CosineRegression",
    "DuplicateMask",
    "EmbeddingDistillation",
    "EntityContrast",
    "ExpertBalance",
    "GuideMask",
    "HardestSoftplus",
    "Hardness",
    "InfoNCE",
    "Joint",
    "KLDistillation",
    "LateToDense",
    "Learnable",
    "LocalGlobalInformation",
    "LocalityPreservation",
    "M3Distillation",
    "M3SelfDistillation",
    "MarginMSE",
    "Matryoshka",
    "MixedNegatives",
    "ModalityMask",
    "MomentumContrast",
    "PairBinary",
    "PairDistillation",
    "PairLikelihood",
    "PairSoftmax",
    "Part",
    "Quantized",
    "RankingHinge",
    "Sigmoid",
    "SimilarityDistillation",
    "SparsityPenalty",
    "SpreadOut",
    "ThresholdMask",
    "Triplet",
    "build_objective",
    "learned_parameters",
]

OBJECTIVES: Mapping[str, type[Objective]] = {
    "angle": AnglE,
    "balance": ExpertBalance,
    "cosent": CoSENT,
    "cosine": CosineRegression,
    "embedding_kd": EmbeddingDistillation,
    "entities": EntityContrast,
    "hardest_softplus": HardestSoftplus,
    "hinge": RankingHinge,
    "infonce": InfoNCE,
    "isbert": LocalGlobalInformation,
    "joint": Joint,
    "kl": KLDistillation,
    "late_to_dense": LateToDense,
    "locality": LocalityPreservation,
    "m3": M3SelfDistillation,
    "m3_kd": M3Distillation,
    "margin_mse": MarginMSE,
    "matryoshka": Matryoshka,
    "mixed_negatives": MixedNegatives,
    "moco": MomentumContrast,
    "pair_binary": PairBinary,
    "pair_kl": PairDistillation,
    "pair_likelihood": PairLikelihood,
    "pair_softmax": PairSoftmax,
    "quantized": Quantized,
    "scd": SCD,
    "sigmoid": Sigmoid,
    "similarity_kd": SimilarityDistillation,
    "sparsity": SparsityPenalty,
    "spread": SpreadOut,
    "triplet": Triplet,
}

MASKS: Mapping[str, type] = {
    "duplicates": DuplicateMask,
    "guide": GuideMask,
    "modality": ModalityMask,
    "threshold": ThresholdMask,
}

WEIGHTS: Mapping[str, type] = {"codesage": CodeSageWeights, "hardness": Hardness}


def build_objective(config: object) -> Objective:
    """The objective that a configuration describes.

    Args:
        config: ``{"name": "infonce", "temperature": 0.02, "masks": [{"name": "threshold"}]}``; a
            bare name stands for its defaults, and objectives, masks and weights nest.

    Raises:
        ConfigError: an unknown name or key (with the nearest known one), or an impossible value.
    """
    known = {**OBJECTIVES, **MASKS, **WEIGHTS}
    made = build(config, known, "objective")
    if type(made) not in OBJECTIVES.values():
        build(config, OBJECTIVES, "objective")  # raises with the names of objectives
    return cast(Objective, made)
