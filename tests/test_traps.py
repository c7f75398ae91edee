"""The mistakes that systems of multimodal embedding are known to make, and the tests against each.

Every trap has a test of its name; this one fails where a test was renamed or taken away.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

_VLM = "backbones/vlm/test_families.py"
_SAME = "backbones/vlm/test_invariance.py"
_CLIPS = "backbones/vlm/test_clip_budget.py"
_OUTPUTS = "test_embedder_outputs.py"
_ROUTING = "adapters/test_task_routing.py"
_LOSSES = "gpte/test_objectives_contrastive.py"

#: By what goes wrong: files below this folder, each with the tests in it.
TRAPS: dict[str, dict[str, tuple[str, ...]]] = {
    "01 last-token pooling guesses the side of the padding": {
        _VLM: ("test_states_equal_the_models_own_padded_forward",),
        "gpte/test_pooling.py": (
            "test_equals_sentence_transformers",
            "test_a_row_does_not_depend_on_its_neighbours",
        ),
    },
    "02 the tokenizer's padding side is believed instead of the mask": {
        _VLM: ("test_states_equal_the_models_own_padded_forward",),
        "backbones/towers/test_towers.py": ("test_vectors_equal_the_models_own",),
    },
    "03 states are taken before the final norm, or logits are made": {
        _SAME: ("test_states_come_after_the_last_norm_and_no_logits_are_made",),
    },
    "04 positions of media fall back to one dimension, or are those of an earlier batch": {
        _SAME: (
            "test_positions_of_images_and_clips_are_the_models_own",
            "test_one_batch_leaves_nothing_to_the_next",
        ),
        "presets/test_dense_presets.py": ("test_positions_matter_to_the_vectors",),
    },
    "05 packed pixels are cut along the wrong axis": {
        _VLM: ("test_states_do_not_depend_on_neighbours_or_order",),
        _SAME: ("test_vectors_depend_on_no_batch_order_mix_or_size",),
        "multimodal/test_media_training.py": (
            "test_the_gradient_cache_trains_the_model_that_plain_batches_do",
        ),
    },
    "06 truncation cuts media or the token that is pooled": {
        _VLM: (
            "test_cuts_words_and_never_media",
            "test_media_that_do_not_fit_are_an_error_with_numbers",
        ),
    },
    "07 one bad item spoils its batch": {
        _OUTPUTS: (
            "test_bad_inputs_are_raised_skipped_or_left_empty",
            "test_an_item_that_does_not_fit_harms_no_other",
        ),
    },
    "08 vectors are normalised and scored in half precision": {
        _SAME: ("test_bfloat16_models_give_float32_vectors_near_their_own",),
        _LOSSES: (
            "test_half_precision_vectors_are_scored_in_float32",
            "test_scores_are_not_rounded_under_autocast",
        ),
        "search/test_maxsim.py": ("test_tensors_of_low_precision_are_scored_in_float32",),
    },
    "09 padding wins a MaxSim": {
        "search/test_maxsim.py": ("test_padding_never_wins",),
        "gpte/test_objectives_others.py": ("test_padding_never_wins_a_maxsim",),
    },
    "10 losses break where documents are gathered from other processes": {
        "gpte/test_distributed.py": (
            "test_every_objective_is_invariant_to_the_number_of_processes",
            "test_accumulated_steps_are_invariant_too",
        ),
    },
    "11 gathering scales the gradient, or loses it": {
        "gpte/test_distributed.py": (
            "test_every_objective_is_invariant_to_the_number_of_processes",
            "test_collectives",
        ),
    },
    "12 processes with other modalities or lengths hang": {
        "gpte/test_distributed.py": ("test_collectives",),
        "multimodal/test_media_training.py": ("test_two_processes_train_the_model_that_one_does",),
    },
    "13 the gradient cache forgets dropout, autocast or the last chunk": {
        "gpte/test_gradcache.py": (
            "test_equals_plain",
            "test_dropout_is_on",
            "test_autocast_is_the_same_in_both_passes_and_off_elsewhere",
            "test_gradients_travel_once",
            "test_batch_norm_is_refused",
            "test_chunks",
        ),
    },
    "14 answers count as negatives": {
        _LOSSES: (
            "test_duplicates_by_hash",
            "test_threshold_mask_spares_the_positive",
            "test_relative_threshold",
            "test_own_negatives_only",
        ),
    },
    "15 the model tells modalities apart instead of meanings": {
        _LOSSES: ("test_modality_mask",),
        "multimodal/test_media_training.py": (
            "test_a_modality_mask_reads_the_items",
            "test_interleaved_batches_hold_blocks_of_one_source",
        ),
    },
    "16 a masked row is not a number": {
        _LOSSES: ("test_a_row_whose_negatives_are_all_dropped_costs_nothing",),
    },
    "17 adapters load in part, fall back to the base, or follow a global switch": {
        "adapters/test_adapter_files.py": (
            "test_every_tensor_must_be_there_and_have_a_place_and_its_shape",
        ),
        "adapters/test_adapter_merging.py": (
            "test_merging_is_in_float32_whatever_the_weights_are",
        ),
        _ROUTING: (
            "test_unknown_tasks_are_named_with_the_nearest",
            "test_order_and_batch_size_do_not_matter",
            "test_patches_are_not_taken_for_rows",
            "test_threads_with_different_tasks_are_the_serial_run",
            "test_adapters_come_and_go_while_threads_encode",
        ),
        "presets/test_late_presets.py": ("test_a_missing_tensor_is_an_error_naming_it",),
    },
    "18 pictures are resized otherwise than in training": {
        "full/test_video_processors.py": (
            "test_images_are_those_of_the_torchvision_processor",
            "test_tiles_of_phi_are_those_of_its_processor",
        ),
        "presets/test_dense_presets.py": ("test_vectors_are_those_of_the_published_recipe",),
        "inputs/test_image.py": (
            "test_modes_become_rgb",
            "test_exif_orientation_is_applied",
            "test_extreme_aspect_ratio",
        ),
    },
    "19 clips are sampled unevenly, lose their times, or take every token": {
        "inputs/test_video.py": (
            "test_sample_indices",
            "test_odd_counts_repeat_the_last_frame",
            "test_damage_anywhere_is_an_input_error",
        ),
        _CLIPS: (
            "test_every_family_keeps_to_the_cap",
            "test_frames_are_resized_as_the_official_code_resizes_them",
        ),
        "full/test_video_processors.py": ("test_clips_are_those_of_the_video_processor",),
    },
    "20 order is lost in sorting": {
        "test_embedder.py": ("test_order_and_neighbours_do_not_matter", "test_shapes_and_types"),
        _SAME: ("test_vectors_depend_on_no_batch_order_mix_or_size",),
    },
    "21 prefixes are scored without normalising them again": {
        "test_embedder.py": ("test_truncated_vectors_are_unit_prefixes",),
        "gpte/test_heads.py": ("test_truncate_normalises_after_the_cut",),
        "gpte/test_objectives_others.py": ("test_matryoshka_over_any_objective",),
    },
    "22 metrics of different benchmarks are mixed up, or old vectors are reused": {
        "evaluation/test_mmeb.py": (
            "test_hit_at_1_among_own_candidates_only",
            "test_documents_rank_over_the_whole_corpus_with_linear_gains",
        ),
        "test_vector_cache.py": ("test_what_a_vector_depends_on_is_part_of_its_key",),
    },
    "23 a resumed run is another run": {
        "gpte/test_batching.py": (
            "test_a_resumed_plan_is_the_same_plan",
            "test_the_batches_do_not_depend_on_the_world",
        ),
        "gpte/test_trainer.py": ("test_a_resumed_run_is_the_same_run",),
    },
    "24 names of LoRA's targets also match the vision tower": {
        _VLM: ("test_lora_targets_are_the_language_model_s_linear_layers",),
        _ROUTING: ("test_the_targets_are_every_linear_layer_of_the_blocks_and_no_other",),
    },
}


@cache
def _tests_in(file: Path) -> frozenset[str]:
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.FunctionDef)
    )


def test_there_are_as_many_as_are_known() -> None:
    assert [trap[:2] for trap in TRAPS] == [f"{i:02}" for i in range(1, 25)]


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_has_its_tests(trap: str) -> None:
    for file, names in TRAPS[trap].items():
        assert names
        assert set(names) <= _tests_in(Path(__file__).parent / file), file
