"""Stage train_cnn: the convolutional network on the prepared titles."""

from titles.models.cnn import TitleCNN
from titles.models.parts import distributed
from titles.models.registry import load_params
from titles.stages import entry_point
from titles.training import run


@entry_point
@distributed.together()
def main() -> None:
    run.train("cnn", TitleCNN, load_params())


if __name__ == "__main__":
    main()
