import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from detlite.data import ResizeShortestEdge, TestData, TrainingData, mapper, transform_sample
from detlite.data.mapper import MAX_ATTEMPTS, BrokenSample, seeded
from detlite.data.samplers import SamplePosition


class NumpyNoise(v2.Transform):
    """Draws from numpy and from Python, as transforms of other libraries do."""

    def transform(self, inpt, params):
        noise = np.random.randint(0, 5) + random.randint(0, 5)
        return inpt if "Boxes" in type(inpt).__name__ else inpt // 2 + noise


TRANSFORMS = [
    v2.RandomPhotometricDistort(p=1.0),
    v2.RandomIoUCrop(),
    v2.RandomHorizontalFlip(),
    NumpyNoise(),
    ResizeShortestEdge(min_size=[32, 40, 48], max_size=64),
]


def content(sample):
    instances = sample["instances"]
    tensors = sample["image"], instances.gt_boxes, instances.gt_classes
    return [tensor.tolist() for tensor in tensors], sample["file_name"]


def test_a_training_sample_has_what_the_model_needs(painted_dataset):
    dataset = painted_dataset(4)
    sample = TrainingData([dataset], [])[SamplePosition(0, 1)]
    assert sample["image"].shape == (3, 32, 48)
    assert sample["image"].dtype == torch.uint8
    assert sample["image"].is_contiguous()
    assert type(sample["instances"].gt_boxes) is torch.Tensor
    assert sample["instances"].image_size == (32, 48)
    x, y, w, h = dataset.boxes_xywh[dataset.boxes_of(1)][0]
    assert sample["instances"].gt_boxes.tolist() == [[x, y, x + w, y + h]]
    assert sample["instances"].gt_classes.tolist() == [1]
    assert sample["file_name"].endswith("001.jpg")
    assert (sample["image_id"], sample["height"], sample["width"]) == (1, 32, 48)
    assert sample["skipped"] == []


def test_an_image_without_a_box_has_empty_fields(painted_dataset):
    instances = TrainingData([painted_dataset(4)], [])[SamplePosition(0, 0)]["instances"]
    assert instances.gt_boxes.shape == (0, 4)
    assert instances.gt_classes.shape == (0,)
    assert instances.gt_classes.dtype == torch.int64


def test_joined_data_sets_follow_one_another(painted_dataset):
    data = TrainingData([painted_dataset(3, name="a"), painted_dataset(2, name="b")], [])
    assert len(data) == 5
    names = [data[SamplePosition(0, i)]["file_name"].split("/")[-2:] for i in range(5)]
    assert names == [
        ["a", "000.jpg"],
        ["a", "001.jpg"],
        ["a", "002.jpg"],
        ["b", "000.jpg"],
        ["b", "001.jpg"],
    ]


def test_a_sample_is_a_function_of_seed_and_position(painted_dataset):
    dataset = painted_dataset(2)
    data, other = (TrainingData([dataset], TRANSFORMS, seed=seed) for seed in (0, 1))
    first = content(data[SamplePosition(7, 1)])
    data[SamplePosition(8, 0)]
    assert content(data[SamplePosition(7, 1)]) == first
    assert content(data[SamplePosition(8, 1)]) != first
    assert content(other[SamplePosition(7, 1)]) != first


def test_the_number_of_workers_changes_nothing(painted_dataset):
    data = TrainingData([painted_dataset(6)], TRANSFORMS, seed=3)
    batches = [[SamplePosition(2 * i + j, (i + j) % 6) for j in range(2)] for i in range(4)]
    runs = []
    for num_workers in (0, 1, 2):
        torch.manual_seed(num_workers)
        loader = DataLoader(
            data, batch_sampler=batches, num_workers=num_workers, collate_fn=lambda batch: batch
        )
        runs.append([content(sample) for batch in loader for sample in batch])
    assert runs[0] == runs[1] == runs[2]


def draw():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def seed_all():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def test_global_random_numbers_go_on_as_if_nothing_had_been_drawn(painted_dataset):
    data = TrainingData([painted_dataset(2)], TRANSFORMS)
    seed_all()
    expected = draw()
    seed_all()
    data[SamplePosition(3, 1)]
    assert draw() == expected


def test_random_numbers_come_back_after_an_error():
    seed_all()
    expected = draw()
    seed_all()
    with pytest.raises(ZeroDivisionError), seeded(1, 2):
        draw()[0][0] / 0
    assert draw() == expected


def test_positions_draw_unrelated_numbers():
    drawn = set()
    for seed in range(3):
        for position in range(100):
            with seeded(seed, position):
                drawn.add(float(torch.rand(())))
    assert len(drawn) == 300


