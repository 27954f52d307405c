"""Names the species of an iris: what init loads stays in `species_of`, what a call runs is `classify`."""

from training import Classifier

species_of = Classifier()


def load() -> None:
    species_of.train()


def classify(sepal_length: float, sepal_width: float, petal_length: float, petal_width: float) -> str:
    return species_of([sepal_length, sepal_width, petal_length, petal_width])
