"""Stage train_mlp: the multilayer perceptron on the prepared titles."""

from titles import distributed, experiment
from titles.models.mlp import TitleMLP
from titles.params import load_params
from titles.stages import entry_point


@entry_point
@distributed.together()
def main() -> None:
    params = load_params()
    architecture = {
        "leading_words": params.mlp.leading_words,
        "hidden_layers": list(params.mlp.hidden_layers),
        "dropout": params.mlp.dropout,
    }
    experiment.run("mlp", TitleMLP, architecture, params.mlp, params)


if __name__ == "__main__":
    main()