def test_boxes_are_clipped_and_those_that_nothing_is_left_of_are_dropped():
    record = {
        "image": torch.zeros(3, 20, 20, dtype=torch.uint8),
        "boxes": torch.tensor([[0.0, 0, 8, 8], [9.5, 2, 18, 6], [12.0, 12, 18, 18], [5, 5, 15, 9]]),
        "classes": torch.tensor([4, 5, 6, 7]),
        "file_name": "a.png",
        "image_id": 1,
        "height": 20,
        "width": 20,
    }
    sample = transform_sample(record, [v2.CenterCrop([10, 10])])
    # The crop begins at (5, 5): the boxes move by -5, and a box of 1 pixel is the least.
    assert sample["instances"].gt_classes.tolist() == [4, 5, 6, 7]
    assert sample["instances"].gt_boxes.tolist() == [
        [0, 0, 3, 3],
        [4.5, 0, 10, 1],
        [7, 7, 10, 10],
        [0, 0, 10, 4],
    ]
    sample = transform_sample(record, [v2.CenterCrop([6, 6])])
    assert sample["instances"].gt_classes.tolist() == [4, 6, 7]
    assert sample["instances"].image_size == (6, 6)
    assert (sample["height"], sample["width"]) == (20, 20)


def test_a_broken_image_is_reported_and_not_raised(painted_dataset):
    dataset = painted_dataset(3, broken=[1])
    broken = TrainingData([dataset], [])[SamplePosition(0, 1)]
    assert isinstance(broken, BrokenSample)
    assert "001.jpg' is broken" in broken
    assert isinstance(TestData(dataset, [])[1], BrokenSample)


def test_a_broken_image_is_replaced_by_another_that_the_position_decides(painted_dataset):
    data = TrainingData([painted_dataset(6, broken=[1])], TRANSFORMS, skip_broken=True)
    sample = data[SamplePosition(5, 1)]
    assert "001.jpg' is broken" in sample["skipped"][0]
    assert not sample["file_name"].endswith("001.jpg")
    assert content(data[SamplePosition(5, 1)]) == content(sample)
    others = {data[SamplePosition(i, 1)]["file_name"] for i in range(20)}
    assert len(others) > 2


def test_pauses_between_attempts_to_read_grow(painted_dataset, monkeypatch):
    pauses = []
    monkeypatch.setattr(mapper.time, "sleep", pauses.append)
    data = TestData(painted_dataset(3, broken=[1]), [], read_retries=3)
    broken = data[1]
    assert isinstance(broken, BrokenSample)
    assert "001.jpg' is broken" in broken
    assert broken.endswith("(the last of 4 attempts)")
    assert pauses == [0.1, 0.2, 0.4]


def test_a_file_that_is_there_at_the_second_attempt_is_the_sample(painted_dataset, monkeypatch):
    dataset = painted_dataset(3)
    path = dataset.folder / "001.jpg"
    whole = path.read_bytes()
    expected = content(TrainingData([dataset], TRANSFORMS)[SamplePosition(4, 1)])
    path.write_bytes(whole[:300])
    monkeypatch.setattr(mapper.time, "sleep", lambda _: path.write_bytes(whole))
    data = TrainingData([dataset], TRANSFORMS, read_retries=1)
    sample = data[SamplePosition(4, 1)]
    assert content(sample) == expected
    assert (sample["retried_reads"], sample["skipped"]) == (1, [])
    assert data[SamplePosition(5, 1)]["retried_reads"] == 0


def test_an_image_is_passed_over_only_where_it_was_lost(painted_dataset):
    data = TrainingData([painted_dataset(6)], [], replacements=np.array([2]))
    data.lost = {7: [1]}
    sample = data[SamplePosition(7, 1)]
    assert sample["file_name"].endswith("002.jpg")
    (message,) = sample["skipped"]
    assert isinstance(message, mapper.LostImage)
    assert "001.jpg" in message
    assert data[SamplePosition(8, 1)]["file_name"].endswith("001.jpg")
    data.lost = {7: [1, 2]}
    assert isinstance(data[SamplePosition(7, 1)], BrokenSample)


def test_when_nothing_can_be_read_skipping_ends(painted_dataset):
    data = TrainingData([painted_dataset(2, broken=[0, 1])], [], skip_broken=True)
    broken = data[SamplePosition(0, 0)]
    assert isinstance(broken, BrokenSample)
    assert broken.startswith(f"{MAX_ATTEMPTS} images in a row could not be read, the last because")


def test_a_test_sample_keeps_the_original_size(painted_dataset):
    data = TestData(painted_dataset(2), [ResizeShortestEdge(min_size=64, max_size=200)])
    assert len(data) == 2
    sample = data[1]
    assert sample["image"].shape == (3, 64, 96)
    assert (sample["height"], sample["width"], sample["image_id"]) == (32, 48, 1)
