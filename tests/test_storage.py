import os
import socket
import stat
import subprocess
import sys
import tracemalloc
import zipfile
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vilogit
from vilogit import ConvergenceWarning, fit, load, simulate

X, Y, _ = simulate(np.random.default_rng(1), n=30)
X_FLAT = np.column_stack([X, X[:, 0]])  # one direction has no data


def noisy():
    with pytest.warns(ConvergenceWarning):
        return vilogit.fit_sgd(X, Y, rng=np.random.default_rng(0), steps=2, learning_rate=9.0)


KINDS = {
    "mean-field": lambda: fit(X, Y),
    "aligned": lambda: fit(X_FLAT, Y, family="aligned"),
    "full-rank": lambda: fit(X_FLAT, Y, family="full-rank"),
    "noisy": noisy,
}


@pytest.fixture(scope="module", params=KINDS)
def posterior(request):
    return KINDS[request.param]()


def assert_same(a, b):
    assert type(a) is type(b)
    np.testing.assert_array_equal(a.trace, b.trace)
    for name in ("mean", "scale", "elbo", "gap"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    inputs = np.ones((2, len(a.mean)))
    np.testing.assert_array_equal(a.predict_proba(inputs), b.predict_proba(inputs))


def test_what_was_saved_is_loaded(posterior, tmp_path):
    path = tmp_path / "posterior of mine"
    posterior.save(str(path))
    back = load(path)
    assert_same(posterior, back)
    assert isinstance(back.trace[0], vilogit.posterior.Record)
    np.testing.assert_array_equal(
        back.sample(2, np.random.default_rng(0)), posterior.sample(2, np.random.default_rng(0))
    )
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_saved_file_has_the_usual_permissions(posterior, tmp_path):
    (tmp_path / "plain").write_text("")
    posterior.save(tmp_path / "saved")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "saved")]
    assert modes[0] == modes[1]


