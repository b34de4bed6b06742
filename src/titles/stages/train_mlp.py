"""Stage train_mlp: the multilayer perceptron on the prepared titles."""

from titles.models.mlp import TitleMLP
from titles.models.parts import distributed
from titles.params import load_params
from titles.stages import entry_point
from titles.training import run


@entry_point
@distributed.together()
def main() -> None:
    params = load_params()
    architecture = {
        "leading_words": params.mlp.leading_words,
        "hidden_layers": list(params.mlp.hidden_layers),
        "dropout": params.mlp.dropout,
    }
    run.run("mlp", TitleMLP, architecture, params.mlp, params)


if __name__ == "__main__":
    main()
