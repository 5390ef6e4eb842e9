import itertools
import math
import time
from collections import Counter

import numpy as np
import pytest

from detlite import SAMPLER_REGISTRY, ConfigError
from detlite.data.samplers import (
    RepeatedAugmentSampler,
    RepeatFactorSampler,
    SequentialSampler,
    ShuffleSampler,
    TestBatchSampler,
    TrainingBatchSampler,
    TrainingSampler,
)


def shuffle(num_images, seed=0):
    return ShuffleSampler(
        images=np.arange(num_images), image_classes=[np.zeros(1, int)] * num_images, seed=seed
    )


def take(sampler, num_batches):
    return list(itertools.islice(iter(sampler), num_batches))


@pytest.mark.parametrize("sampler_class", [ShuffleSampler, SequentialSampler])
def test_each_image_comes_once_an_epoch(sampler_class):
    images = np.array([3, 1, 7, 5])
    sampler = sampler_class(images=images, image_classes=[np.zeros(1, int)] * 4, seed=2)
    for epoch in range(3):
        assert sorted(sampler.epoch(epoch).tolist()) == [1, 3, 5, 7]


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {
        (seed, epoch): shuffle(50, seed).epoch(epoch).tolist()
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    sampler = shuffle(50, seed=1)
    assert sampler.epoch(1).tolist() == sampler.epoch(1).tolist() == orders[1, 1]
    assert len({tuple(order) for order in orders.values()}) == 4


def test_the_order_does_not_touch_global_random_numbers():
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    take(TrainingBatchSampler(shuffle(10), batch_size=3), 9)
    assert np.random.rand() == expected


def test_the_sequential_order_is_that_of_the_data():
    sampler = SequentialSampler(images=np.array([4, 2]), image_classes=[], seed=0)
    assert sampler.epoch(5).tolist() == [4, 2]


def test_the_stream_is_the_epochs_one_after_the_other():
    sampler = shuffle(5)
    batches = take(TrainingBatchSampler(sampler, batch_size=4), 5)
    samples = list(itertools.chain(*batches))
    assert [sample.position for sample in samples] == list(range(20))
    epochs = np.concatenate([sampler.epoch(epoch) for epoch in range(4)])
    assert [sample.image for sample in samples] == epochs.tolist()


def groups_of(num_images):
    return (np.arange(num_images) % 3 == 0).astype(np.int64)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("start", [1, 2, 63, 64, 65, 130, 200])
def test_a_resumed_run_gets_the_batches_of_one_that_was_never_stopped(grouped, start):
    groups = groups_of(37) if grouped else None
    whole = take(TrainingBatchSampler(shuffle(37), batch_size=4, groups=groups), 210)
    rest = TrainingBatchSampler(shuffle(37), batch_size=4, groups=groups, start=start)
    assert take(rest, 210 - start) == whole[start:]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("world_size", [2, 3, 5, 8])
def test_the_ranks_share_the_global_batch(grouped, world_size):
    groups = groups_of(20) if grouped else None
    options = {"batch_size": 8, "groups": groups, "start": 3}
    whole = take(TrainingBatchSampler(shuffle(20), **options), 80)
    ranks = [
        take(TrainingBatchSampler(shuffle(20), **options, rank=r, world_size=world_size), 80)
        for r in range(world_size)
    ]
    for batch, *shares in zip(whole, *ranks, strict=True):
        lengths = [len(share) for share in shares]
        assert sum(lengths) == 8
        assert max(lengths) - min(lengths) <= 1
        assert [batch[r::world_size] for r in range(world_size)] == shares


def test_a_batch_of_eight_on_three_ranks_is_three_three_and_two():
    shares = [
        take(TrainingBatchSampler(shuffle(20), batch_size=8, rank=r, world_size=3), 1)[0]
        for r in range(3)
    ]
    assert [len(share) for share in shares] == [3, 3, 2]


def test_ranks_accumulation_and_restarts_leave_the_global_sequence_as_it_is():
    groups = groups_of(37)
    whole = take(TrainingBatchSampler(shuffle(37), batch_size=6, groups=groups), 90)
    iteration, sequence = 0, []
    for stop, world_size, accumulate in [(7, 1, 1), (40, 2, 3), (70, 4, 1), (90, 5, 1)]:
        options = {"batch_size": 6, "groups": groups, "start": iteration}
        options |= {"world_size": world_size, "accumulate": accumulate}
        ranks = [
            take(TrainingBatchSampler(shuffle(37), **options, rank=r), stop - iteration)
            for r in range(world_size)
        ]
        for shares in zip(*ranks, strict=True):
            batch = [None] * 6
            for r, share in enumerate(shares):
                batch[r::world_size] = share
            sequence.append(batch)
        iteration = stop
    assert sequence == whole


@pytest.mark.parametrize(
    ("batch_size", "world_size", "accumulate"), [(2, 3, 1), (5, 3, 2), (1, 1, 2)]
)
def test_a_part_without_an_image_is_refused(batch_size, world_size, accumulate):
    options = {"world_size": world_size, "accumulate": accumulate}
    with pytest.raises(ConfigError) as error:
        TrainingBatchSampler(shuffle(9), batch_size=batch_size, **options)
    assert str(error.value).startswith(
        f"data.batch_size is {batch_size}, but {world_size} processes with train.accumulate "
        f"{accumulate} need at least {world_size * accumulate} images a step"
    )
    TrainingBatchSampler(shuffle(9), batch_size=world_size * accumulate, **options)


@pytest.mark.parametrize("grouped", [False, True])
def test_a_run_goes_on_at_its_millionth_iteration_at_once(grouped):
    sampler = shuffle(12)
    groups = groups_of(12) if grouped else None
    start = time.perf_counter()
    batches = take(TrainingBatchSampler(sampler, batch_size=2, groups=groups, start=1_000_000), 1)
    assert time.perf_counter() - start < 1
    if not grouped:
        # Position 2,000,000 is 8 images into epoch 166,666.
        epoch = sampler.epoch(166_666).tolist()
        assert batches == [[(2_000_000, epoch[8]), (2_000_001, epoch[9])]]


@pytest.mark.parametrize("name", ["ShuffleSampler", "SequentialSampler", "RepeatFactorSampler"])
def test_the_size_of_an_epoch_is_that_of_the_epoch(name):
    classes = [np.array([0]), np.array([0, 1]), np.array([0]), np.array([], np.int64)]
    threshold = {"threshold": 0.7} if name == "RepeatFactorSampler" else {}
    sampler = SAMPLER_REGISTRY.build(
        {"name": name, **threshold}, images=np.arange(4), image_classes=classes, seed=1
    )
    sizes = [sampler.epoch_size(epoch) for epoch in range(50)]
    assert sizes == [len(sampler.epoch(epoch)) for epoch in range(50)]
    assert (len(set(sizes)) > 1) is bool(threshold)


class Growing(TrainingSampler):
    """A project's sampler: epochs of 1, 2, 3, ... images, and perhaps a wrong size."""

    wrong = 0

    def epoch(self, epoch):
        return np.arange(epoch + 1)

    def epoch_size(self, epoch):
        return super().epoch_size(epoch) + self.wrong


def test_a_sampler_of_a_project_need_not_say_the_size_of_its_epochs():
    sampler = Growing(images=np.arange(3), image_classes=[], seed=0)
    batches = take(TrainingBatchSampler(sampler, batch_size=2, start=2), 3)
    assert batches == [[(4, 1), (5, 2)], [(6, 0), (7, 1)], [(8, 2), (9, 3)]]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [(1, r"Growing.epoch_size\(0\) is 2, but epoch 0 has 1 images"), (-1, "epoch 0 has no image")],
)
def test_a_sampler_that_a_run_could_not_go_on_with_is_refused(wrong, told):
    sampler = Growing(images=np.arange(3), image_classes=[], seed=0)
    sampler.wrong = wrong
    with pytest.raises(ValueError, match=told):
        take(TrainingBatchSampler(sampler, batch_size=1), 1)


