import pytest

from detlite import ConfigError


def mistakes(checked, text):
    with pytest.raises(ConfigError) as error:
        checked(text)
    title, *lines = str(error.value).splitlines()
    assert title.startswith("x.yaml: ")
    return lines


def test_a_config_is_completed_with_every_default(checked):
    config = checked("data: {batch_size: 3}\n")
    assert config.data.batch_size == 3
    assert config.data.num_workers == 2
    assert config.train.ema.decay == 0
    assert config.solver.optimizer == {
        **config.solver.optimizer,
        "name": "SGD",
        "lr": 0.01,
        "momentum": 0.9,
        "nesterov": False,
    }
    assert config.model.backbone.depth == 18
    assert config.model.backbone.out_features == ("res3", "res4", "res5")
    assert config.model.head.prior_prob == 0.01


def test_blocks_keep_shared_keys(checked):
    config = checked("train: {hooks: [{name: ProgressBar, enabled: false}]}\n")
    assert config.train.hooks[0].enabled is False
    assert config.model.weights == ""


def test_keys_of_foreign_components_are_checked(checked):
    config = checked("data: {train_transforms: [{name: ColorJitter, brightness: 0.2}]}\n")
    assert config.data.train_transforms[0].brightness == 0.2
    (line,) = mistakes(checked, "data: {train_transforms: [{name: ColorJitter, bright: 1}]}\n")
    assert "transform 'ColorJitter' has no 'bright'; did you mean 'brightness'? It has" in line


def test_blocks_within_blocks_are_checked(checked):
    (line,) = mistakes(
        checked,
        """
        data:
          train_transforms:
            - name: RandomApply
              transforms:
                - {name: ResizeShortestEdge}
                - {name: ResizeShortestEdge, max_size: big}
        """,
    )
    assert line.startswith("  - x.yaml:7: transform 'ResizeShortestEdge' key 'max_size' must be")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "solvr: {max_iter: 1}",
            "x.yaml:1: the config has no 'solvr'; did you mean 'solver'? It has data,",
        ),
        (
            "solver: {foo: 1}",
            "x.yaml:1: section 'solver' has no 'foo'; it has clip_gradients, freeze, layer_decay",
        ),
        (
            "solver: {max_iter: 0}",
            "x.yaml:1: section 'solver' key 'max_iter' must be an integer >= 1, got 0 (int)",
        ),
        (
            "solver: {max_iter: 1e4}",
            "section 'solver' key 'max_iter' must be an integer >= 1, got 10000.0 (float)",
        ),
        ("seed: true", "x.yaml:1: the config key 'seed' must be an integer >= 0, got True (bool)"),
        (
            "train: {precision: fp8}",
            "'precision' must be one of auto, fp32, bf16, fp16, got 'fp8' (str)",
        ),
        ("solver: 3", "x.yaml:1: section 'solver' must be a mapping `key: value`, got 3"),
        ("train:", "x.yaml:1: section 'train' must be a mapping `key: value`, got None"),
        (
            "solver: {clip_gradients: 10}",
            "x.yaml:1: section 'solver.clip_gradients' must be a mapping `key: value`, got 10",
        ),
        (
            "solver: {parameter_groups: [{match: a*, lr_facter: 2}]}",
            "x.yaml:1: section 'solver.parameter_groups.0' has no 'lr_facter'; did you mean 'lr_fa",
        ),
        (
            "solver: {parameter_groups: [{match: a*}, {lr_factor: -1, match: b}]}",
            "section 'solver.parameter_groups.1' key 'lr_factor' must be a number >= 0, got -1",
        ),
        ("solver: {parameter_groups: [head]}", "'solver.parameter_groups.0' must be a mapping"),
        (
            "solver: {optimizer: SGD}",
            "x.yaml:1: solver.optimizer must be a block that names the optimizer, e.g. {name: SGD}",
        ),
        (
            "solver: {optimizer: {lr: 0.1}}",
            "solver.optimizer must be a block that names the optimizer",
        ),
        (
            "data: {train: {name: Shapes, num_images: 3}}",
            "x.yaml:1: section 'data' key 'train' must be a list of blocks, got {'name': 'Shapes'",
        ),
        ("data: {train: [Shapes]}", "data.train.0 must be a block that names the dataset"),
        (
            "data: {train: [{name: Shapes, num_images: 3, image_size: [3]}]}",
            "dataset 'Shapes' key 'image_size' must be a list of 2: an integer >= 1 and <= 100000",
        ),
        (
            "data: {train_transforms: [{name: ResizeShortestEdge, min_size: [640, x]}]}",
            "'min_size' must be an integer >= 1 and <= 100000 or a list (each entry an integer",
        ),
        ("data: {train: [{name: Shapes}]}", "dataset 'Shapes' needs 'num_images': an integer >= 1"),
        (
            "solver: {optimizer: {name: SGD, lr: high}}",
            "optimizer 'SGD' key 'lr' must be a number, got 'high' (str)",
        ),
        (
            "solver: {optimizer: {name: AdamW, betas: [0.9, x]}}",
            "'betas' must be a list of 2: a number, a number, got [0.9, 'x'] (list); see entry [1]",
        ),
        (
            "solver: {optimizer: {name: AdamW, params: []}}",
            "optimizer 'AdamW' gets 'params' computed, from the model; remove it (value: [])",
        ),
        (
            "name: my_experiment",
            "x.yaml:1: the config has no 'name'",
        ),
    ],
)
def test_a_mistake_tells_place_key_value_and_what_would_be_right(checked, text, message):
    (line,) = mistakes(checked, text + "\n")
    assert message in line


