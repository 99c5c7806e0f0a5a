"""The error for a missing package names the extra that brings it."""

from importlib import metadata

import pytest

import vqlib
from vqlib import cli, extras
from vqlib.training import data

REQUIRES = [  # an extra that includes another may come with its name or with its packages
    "torch>=2.6",
    "scikit-image>=0.25; extra == 'notebooks'",
    'jupyter-client>=8.6; extra == "notebooks"',
    "scikit-image>=0.25; extra == 'train'",
    "scikit-image>=0.25; extra == 'all-of-it'",
    "jupyter-client>=8.6; extra == 'all-of-it'",
    "vqlib[notebooks]; extra == 'all-of-it'",
]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """As if vqlib were installed with these requirements."""
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    extras._extras.cache_clear()
    yield
    extras._extras.cache_clear()


def test_a_module_is_known_by_its_distribution():
    for name in ("skimage", "skimage.data", "scikit-image"):
        assert str(extras.not_installed(name)) == (
            "scikit-image is not installed; pip install 'vqlib[train]'"
        )


@pytest.mark.parametrize("module", ["jupyter_client", "jupyter_client.kernelspec"])
def test_the_error_of_an_import_is_replaced(module):
    error = ModuleNotFoundError(f"No module named {module!r}", name=module)
    with pytest.raises(ModuleNotFoundError) as caught, extras.named(), extras.named():
        raise error
    assert str(caught.value) == "jupyter_client is not installed; pip install 'vqlib[notebooks]'"
    assert caught.value.name == "jupyter_client" and caught.value.__suppress_context__


def test_a_room_says_what_all_of_it_needs():
    error = ModuleNotFoundError("No module named 'skimage'", name="skimage")
    with pytest.raises(ModuleNotFoundError) as caught, extras.named("notebooks"):
        raise error
    assert str(caught.value) == "scikit-image is not installed; pip install 'vqlib[notebooks]'"


@pytest.mark.parametrize("name", ["mine", "torch", None])
def test_any_other_error_is_left_as_it_is(name):
    error = ModuleNotFoundError("as it was", name=name)
    with pytest.raises(ModuleNotFoundError) as caught, extras.named():
        raise error
    assert caught.value is error


def test_without_metadata_the_errors_are_pythons_own(monkeypatch):
    def none(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", none)
    error = ModuleNotFoundError("as it was", name="skimage")
    with pytest.raises(ModuleNotFoundError) as caught, extras.named():
        raise error
    assert caught.value is error
    assert str(extras.not_installed("skimage")) == "scikit-image is not installed"


def test_a_picture_whose_package_is_missing(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    data._built_in.cache_clear()  # other tests have loaded the pictures already
    with pytest.raises(ModuleNotFoundError, match="scikit-image is not installed"):
        vqlib.train(vqlib.TrainConfig(steps=1))
    assert cli.main(["train", "--steps", "1", "--no-progress"]) == 2
    assert capsys.readouterr().err == (
        "error: scikit-image is not installed; pip install 'vqlib[train]'\n"
    )