def test_batches_hold_one_group_apart_from_one_in_a_window():
    groups = groups_of(101)
    sampler = TrainingBatchSampler(shuffle(101), batch_size=8, groups=groups)
    batches = take(sampler, 5 * sampler.WINDOW)
    for begin in range(0, len(batches), sampler.WINDOW):
        window = batches[begin : begin + sampler.WINDOW]
        mixed = [b for b in window if len({int(groups[sample.image]) for sample in b}) > 1]
        assert len(mixed) <= 1
        assert {len(batch) for batch in window} == {8}


def test_grouping_loses_and_doubles_no_image():
    options = {"batch_size": 8, "groups": groups_of(101)}
    window = TrainingBatchSampler.WINDOW
    batches = take(TrainingBatchSampler(shuffle(101), **options), 3 * window)
    samples = sorted(itertools.chain(*batches))
    plain = take(TrainingBatchSampler(shuffle(101), batch_size=8), 3 * window)
    assert samples == sorted(itertools.chain(*plain))


def test_grouping_mixes_the_groups_over_time():
    groups = groups_of(300)
    batches = take(TrainingBatchSampler(shuffle(300), batch_size=2, groups=groups), 64)
    firsts = [int(groups[batch[0].image]) for batch in batches]
    changes = sum(a != b for a, b in itertools.pairwise(firsts))
    assert changes > 10


def test_a_batch_may_be_larger_than_an_epoch():
    (batch,) = take(TrainingBatchSampler(shuffle(3), batch_size=8), 1)
    assert sorted(Counter(sample.image for sample in batch).values()) == [2, 3, 3]


