"""Rows that tests of one room prove, and rows that do not apply."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Proof:
    """A row proved by a test in another folder, most often with a double.

    Attributes:
        number: of the row.
        input: what goes wrong.
        follows: what a user gets, in words.
        test: file and name, below ``tests/``.
    """

    number: int
    input: str
    follows: str
    test: str


ELSEWHERE = (
    Proof(
        4,
        "models, checkpoints, images and manifests, mutated",
        "3, in our words: no crash, nothing that hangs",
        "reliability/test_fuzz.py::test_a_mutated_file_is_refused_in_our_words",
    ),
    Proof(
        36,
        "ENOSPC from any change on disk of a build on (CI tries a sample of them)",
        "8, the old bundle stays; the next run gives the bytes of an undisturbed one",
        "reliability/test_crash_matrix.py::test_the_disk_is_full_from_any_write_on",
    ),
    Proof(
        37,
        "SIGKILL at a change on disk",
        "the old bundle or the whole new one; the next run sweeps and finishes",
        "reliability/test_crash_matrix.py::test_killed_at_a_write",
    ),
    Proof(
        38,
        "eight builds at once on one cache, of one target and of several",
        "0, the same bytes as alone, and nothing is made twice",
        "reliability/test_together.py::test_eight_at_once_share_a_cache_and_do_nothing_twice",
    ),
    Proof(
        5,
        "a net of more than 2 GiB",
        "6, E0692: no external data is written",
        "exporter/test_onnx_child.py::test_a_net_beyond_protobuf_is_refused",
    ),
    Proof(
        12,
        "FP16 overflows on other images than those of calibration",
        "5, the gate names the layer and `--keep-fp32`",
        "exporter/test_half_build.py::test_images_that_reach_further_than_the_calibration_are_a_failed_gate",
    ),
    Proof(
        27,
        "a download that is cut",
        "goes on where it stopped",
        "architectures/test_download.py::test_a_cut_transfer_goes_on_where_it_stopped",
    ),
    Proof(
        27,
        "a login page instead of weights",
        "4, E0422",
        "architectures/test_download.py::test_a_login_page_is_recognised_and_harms_nothing",
    ),
    Proof(
        27,
        "another file than was published",
        "4, E0423",
        "architectures/test_download.py::test_another_file_than_published_is_refused",
    ),
    Proof(
        29,
        "--int8 without calibration images",
        "0: stand-ins, which is said, and in the bundle",
        "exporter/test_bad_images.py::test_the_stand_in_is_said_to_be_one",
    ),
    Proof(
        30,
        "calibration images that are test images",
        "said, and in the report",
        "exporter/test_guards.py::test_images_of_the_test_set_are_in_the_bundle",
    ),
    Proof(
        30,
        "a normalization that does not fit",
        "said, with what was expected",
        "exporter/test_guards.py::test_an_input_that_does_not_fit_its_normalization_is_said",
    ),
    Proof(
        31,
        "16-bit grey",
        "scaled, not clipped",
        "runtime/test_decode.py::test_16_bit_grey_is_scaled_not_clipped",
    ),
    Proof(
        31,
        "images turned by EXIF",
        "turned, and it is in the manifest",
        "runtime/test_decode.py::test_exif_orientation",
    ),
    Proof(
        31,
        "CMYK that Adobe inverted",
        "its true colours",
        "runtime/test_decode.py::test_adobe_cmyk_is_not_a_negative",
    ),
    Proof(
        31,
        "bytes flipped at random",
        "3 or an image, nothing else",
        "runtime/test_image_files.py::test_damage_gives_our_errors_or_an_image",
    ),
    Proof(
        32,
        "the order in which a directory is read",
        "makes no difference",
        "calibration/test_images.py::test_the_same_whatever_the_order_of_the_directory",
    ),
    Proof(
        33,
        "labels in another order",
        "said: they look permuted",
        "exporter/test_guards.py::test_permuted_labels_are_said",
    ),
    Proof(
        36,
        "EIO, ENOSPC and others at a write",
        "8, the old file stays",
        "runtime/test_files.py::test_a_limit_of_the_system_is_a_storage_error",
    ),
    Proof(
        37,
        "SIGINT, SIGTERM, SIGKILL in each stage",
        "130 or killed; the next run finishes with the same bytes",
        "exporter/test_interruption.py::test_interrupted_in_each_stage",
    ),
    Proof(
        38,
        "two builds of the same",
        "one waits and says so, then takes what the other made",
        "exporter/test_gates.py::test_builds_of_the_same_wait_for_each_other",
    ),
    Proof(
        38,
        "a build that never ends beside",
        "7 after `--lock-timeout`",
        "exporter/test_gates.py::test_waiting_ends",
    ),
    Proof(
        38,
        "two that fetch the same weights",
        "they are fetched once",
        "architectures/test_download.py::test_two_at_once_fetch_once",
    ),
    Proof(
        40,
        "an engine of another GPU, TensorRT or platform",
        "4 before it is read",
        "trt/test_session.py::test_a_plan_of_another_machine_is_refused_before_it_is_read",
    ),
    Proof(
        41,
        "an engine that was cut or changed",
        "3",
        "trt/test_session.py::test_a_plan_that_was_changed_is_no_plan",
    ),
    Proof(
        41,
        "an engine without the file beside it",
        "3",
        "trt/test_session.py::test_a_plan_that_nothing_is_known_of_is_refused",
    ),
    Proof(
        40,
        "an engine that TensorRT did not build in INT8",
        "5, `E0502`: less than half of the convolutions",
        "trt/test_child.py::test_an_int8_engine_has_most_convolutions_in_int8",
    ),
    Proof(
        40,
        "an option that no TensorRT of the target knows",
        "6, `E0602`, before the build",
        "trt/test_delivery.py::test_what_no_board_of_the_target_knows_is_refused_here",
    ),
    Proof(
        43,
        "the system kills TensorRT's build",
        "4 with what was free",
        "trt/test_child.py::test_a_killed_build_says_what_memory_there_was",
    ),
    Proof(
        43,
        "a batch that the GPU has no room for",
        "4 with what is free",
        "trt/test_session.py::test_a_gpu_without_room_is_told_before_the_engine_runs",
    ),
    Proof(
        44,
        "the GPU is lost",
        "4: start again",
        "trt/test_session.py::test_a_lost_gpu_says_to_start_again",
    ),
    Proof(44, "no driver, no GPU", "4", "trt/test_session.py::test_no_driver_and_no_gpu_are_told"),
    Proof(
        45,
        "a provider that leaves nodes to the CPU",
        "4",
        "runtime/test_ort_session.py::test_a_provider_that_is_listed_and_does_not_work_is_never_replaced",
    ),
    Proof(
        47,
        "throttling, other load, clocks that change",
        "the run is marked unstable",
        "benchmarks/test_latency_result.py::test_each_doubt_alone_makes_it_unstable",
    ),
    Proof(
        54,
        "another resize, mean or order of colours",
        "pixels are torchvision's",
        "runtime/test_preprocess.py::test_the_pixels_are_those_of_torchvision",
    ),
)

# Row -> why nothing can be tested.
NOT_YET = {
    40: "a real engine: tests use a recording double of TensorRT; no GPU was in hand",
    43: "a GPU that runs out of memory: a double says so, no GPU was in hand",
    44: "a GPU that is lost: a double says so, no GPU was in hand",
    52: "a fleet over ssh: there is no such command",
    53: "a Triton repository: none is written",
}
