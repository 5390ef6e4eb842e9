import pytest
import torch

from detlite.modeling import BatchNormalizer, MovingAverageNormalizer, PerImageNormalizer


def test_the_batch_normalizer_divides_by_all_positives():
    assert BatchNormalizer()(torch.tensor([3, 0, 5])).tolist() == [1 / 8] * 3
    assert BatchNormalizer()(torch.tensor([0, 0])).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("num_positives", "batch", "image"),
    [([3, 0, 5], 8, 9), ([0, 0], 1, 2), ([4, 1], 5, 5), ([0], 1, 1)],
)
def test_an_image_without_positives_can_count_as_one(num_positives, batch, image):
    for at_least_one_per, expected in (("batch", batch), ("image", image)):
        normalizer = BatchNormalizer(at_least_one_per=at_least_one_per)
        weights = normalizer(torch.tensor(num_positives))
        assert weights.tolist() == pytest.approx([1 / expected] * len(num_positives))


def test_the_image_normalizer_divides_by_each_images_positives_and_the_images():
    weights = PerImageNormalizer()(torch.tensor([4, 0, 1]))
    assert weights.tolist() == pytest.approx([1 / 12, 1 / 3, 1 / 3])


def test_the_moving_average_goes_a_tenth_of_the_way_each_step():
    normalizer = MovingAverageNormalizer()
    average = 100.0
    for positives in ([20, 30], [0, 0], [7, 500]):
        weights = normalizer(torch.tensor(positives))
        average = 0.9 * average + 0.1 * max(sum(positives), 1)
        assert weights.tolist() == pytest.approx([1 / average] * 2)
    assert normalizer.average.item() == pytest.approx(average)


def test_momentum_and_initial_are_taken():
    normalizer = MovingAverageNormalizer(momentum=0.5, initial=10)
    assert normalizer(torch.tensor([30])).item() == pytest.approx(1 / 20)


def test_evaluation_leaves_the_moving_average():
    normalizer = MovingAverageNormalizer().eval()
    assert normalizer(torch.tensor([1, 2])).tolist() == pytest.approx([0.01] * 2)
    assert normalizer.average.item() == 100


def test_the_moving_average_is_saved_and_not_trained():
    normalizer = MovingAverageNormalizer()
    normalizer(torch.tensor([50]))
    resumed = MovingAverageNormalizer()
    resumed.load_state_dict(normalizer.state_dict())
    assert list(normalizer.state_dict()) == ["average"]
    assert resumed.average.item() == pytest.approx(95)
    assert not list(normalizer.parameters())


def test_weights_given_before_do_not_move_with_the_average():
    normalizer = MovingAverageNormalizer()
    first = normalizer(torch.tensor([0]))
    before = first.clone()
    normalizer(torch.tensor([1000]))
    assert torch.equal(first, before)
