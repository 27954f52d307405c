"""The model: a second file, imported as any module is."""

from sklearn.datasets import load_iris
from sklearn.neighbors import KNeighborsClassifier


class Classifier:
    def __init__(self) -> None:
        self.model = KNeighborsClassifier(n_neighbors=5)
        self.names: list[str] = []

    def train(self) -> None:
        iris = load_iris()
        self.names = [str(name) for name in iris.target_names]
        self.model.fit(iris.data, iris.target)

    def __call__(self, measures: list[float]) -> str:
        return self.names[int(self.model.predict([measures])[0])]