def repeat_factors(image_classes, threshold):
    sampler = RepeatFactorSampler(
        images=np.arange(len(image_classes)) * 10,
        image_classes=[np.array(classes, np.int64) for classes in image_classes],
        seed=3,
        threshold=threshold,
    )
    return sampler, sampler.factors.tolist()


def test_repeat_factors_as_worked_by_hand():
    # Class 0 is on 4 of 4 images, class 1 on 1 of 4, class 2 on none.
    # With threshold 1: sqrt(1 / 1) = 1 and sqrt(1 / (1 / 4)) = 2; the rarest class decides.
    _, factors = repeat_factors([[0], [0, 0, 1], [0], [0, 0]], 1.0)
    assert factors == [1, 2, 1, 1]
    # With threshold 0.5: sqrt(0.5 / 0.25) = 1.4142, and never less than 1.
    _, factors = repeat_factors([[0], [0, 1], [0], [0]], 0.5)
    assert factors == pytest.approx([1, 2**0.5, 1, 1])


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_images_without_a_box_come_once(threshold):
    sampler, factors = repeat_factors([[], [], []], threshold)
    assert factors == [1, 1, 1]
    assert sorted(sampler.epoch(0).tolist()) == [0, 10, 20]


def test_a_threshold_of_zero_repeats_nothing_even_with_classes_that_no_image_shows():
    assert repeat_factors([[0], [3], [0, 3]], 0.0)[1] == [1, 1, 1]


def test_repeated_images_come_as_often_as_their_factors_say():
    sampler, factors = repeat_factors([[0], [0, 1], [0], [0]], 0.5)
    counts = Counter(itertools.chain(*(sampler.epoch(e).tolist() for e in range(4000))))
    assert counts[0] == counts[20] == counts[30] == 4000
    assert counts[10] / 4000 == pytest.approx(factors[1], abs=0.03)
    assert sampler.epoch(7).tolist() == sampler.epoch(7).tolist()


@pytest.mark.parametrize("num_images", [0, 1, 5, 6, 7, 100])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_each_test_image_comes_once_over_all_ranks(num_images, world_size):
    samplers = [
        TestBatchSampler(num_images, batch_size=3, rank=r, world_size=world_size)
        for r in range(world_size)
    ]
    shares = [list(itertools.chain(*sampler)) for sampler in samplers]
    assert list(itertools.chain(*shares)) == list(range(num_images))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_test_batches_begin_where_they_are_told_to():
    sampler = TestBatchSampler(5, batch_size=2)
    assert list(sampler) == [[0, 1], [2, 3], [4]]
    sampler.start = 2
    assert list(sampler) == [[4]]
    assert len(sampler) == 3
    sampler.start = 3
    assert list(sampler) == []


def test_samplers_are_built_from_blocks():
    data = {"images": np.arange(2), "image_classes": [np.zeros(1, int)] * 2, "seed": 1}
    sampler = SAMPLER_REGISTRY.build({"name": "RepeatFactorSampler", "threshold": 0.5}, **data)
    assert sampler.factors.tolist() == [1, 1]
    assert list(SAMPLER_REGISTRY) == [
        "RepeatFactorSampler",
        "RepeatedAugmentSampler",
        "SequentialSampler",
        "ShuffleSampler",
    ]


def ra_sampler(order, num_replicas, rank, repetitions):
    """What RASampler of torchvision's references/classification/sampler.py does with an order."""
    num_samples = math.ceil(len(order) * float(repetitions) / num_replicas)
    num_selected = math.floor(len(order) // 256 * 256 / num_replicas)
    indices = [image for image in order for _ in range(repetitions)]
    indices += indices[: num_samples * num_replicas - len(indices)]
    return indices[rank : num_samples * num_replicas : num_replicas][:num_selected]


@pytest.mark.parametrize("num_images", [256, 700, 1300])
@pytest.mark.parametrize("world_size", [1, 2, 8])
@pytest.mark.parametrize("repeats", [1, 3, 4])
def test_repeated_images_come_to_each_rank_as_by_torchvisions_sampler(
    num_images, world_size, repeats
):
    sampler = RepeatedAugmentSampler(
        images=np.arange(num_images), image_classes=[], seed=3, repeats=repeats
    )
    order = sampler.generator(0).permutation(num_images).tolist()
    size = num_images // 256 * 256
    for rank in range(world_size):
        batches = TrainingBatchSampler(sampler, batch_size=32, rank=rank, world_size=world_size)
        found = [sample.image for batch in take(batches, size // 32) for sample in batch]
        assert found == ra_sampler(order, world_size, rank, repeats)
    assert sampler.epoch_size(0) == size
    assert sampler.epoch(1).tolist() != sampler.epoch(0).tolist()


def test_fewer_images_than_torchvisions_256_are_repeated_all_the_same():
    sampler = RepeatedAugmentSampler(images=np.array([4, 7, 9]), image_classes=[], seed=0)
    images = sampler.epoch(0).tolist()
    assert len(images) == sampler.epoch_size(0) == 3
    assert len({*images}) == 1
