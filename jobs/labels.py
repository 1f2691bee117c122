"""Say how a model reads each word of a list: its phrases, the nearest trained words, collisions, warnings.

python jobs/labels.py --labels words.txt --model model/
"""

from mer_ray.commandline import ALL_DONE, run
from mer_ray.tagging.settings import LabelsSettings


def main(settings: LabelsSettings) -> int:
    """Read the list as the model will and print what a person should know before a run."""
    from mer_ray.learning.model import Model
    from mer_ray.tagging.wordcheck import check_words, describe_words
    from mer_ray.words.lists import read_labels

    words = read_labels(settings.labels)
    model = Model.load(settings.model)
    print(describe_words(check_words(model, words), model.config["label_model"]["name"]), end="")
    return ALL_DONE


if __name__ == "__main__":
    raise SystemExit(run(main, LabelsSettings))
