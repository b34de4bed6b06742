"""Stage train_cnn: the convolutional network on the prepared titles."""

from titles.models.cnn import TitleCNN
from titles.models.parts import distributed
from titles.params import load_params
from titles.stages import entry_point
from titles.training import run


@entry_point
@distributed.together()
def main() -> None:
    params = load_params()
    architecture = {
        "filter_lengths": list(params.cnn.filter_lengths),
        "filter_count": params.cnn.filter_count,
        "fc_size": params.cnn.fc_size,
        "dropout": params.cnn.dropout,
    }
    run.run("cnn", TitleCNN, architecture, params.cnn, params)


if __name__ == "__main__":
    main()