def test_a_missing_model_is_told_as_a_block(checked):
    lines = mistakes(checked, "# no model: here\nseed: 1\n")
    assert lines == ["  - the config needs 'model': a block that names the meta-arch"]


def test_a_component_of_another_kind_is_refused(checked):
    (line,) = mistakes(
        checked,
        """
        model:
          name: RetinaNet
          backbone: {name: ResNet, depth: 18}
          neck: {name: FPN}
          anchor_generator: {name: GridAnchorGenerator}
          head: {name: RetinaNetHead}
          box_loss: {name: SigmoidFocalLoss}
        """,
    )
    assert line == ("  - x.yaml:8: loss 'SigmoidFocalLoss' is no BoxLoss, as model.box_loss needs")


def test_all_mistakes_are_told_at_once_each_with_its_line(checked):
    lines = mistakes(
        checked,
        """\
        model:
          name: RetinaNet
          backbone: {name: Resnet, depth: 18}
          neck: {name: FPN, out_chanels: 64}
          anchor_generator: {name: GridAnchorGenerator}
          head: {name: RetinaNetHead, num_classes: 80}
        solver:
          max_iter: many
        sede: 3
        """,
    )
    heads = [line for line in lines if line.startswith("  - ")]
    assert len(heads) == 5
    assert heads[0].startswith("  - x.yaml:3: no backbone named 'Resnet'; did you mean 'ResNet'?")
    assert heads[1].startswith("  - x.yaml:4: neck 'FPN' has no 'out_chanels'; did you mean 'out_")
    assert heads[2].startswith("  - x.yaml:6: head 'RetinaNetHead' gets 'num_classes' computed,")
    assert heads[3].startswith("  - x.yaml:8: section 'solver' key 'max_iter' must be an integer")
    assert heads[4].startswith("  - x.yaml:9: the config has no 'sede'; did you mean 'seed'?")


def test_the_title_counts_the_mistakes(checked):
    with pytest.raises(ConfigError, match=r"^x\.yaml: a mistake in the config\n"):
        checked("seed: x\n")
    with pytest.raises(ConfigError, match=r"^x\.yaml: 2 mistakes in the config\n"):
        checked("seed: x\nsede: 1\n")


@pytest.mark.parametrize(
    "text",
    [
        "solver: {clip_gradients: {norm: 10}}",  # an integer where a number is wanted
        "solver: {weight_decay_norm: null}",
        "data: {train: [{name: Shapes, num_images: 3, image_size: [64, 48]}]}",
        "data: {train_transforms: [{name: ResizeShortestEdge, min_size: 640}]}",
        "data: {train_transforms: [{name: ResizeShortestEdge, min_size: [640, 672]}]}",
        "data: {train_transforms: [{name: RandomZoomOut, fill: [1, 2, 3], side_range: [1, 2]}]}",
        "data: {train_transforms: [{name: Resize, size: 64, interpolation: 2}]}",
        "solver: {optimizer: {name: AdamW, betas: [0.9, 0.99], fused: true}}",
        "solver: {schedule: {name: StepLR, step_size: 10}}",
        "imports: []",
    ],
)
def test_values_of_every_kind_are_taken(checked, text):
    checked(text + "\n")