def test_a_save_that_fails_leaves_the_old_file_alone(posterior, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    posterior.save(path)

    def full(file, **arrays):
        file.write(b"PK half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="no space left"):
        posterior.save(path)
    assert_same(load(path), posterior)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


posix = pytest.mark.skipif(os.name != "posix", reason="modes, links and pipes of POSIX")


@posix
@pytest.mark.parametrize("kept", [0o600, 0o640, 0o666, 0o755])
def test_a_replaced_file_keeps_its_mode(posterior, tmp_path, kept):
    path = tmp_path / "a.npz"
    path.write_text("old")
    path.chmod(kept)
    posterior.save(path)
    assert mode(path) == kept
    assert_same(load(path), posterior)


@posix
def test_a_draft_is_never_readable_by_more_than_the_file(posterior, tmp_path, monkeypatch):
    path, seen = tmp_path / "a.npz", []
    path.write_text("old")
    path.chmod(0o600)
    monkeypatch.setattr(np, "savez", lambda file, **_: seen.append(mode(Path(file.name))))
    posterior.save(path)
    assert seen == [0o600]


@posix
def test_links_are_followed(posterior, tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "a.npz", tmp_path / "link"
    (tmp_path / "between").symlink_to("far/a.npz")
    link.symlink_to("between")
    for _ in range(2):  # to nothing yet, then to a file
        posterior.save(link)
        assert link.is_symlink() and target.is_file() and not target.is_symlink()
        assert_same(load(link), posterior)
    assert [p.name for p in (tmp_path / "far").iterdir()] == ["a.npz"]


@posix
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "link to a pipe"])
def test_what_is_no_regular_file_is_refused_and_left_alone(posterior, tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path = Path(kind)
    if kind == "socket":
        socket.socket(socket.AF_UNIX).bind(kind)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo("pipe")
        if kind != "pipe":
            path.symlink_to("pipe")
    before, names = path.lstat(), sorted(os.listdir(tmp_path))
    for use in (posterior.save, load):
        with pytest.raises(OSError, match=f"Not a regular file: '{path}'$"):
            use(str(path))
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert sorted(os.listdir(tmp_path)) == names


def test_errors_name_the_path_that_was_given(posterior, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("", ".", "no folder/a.npz", "x" * 300, Path("no folder", "a.npz")):
        for use in (posterior.save, load):
            with pytest.raises(OSError, match=f": '{path}'$"):
                use(path)
    with pytest.raises(FileNotFoundError):
        posterior.save("no folder/a.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_name_may_be_as_long_as_the_system_takes(posterior, tmp_path):
    path = tmp_path / ("x" * 255)
    posterior.save(path)
    assert_same(load(path), posterior)


def test_open_files_are_written_and_read_where_they_stand(posterior, tmp_path):
    memory = BytesIO()
    posterior.save(memory)
    memory.seek(0)
    assert_same(load(memory), posterior)
    with open(tmp_path / "open", "w+b") as file:
        file.write(b"before")
        posterior.save(file)
        file.seek(len(b"before"))
        assert_same(load(file), posterior)


def test_what_is_neither_path_nor_binary_file_is_named(posterior, tmp_path):
    for wrong in (3, None, b"a.npz"):
        for use in (posterior.save, load):
            with pytest.raises(TypeError, match=rf"^path must be .*, not {wrong}$"):
                use(wrong)
    with pytest.raises(TypeError, match="yields str; expected a file opened as binary"):
        load(StringIO("x"))
    with pytest.raises(ValueError, match=r"BytesIO.* is not a posterior that vilogit can read"):
        load(BytesIO(b"x"))


KILLER = """
import os, random, signal, sys, time
import numpy as np
from vilogit import MeanField, Posterior, load
path, random = sys.argv[1], random.Random(0)
both = [Posterior(MeanField(np.full((300, 40), v), np.zeros((300, 40))), v) for v in (1.0, 2.0)]
both[0].save(path)
for _ in range(100):
    ready, tell = os.pipe()
    pid = os.fork()
    if not pid:
        while True:
            for posterior in both:
                posterior.save(path)
            os.write(tell, b".")
    os.read(ready, 1)  # the child is saving
    time.sleep(random.uniform(0, 0.01))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ready), os.close(tell)
    found = load(path)
    assert (found.mean == found.elbo).all()
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_process_killed_while_saving_leaves_the_old_file_or_the_new(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path / "a.npz")], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def saved(posterior, tmp_path, name="a.npz"):
    path = tmp_path / name
    posterior.save(path)
    return path


def test_a_file_cut_anywhere_is_refused(posterior, tmp_path):
    path = saved(posterior, tmp_path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.npz is not a posterior that vilogit can read"):
            load(path)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.integers(0, 10**9), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing(where, change):
    content = bytearray(WHOLE)
    content[where % len(content)] ^= change
    PATH.write_bytes(content)
    try:
        back = load(PATH)
    except ValueError as error:
        assert str(PATH) in str(error)
    else:
        assert_same(back, ORIGINAL)  # the dates of the archive's parts, for one


@pytest.fixture(scope="module", autouse=True)
def original(tmp_path_factory):
    global ORIGINAL, PATH, WHOLE
    ORIGINAL = fit(X_FLAT, Y, family="aligned")
    PATH = saved(ORIGINAL, tmp_path_factory.mktemp("changed"))
    WHOLE = PATH.read_bytes()


def without(name):
    return lambda arrays: {k: v for k, v in arrays.items() if k != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("vilogit"), "it was not saved by vilogit"),
        (lambda a: a | {"vilogit": 2}, "its format is 2, this vilogit knows 1; try a newer one"),
        (lambda a: a | {"vilogit": [1, 2]}, "."),
        (without("rho"), r"it holds \['axes', .*, which is no family's"),
        (without("family"), "it holds"),
        (lambda a: a | {"family": "full"}, "it holds"),
        (lambda a: a | {"family": "mean-field"}, "it holds"),
        (without("axes"), "it holds"),
        (lambda a: a | {"more": 1}, "it holds"),
        (lambda a: a | {"mean": np.array(["x"])}, "mean must hold real numbers"),
        (lambda a: a | {"mean": a["mean"][0]}, r"mean has shape \(3,\)"),
        (lambda a: a | {"mean": a["mean"] * np.nan}, "mean must be finite"),
        (lambda a: a | {"mean": a["mean"][:1]}, "rho has shape"),
        (lambda a: a | {"rho": a["rho"] + np.inf}, "rho must be finite"),
        (lambda a: a | {"elbo": [1.0]}, "elbo has shape"),
        (lambda a: a | {"trace": [1.0]}, "trace has shape"),
        (lambda a: a | {"axes": a["axes"][:, :1]}, "axes has shape"),
        (lambda a: a | {"prior_precision": a["prior_precision"] * 0}, "prior_precision must be po"),
        (lambda a: a | {"prior_precision": [[1.0]]}, "prior_precision has shape"),
        (lambda a: a | {"mean": np.array([None])}, "allow_pickle=False"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(change, message):
    PATH.write_bytes(WHOLE)
    with np.load(PATH) as file:
        arrays = dict(file)
    np.savez(PATH, **change(arrays))
    with pytest.raises(ValueError, match=r"not a posterior that vilogit can read: .*" + message):
        load(PATH)


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "foreign"
    for content in (b"", b"PK", b"x,y\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="foreign is not a posterior"):
            load(path)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(ValueError, match="not a posterior"):
        load(tmp_path / "one.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="it was not saved by vilogit"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    with pytest.raises(OSError):
        fit(X, Y).save(tmp_path / "no folder" / "a.npz")


def header(shape, descr="<f8"):
    file = BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"shape": shape, "fortran_order": False, "descr": descr}
    )
    return file.getvalue()


def archived(*parts, compression=zipfile.ZIP_STORED):
    file = BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in parts:
            archive.writestr(name, content)
    return bytearray(file.getvalue())


def bomb():
    zeros = header((10**7,)) + bytes(8 * 10**7)
    return archived(("vilogit.npy", zeros), compression=zipfile.ZIP_DEFLATED)


def bomb_that_lies():
    """The directory at the archive's end says that a part is small."""
    content = bomb()
    entry = content.index(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (100).to_bytes(4, "little")
    return content


def one_part_named_often():
    """Many entries of the directory lead to the same bytes."""
    content = archived(("vilogit.npy", header((10**4,)) + bytes(8 * 10**4)))
    first, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entries = bytes(content[first:end]) * 1000
    tail = content[end:]
    tail[8:12] = (1000).to_bytes(2, "little") * 2
    tail[12:16] = len(entries).to_bytes(4, "little")
    return content[:first] + entries + tail


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bomb, "its parts are compressed"),
        (bomb_that_lies, "its parts are compressed"),
        (one_part_named_often, "its parts claim to be larger than it is"),
        (lambda: archived(("vilogit.npy", header((10**12,)))), "a header announces float64 of sh"),
        (lambda: archived(("vilogit.npy", header((10**12,), "<U0"))), "a header announces <U0"),
        (lambda: archived(("vilogit.npy", header(()) + bytes(7))), r"float64 of shape \(\)"),
        (lambda: archived(("vilogit.npy", header(()) + bytes(9))), r"float64 of shape \(\)"),
        (lambda: archived(("vilogit.npy", b"\x93NUMPY\x02\x00")), "a format that vilogit does not"),
    ],
)
def test_no_file_takes_more_memory_than_its_size(content, message):
    content = bytes(content())
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        load(BytesIO(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(content) + 10**6


def test_no_pickle_is_ever_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.savez(tmp_path / "bomb.npz", vilogit=1, mean=np.array([Bomb()], object))
    with pytest.raises(ValueError, match="not a posterior"):
        load(tmp_path / "bomb.npz")
    assert not (tmp_path / "exploded").exists()


def test_arviz_gets_the_draws(posterior):
    pytest.importorskip("arviz_base")
    tree = posterior.to_arviz(5, np.random.default_rng(3))
    W = tree["posterior"]["W"]
    assert W.dims == ("chain", "draw", "feature", "class")
    np.testing.assert_array_equal(W[0], posterior.sample(5, np.random.default_rng(3)))


def test_without_arviz_the_extra_is_named(posterior, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(
        ImportError, match=r'^to_arviz needs ArviZ: pip install "vilogit\[arviz\]"$'
    ):
        posterior.to_arviz(5, np.random.default_rng(3))
