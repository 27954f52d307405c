"""What `sessionpools run` is given, and what it says of what it can not serve."""

from pathlib import Path

import pytest

from sessionpools.client.published import InputError, Published, Sizes, read

SERVICE = """
apiVersion: sessionpools.dev/v1alpha1
kind: WebService
metadata: {name: score}
spec:
  name: Score
  version: v1
  code: {inline: {service.py: "def predict(x): return x"}}
  entrypoint: service:predict
"""
POOL = """
apiVersion: sessionpools.dev/v1alpha1
kind: SessionPool
metadata: {name: score}
spec: {serviceName: Score, serviceVersion: v1, initialPoolSize: 2, maxPoolSize: 5}
"""


def with_bundle(url: str, sha256: str = "0" * 64) -> str:
    code = f"bundle: {{url: '{url}', sha256: '{sha256}'}}"
    return SERVICE.replace('inline: {service.py: "def predict(x): return x"}', code)


def given(folder: Path, text: str, name: str = "score.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def only(found: list[Published]) -> Published:
    assert len(found) == 1
    return found[0]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        read(path, Sizes())
    return str(error.value)


class TestYaml:
    def test_a_service_and_its_pool_are_served_as_they_say(self, tmp_path: Path) -> None:
        found = only(read(given(tmp_path, SERVICE + "---" + POOL), Sizes()))
        assert found.label == "Score v1"
        assert (found.pool.spec.initial_pool_size, found.pool.spec.max_pool_size) == (2, 5)
        assert found.code.files == (("service.py", b"def predict(x): return x"),)

    def test_a_service_without_a_pool_gets_one_of_the_sizes_given(self, tmp_path: Path) -> None:
        found = only(read(given(tmp_path, SERVICE), Sizes(2, 3)))
        assert (found.pool.spec.initial_pool_size, found.pool.spec.max_pool_size) == (2, 3)

    def test_a_folder_is_read_file_by_file(self, tmp_path: Path) -> None:
        given(tmp_path, SERVICE)
        given(tmp_path, POOL, "pool.yml")
        given(tmp_path, "not: [read", "notes.txt")
        assert only(read(tmp_path, Sizes())).pool.spec.max_pool_size == 5

    def test_code_may_be_in_a_config_map_among_the_files(self, tmp_path: Path) -> None:
        config_map = "\n---\nkind: ConfigMap\nmetadata: {name: code}\ndata: {service.py: 'x = 1'}\n"
        text = SERVICE.replace('inline: {service.py: "def predict(x): return x"}', "configMap: {name: code}")
        assert only(read(given(tmp_path, text + config_map), Sizes())).code.files == (("service.py", b"x = 1"),)
        assert "there is no ConfigMap 'code' among the files" in refusal(given(tmp_path, text))

    @pytest.mark.parametrize("url", ["file://build/a%20bundle.tar.gz", "file://./build/a%20bundle.tar.gz", "absolute"])
    @pytest.mark.parametrize("by_folder", [False, True])
    def test_the_file_of_a_bundle_may_be_named_relative_to_the_yaml(
        self, tmp_path: Path, url: str, by_folder: bool
    ) -> None:
        archive = tmp_path / "build" / "a bundle.tar.gz"
        archive.parent.mkdir()
        archive.touch()
        path = given(tmp_path, with_bundle(archive.as_uri() if url == "absolute" else url))
        assert only(read(tmp_path if by_folder else path, Sizes())).bundle_url == archive.as_uri()

    def test_a_bundle_elsewhere_is_fetched_from_there(self, tmp_path: Path) -> None:
        found = only(read(given(tmp_path, with_bundle("https://host/b.tar.gz?key=1")), Sizes()))
        assert found.bundle_url == "https://host/b.tar.gz?key=1"

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a: [", "not YAML"),
            (with_bundle("file://none.tar.gz"), "spec.code.bundle.url: there is no file /"),
            (with_bundle("s3://bucket/b.tar.gz"), "give a URL of https, http, file"),
            (with_bundle("b.tar.gz"), "give a URL of https, http, file"),
            (with_bundle("https://host/b", "F" * 64), "spec.code.bundle.sha256: give the archive's digest"),
            ("a: 1", "holds no WebService"),
            (SERVICE.replace("v1alpha1", "v9"), "WebService 'score': apiVersion is 'sessionpools.dev/v9'"),
            (SERVICE.replace("entrypoint", "entryPoint"), "WebService 'score': spec.entryPoint: Extra inputs"),
            (SERVICE.replace("  entrypoint: service:predict", ""), "give one of entrypoint and script"),
            (SERVICE + "---" + SERVICE, "two WebServices are 'Score' 'v1'"),
            (
                SERVICE + "---" + POOL.replace("Score", "score"),
                "SessionPool 'score': there is no WebService 'score' 'v1'",
            ),
            (
                SERVICE + "---" + POOL.replace("Size: 2", "Size: 9"),
                "spec.initialPoolSize is 9, more than maxPoolSize 5",
            ),
            (
                SERVICE + "---" + POOL.replace("serviceName: Score, serviceVersion: v1,", ""),
                "generic pool needs a cluster",
            ),
            (
                SERVICE.replace('inline: {service.py: "def predict(x): return x"}', "imagePath: /nowhere"),
                "no folder /nowhere",
            ),
        ],
    )
    def test_what_can_not_be_served_is_named_with_object_and_field(self, tmp_path: Path, text: str, words: str) -> None:
        assert words in refusal(given(tmp_path, text))


class TestPython:
    def test_predict_answers_and_load_runs_once_before(self, tmp_path: Path) -> None:
        text = "def load(): ...\ndef helper(): ...\ndef predict(x): ...\n"
        spec = only(read(given(tmp_path, text, "my_score.py"), Sizes())).service.spec
        assert (spec.name, spec.version, spec.entrypoint, spec.init) == (
            "my_score",
            "v1",
            "my_score:predict",
            "my_score:load",
        )
        assert spec.code.image_path == str(tmp_path)

    def test_an_only_public_function_answers_whatever_its_name(self, tmp_path: Path) -> None:
        text = "def _helper(): ...\nasync def classify(x): ...\n"
        assert only(read(given(tmp_path, text, "a.py"), Sizes())).service.spec.entrypoint == "a:classify"

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("a.py", "def f(:", "a.py:1: SyntaxError"),
            ("a.py", "x = 1", "has no public function: name the function that answers calls predict"),
            ("a.py", "def f(): ...\ndef g(): ...", "has f, g: name the function"),
            ("my-score.py", "def predict(): ...", "'my-score' is no module name"),
        ],
    )
    def test_a_file_that_can_not_be_served_says_why(self, tmp_path: Path, name: str, text: str, words: str) -> None:
        assert words in refusal(given(tmp_path, text, name))


@pytest.mark.parametrize(("name", "words"), [("none.py", "no such file"), ("model.bin", "give a .py file")])
def test_other_paths_are_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    assert words in refusal(tmp_path / name)
