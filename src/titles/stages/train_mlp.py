"""Stage train_mlp: the multilayer perceptron on the prepared titles."""

from titles.models.mlp import TitleMLP
from titles.models.parts import distributed
from titles.models.registry import load_params
from titles.stages import entry_point
from titles.training import run


@entry_point
@distributed.together()
def main() -> None:
    run.train("mlp", TitleMLP, load_params())


if __name__ == "__main__":
    main()
