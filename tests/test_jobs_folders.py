"""A folder of results replaces an older one as a whole, and nothing else."""

import json
import os
import shutil

import numpy as np
import pytest
from test_cli import TINY, files, picture, run, tiny

from measurand.jobs.folders import check_outside, free, named_inputs, reserved, staged
from measurand.jobs.provenance import write_record
from measurand.leases import lease
from measurand.weights.tensorfile import load_tensors


def filled(folder, by="reconstruct", **content):
    with staged(folder, by=by) as stage:
        for name, text in content.items():
            path = stage / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        write_record(stage / "run.json", {"command": ["measurand", by, "y.png"]})


def test_a_folder_of_results_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError), staged(tmp_path / "r", by="reconstruct") as folder:
        (folder / "a.txt").write_text("half")
        raise RuntimeError
    assert files(tmp_path) == []
    with staged(tmp_path / "r", by="reconstruct") as folder:
        (folder / "a.txt").write_text("one")
        assert not (tmp_path / "r").exists()
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o777 & ~mask
    assert [p.name for p in tmp_path.iterdir()] == ["r"] and files(tmp_path) == ["r/a.txt"]

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    with (
        pytest.raises(OSError, match="cannot write results.*No space left"),
        staged(tmp_path / "q", by="reconstruct"),
    ):
        pass


def test_a_second_run_replaces_the_first_as_a_whole(tmp_path):
    filled(tmp_path / "r", draws__00="old", sd="old")
    filled(tmp_path / "r", estimate="new")
    assert files(tmp_path) == ["r/estimate", "r/run.json"]
    (tmp_path / "empty").mkdir()
    filled(tmp_path / "empty", estimate="new")
    (tmp_path / "link").symlink_to("r")
    filled(tmp_path / "link", estimate="newer")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "r/estimate").read_text() == "newer"


OTHERS = [None, "{", "[]", '{"command": 3}', '{"command": ["measurand", "simulate", "x.png"]}']


@pytest.mark.parametrize("record", OTHERS)
def test_a_folder_of_something_else_is_left_alone(tmp_path, record):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("x")
    if record is not None:
        (tmp_path / "r" / "run.json").write_text(record)
    before = files(tmp_path)
    with (
        pytest.raises(OSError, match="something else than results of `measurand rec.*--out"),
        staged(tmp_path / "r", by="reconstruct"),
    ):
        raise AssertionError("nothing may be done")
    assert files(tmp_path) == before


def test_what_lies_beside_the_results_of_a_run_is_not_replaced_with_them(tmp_path):
    filled(tmp_path / "r", estimate="old", draws__00="old")
    (tmp_path / "r" / ".DS_Store").write_text("where the icons are")
    filled(tmp_path / "r", estimate="new", draws__00="new")  # what file managers leave counts not
    for name in ("notes.txt", "draws/mine.txt", ".hidden"):
        path = tmp_path / "r" / name
        path.write_text("thesis")
        with pytest.raises(
            OSError, match=f"it holds {name}, which no run of `measurand rec.*--out"
        ):
            filled(tmp_path / "r", estimate="newer")
        assert path.read_text() == "thesis"
        path.unlink()
    (tmp_path / "r" / "link").symlink_to(tmp_path / "r" / "estimate")
    with pytest.raises(OSError, match="it holds link"):
        filled(tmp_path / "r", estimate="newer")


def test_a_default_folder_with_something_else_in_it_is_left_alone(here, capsys):
    picture(here / "photo.png", 16, 16, 3)
    assert run("reconstruct", "photo.png", *TV) == 0
    (here / "runs" / "photo-fista" / "notes.txt").write_text("thesis")
    for _ in range(2):
        assert run("reconstruct", "photo.png", *TV) == 0
        assert capsys.readouterr().out.endswith("results in runs/photo-fista-2\n")
    assert (here / "runs" / "photo-fista" / "notes.txt").read_text() == "thesis"
    assert run("reconstruct", "photo.png", *TV, "--out", "runs/photo-fista") == 2
    assert "holds notes.txt" in capsys.readouterr().err


def test_what_lies_in_the_folder_of_a_scan_is_left_alone(here, capsys):
    pictures(here / "in")
    words = ["reconstruct", "in", *TV, "--out", "o"]
    assert run(*words) == 0
    (here / "o" / "1" / "notes.txt").write_text("thesis")
    assert run(*words) == 0  # nothing is to be done again
    picture(here / "in" / "1.png", 20, 20, 3)
    assert run(*words) == 1
    assert "o/1: holds notes.txt, which no run wrote" in capsys.readouterr().err
    assert (here / "o" / "1" / "notes.txt").read_text() == "thesis"


def test_what_appeared_while_the_run_lasted_is_left_alone(tmp_path):
    with pytest.raises(OSError), staged(tmp_path / "r", by="reconstruct") as stage:
        (stage / "estimate").write_text("x")
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "thesis.txt").write_text("x")
    assert files(tmp_path) == ["r/thesis.txt"]


def test_a_disk_that_fails_leaves_the_first_run(tmp_path, monkeypatch):
    filled(tmp_path / "r", estimate="old")
    rename = os.replace
    monkeypatch.setattr("measurand.files._exchanged", lambda *_: False)

    def full(source, target):
        if str(source).endswith("results"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        filled(tmp_path / "r", estimate="new")
    assert files(tmp_path) == ["r/estimate", "r/run.json"]
    assert (tmp_path / "r/estimate").read_text() == "old"


IDENTITY = ["--operator", "identity", "--sigma", 0.2]
TV = [*IDENTITY, "--prior", "total-variation", "--method", "fista", "--method.steps", 2]


def everything(folder):
    """All files and links below a folder with what is in them."""
    return {
        str(p.relative_to(folder)): os.readlink(p) if p.is_symlink() else p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_symlink() or p.is_file()
    }


def test_an_input_is_found_in_a_folder_however_it_is_named(here, monkeypatch):
    (here / "r" / "deep").mkdir(parents=True)
    (here / "o" / "deep").mkdir(parents=True)
    for name in ("r/deep/x.npz", "o/x.npz", "o/deep/y.npz"):
        (here / name).touch()
    (here / "s").symlink_to("r")
    (here / "r" / "out").symlink_to("../o")
    (here / "o" / "y.npz").symlink_to("../r/deep/x.npz")
    (here / "z.npz").symlink_to("r/out/x.npz")  # the file is not in r, the way to it is
    (here / "loop").symlink_to("loop")
    inside = ["r/deep/x.npz", "r/deep/x.npz:key", "s/deep/x.npz", "o/y.npz", "r/out/x.npz",
              "z.npz", here / "r" / "deep", "r", "o/../r/deep/../deep/x.npz", "r/out"]  # fmt: skip
    for folder in ("r", "s", here / "r", "o/../r", "./r/"):
        for name in inside:
            with pytest.raises(ValueError, match=f"--out {folder} holds {name}, which is read"):
                check_outside(folder, ["o/x.npz", name])
        check_outside(folder, ["o/x.npz", "r/../o/x.npz", "natural-color", "r/none.npz", "loop"])
    check_outside(None, inside)
    check_outside("r", ["r/deep/x.npz"], parts=["run.json", "deepest"])
    with pytest.raises(ValueError, match="holds"):
        check_outside("r", ["s/deep/x.npz"], parts=["deep"])
    monkeypatch.chdir(here / "o")
    with pytest.raises(ValueError, match="holds"):
        check_outside("../r", ["y.npz"])


def results_with(here, by, *names):
    """A folder of results of a command, to which files of the user were added."""
    (here / "res" / "more").mkdir(parents=True)
    record = {"command": ["measurand", by], "inputs": ["elsewhere"]}
    (here / "res" / "run.json").write_text(json.dumps(record))
    for name in names:
        if name.endswith(".npy"):
            np.save(here / name, np.ones((1, 5, 5), np.float32) / 25)
        elif name.endswith(".safetensors"):
            tiny(here / name)
        else:
            picture(here / name, 16, 16, 3)
    (here / "lies").symlink_to("res")


def refuses(capsys, here, held, *words):
    before = everything(here)
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert f" holds {held}, which is read and would be replaced" in said and "--out" in said
    assert everything(here) == before


@pytest.mark.parametrize("out", ["res", "lies", "more/../res"])
def test_reconstruct_never_removes_what_it_reads(here, capsys, out):
    names = ["res/x.png", "res/more/t.png", "res/k.npy", "res/p.safetensors", "y.png"]
    results_with(here, "reconstruct", *names)
    (here / "more").mkdir()
    (here / "link.png").symlink_to("res/x.png")
    settings = here / "res" / "settings.json"
    settings.write_text(json.dumps({"version": 1}))
    end = ["--out", out, "--quiet"]
    kernel = ["--operator", "blur", "--operator.kernel", "res/k.npy", *TV[2:]]
    network = [*IDENTITY, "--prior", "res/p.safetensors", "--method", "hqs", "--method.steps", 2]
    refuses(capsys, here, "res/x.png", "reconstruct", "res/x.png", *TV, *end)
    refuses(capsys, here, "link.png", "reconstruct", "link.png", *TV, *end)
    refuses(capsys, here, "lies/x.png", "reconstruct", "lies/x.png", *TV, *end)
    truth = ["--truth", "res/more/t.png"]
    refuses(capsys, here, "res/more/t.png", "reconstruct", "y.png", *TV, *truth, *end)
    refuses(capsys, here, "res/k.npy", "reconstruct", "y.png", *kernel, *end)
    refuses(capsys, here, "res/p.safetensors", "reconstruct", "y.png", *network, *end)
    assert run("reconstruct", "y.png", *TV, "--out", "other", "--quiet") == 0


def test_settings_and_their_prior_are_not_removed(here, capsys):
    names = ["res/p.safetensors", "y.png"]
    results_with(here, "reconstruct", *names)
    network = ["--prior", "res/p.safetensors", "--method", "hqs", "--method.steps", 1]
    search = ["--trials", 1, "--only", "weight", "--out", "t", "--quiet"]
    assert run("tune", "y.png", "--simulate", *IDENTITY, *network, *search) == 0
    words = ["reconstruct", "y.png", *IDENTITY, "--quiet", "--out"]
    refuses(capsys, here, "res/p.safetensors", *words, "res", "--settings", "t/settings.json")
    assert run(*words, "r", "--settings", "t/settings.json") == 0
    shutil.copy("t/settings.json", "r/settings.json")
    refuses(capsys, here, "r/settings.json", *words, "r", "--settings", "r/settings.json")


def test_many_scans_never_remove_what_they_read(here, capsys):
    (here / "in").mkdir()
    for name in "ab":
        picture(here / "in" / f"{name}.png", 16, 16, 3)
    end = [*TV, "--quiet", "--out"]
    refuses(capsys, here, here / "in" / "a.png", "reconstruct", "in", *end, "in")
    refuses(capsys, here, here / "in" / "a.png", "reconstruct", "in", *end, ".")
    assert run("reconstruct", "in", *end, "in/results") == 0
    # the results of one scan are those that another one reads
    (here / "in" / "m.csv").write_text("file,truth,name\nresults/b/estimate.png,a.png,a\n")
    held = here / "in" / "results" / "b" / "estimate.png"
    refuses(capsys, here, held, "reconstruct", "in/m.csv", *end, "in/results", "--replace")
    shutil.copytree("in", "truths", ignore=shutil.ignore_patterns("results"))
    held = here / "truths" / "a.png"
    refuses(capsys, here, held, "reconstruct", "in", *end, "truths", "--truth", "truths")
    np.save("in/results/k.npy", np.ones((1, 5, 5), np.float32) / 25)
    kernel = ["--operator", "blur", "--operator.kernel", "in/results/k.npy", *end[2:]]
    refuses(capsys, here, "in/results/k.npy", "reconstruct", "in", *kernel, "in/results")
    # a manifest may lie beside the results, not among those of a scan
    (here / "study" / "a").mkdir(parents=True)
    for name in ("study/m.csv", "study/a/m.csv"):
        (here / name).write_text(f"file,name\n{here}/in/a.png,a\n")
    assert run("reconstruct", "study/m.csv", *end, "study") == 1  # study/a is no result
    refuses(capsys, here, "study/a/m.csv", "reconstruct", "study/a/m.csv", *end, "study")
    shutil.rmtree("study/a")
    assert run("reconstruct", "study/m.csv", *end, "study") == 0


def test_simulate_and_tune_never_remove_what_they_read(here, capsys):
    names = ["res/x.png", "res/k.npy", "res/p.safetensors", "y.png"]
    results_with(here, "simulate", *names)
    kernel = ["--operator", "blur", "--operator.kernel", "res/k.npy", "--sigma", 0.1]
    refuses(capsys, here, "res/x.png", "simulate", "res/x.png", *IDENTITY, "--out", "lies")
    refuses(capsys, here, "res/k.npy", "simulate", "y.png", *kernel, "--out", "res")
    (here / "res" / "trials.json").write_text(json.dumps({"command": ["measurand", "tune"]}))
    words = ["tune", "y.png", *TV, "--trials", 1, "--quiet"]
    refuses(
        capsys, here, "res/x.png", "tune", "res/x.png", "--simulate", *words[2:], "--out", "res"
    )
    refuses(capsys, here, "res/x.png", *words, "--truth", "res/x.png", "--out", "lies")
    network = [*IDENTITY, "--prior", "res/p.safetensors", "--method", "hqs", "--simulate"]
    refuses(capsys, here, "res/p.safetensors", "tune", "y.png", *network, "--out", "res")
    assert [name for name in names if not (here / name).exists()] == []


TRAINING = ["train", "natural-color", *TINY]


def pictures(folder, n=3):
    folder.mkdir(parents=True)
    for k in range(n):
        picture(folder / f"{k}.png", 40, 40, 3)
    return folder


def refuses_weights(capsys, here):
    """Weights, and records of other runs, in the folder of a training without states."""
    before = everything(here)
    assert run(*TRAINING, "--data", "a", "--out", "t") == 2
    assert (
        "--out t: holds natural-color-0.05.safetensors of another run" in capsys.readouterr().err
    )
    assert everything(here) == before
    for text in ('{"command": ["measurand", "reconstruct"]}', "mine"):
        (here / "r").mkdir(exist_ok=True)
        (here / "r" / "run.json").write_text(text)
        assert run(*TRAINING, "--data", "a", "--out", "r") == 2
        assert "--out r: holds run.json of another run" in capsys.readouterr().err
        assert (here / "r" / "run.json").read_text() == text


def test_training_never_replaces_the_weights_that_it_starts_from(here, capsys):
    pictures(here / "a")
    assert run(*TRAINING, "--data", "a", "--out", "t") == 0
    weights = sorted((here / "t").glob("*.safetensors"))[0]
    shutil.rmtree(here / "t" / "states")
    (here / "w.safetensors").symlink_to(weights)
    before = everything(here)
    for init in (weights, "w.safetensors"):
        refuses(capsys, here, init, *TRAINING, "--data", "a", "--init", init, "--out", "t")
    assert everything(here) == before
    assert run(*TRAINING, "--data", "a", "--init", "w.safetensors", "--out", "u") == 0
    refuses_weights(capsys, here)
    pictures(here / "v" / "states")
    refuses(capsys, here, "v/states", *TRAINING, "--data", "v/states", "--out", "v")


def test_export_never_replaces_what_it_reads(here, capsys):
    before = tiny(here / "n.safetensors").read_bytes()
    (here / "e.pt2").symlink_to("n.safetensors")
    words = ["export", "n.safetensors", "--size", 8, 8, "--portable-only", "--quiet", "--out"]
    for out in ("n.safetensors", "e.pt2"):
        assert run(*words, out) == 0
    assert (here / "n.safetensors").read_bytes() == before
    assert run(*words[:-2], "--out", "n.safetensors") == 2  # once more
    said = capsys.readouterr().err
    assert "n.safetensors-portable.pt2 exists and would be replaced" in said and "--out" in said


def test_networks_of_one_name_do_not_share_an_exported_file(here, capsys):
    for name in ("a", "b"):
        (here / name).mkdir()
        tiny(here / name / "n.safetensors", seed=ord(name))
    words = ["--size", 8, 8, "--portable-only"]
    assert run("export", "a/n.safetensors", *words) == 0
    before = everything(here)
    assert run("export", "b/n.safetensors", *words) == 2
    assert "exported/n-portable.pt2 exists and would be replaced" in capsys.readouterr().err
    assert everything(here) == before
    (here / "c.pt2").write_text("mine")
    assert run("export", "exported/n-portable.pt2", "--out", "c.pt2") == 2
    assert "c.pt2 exists" in capsys.readouterr().err and (here / "c.pt2").read_text() == "mine"


def of(folder):
    return json.loads((folder / "run.json").read_text())["inputs"]


def test_a_default_folder_is_of_one_input(here, capsys):
    for name in ("a/photo.png", "b/photo.png", "photo.npy"):
        (here / name).parent.mkdir(exist_ok=True)
        picture(here / name, 16, 16, 3)
    (here / "link.png").symlink_to("a/photo.png")
    wanted = {"a/photo.png": "photo-fista", "b/photo.png": "photo-fista-2",
              "photo.npy": "photo-fista-3"}  # fmt: skip
    for _ in range(2):  # a second run of an input replaces the first
        for name, folder in wanted.items():
            assert run("reconstruct", name, *TV) == 0
            assert capsys.readouterr().out.splitlines()[-1] == f"results in runs/{folder}"
            assert of(here / "runs" / folder) == [str(here / name)]
    assert sorted(p.name for p in (here / "runs").iterdir()) == sorted(wanted.values())
    assert run("reconstruct", here / "b" / ".." / "b" / "photo.png", *TV) == 0
    assert capsys.readouterr().out.endswith("results in runs/photo-fista-2\n")
    assert run("reconstruct", "link.png", *TV) == 0 and of(here / "runs" / "link-fista")
    # a folder that is named keeps its meaning
    assert run("reconstruct", "b/photo.png", *TV, "--out", "runs/photo-fista") == 0
    assert of(here / "runs" / "photo-fista") == [str(here / "b" / "photo.png")]


def test_two_arrays_of_a_file_and_two_pictures_have_folders_of_their_own(here, capsys):
    y = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16))
    np.savez("y.npz", a=y[0], b=y[1])
    for key, folder in (("a", "y-fista"), ("b", "y-fista-2"), ("a", "y-fista")):
        assert run("reconstruct", f"y.npz:{key}", *TV, "--value-range", -1, 1) == 0
        assert capsys.readouterr().out.endswith(f"results in runs/{folder}\n")
    for name in ("a", "b"):
        (here / name).mkdir()
        picture(here / name / "x.png", 16, 16, 3)
    for name, folder in (("a", "x-measured"), ("b", "x-measured-2"), ("a", "x-measured")):
        assert run("simulate", f"{name}/x.png", *IDENTITY) == 0
        assert capsys.readouterr().out.endswith(f"runs/{folder}/measurement.npz\n")
    words = ["tune", "--simulate", *TV, "--trials", 1]
    for names, folder in ((["a"], ""), (["b"], "-2"), (["a", "b"], "-3"), (["a"], "")):
        assert run(*words[:1], *(f"{name}/x.png" for name in names), *words[1:]) == 0
        assert capsys.readouterr().out.endswith(
            f"settings in runs/tuned-fista{folder}/settings.json\n"
        )


def test_jobs_on_folders_of_one_name_have_folders_of_their_own(here, capsys):
    for name in ("p/scans", "q/scans"):
        (here / name).mkdir(parents=True)
        picture(here / name / "s.png", 16, 16, 3)
    for name, folder, done in (
        ("p", "scans-fista", "done now"),
        ("q", "scans-fista-2", "done now"),
        ("p", "scans-fista", "done before"),
    ):
        assert run("reconstruct", f"{name}/scans", *TV) == 0
        said = capsys.readouterr().out
        assert said.endswith(f"results in runs/{folder}\n") and f"{done}  " in said
        card = json.loads((here / "runs" / folder / "job.json").read_text())
        assert card["inputs"] == [str(here / name / "scans")]
    assert run("reconstruct", "p/scans", *TV[:-1], 3) == 2  # other settings, as before
    assert "other settings" in capsys.readouterr().err
    card = here / "runs" / "scans-fista" / "job.json"  # of a version that did not note its input
    old = {key: value for key, value in json.loads(card.read_text()).items() if key != "inputs"}
    card.write_text(json.dumps(old))
    assert run("reconstruct", "p/scans", *TV) == 0
    assert "done before" in capsys.readouterr().out
    assert sorted(p.name for p in (here / "runs").iterdir()) == ["scans-fista", "scans-fista-2"]


def test_runs_on_other_data_have_folders_of_their_own(here, capsys):
    pictures(here / "a")
    pictures(here / "b", 4)
    name = "natural-color"
    digests = {}
    for data, folder in (("a", name), ("b", f"{name}-2")):
        words = [word for word in TRAINING if word != "--quiet"]
        assert run(*words, "--data", data) == 0
        out, err = capsys.readouterr()
        assert all(line.startswith(f"runs/{folder}/{name}-") for line in out.splitlines())
        assert (f"this one is in runs/{folder}" in err) == (folder != name)
        (weights, *_) = (here / "runs" / folder).glob("*.safetensors")
        digests[folder] = load_tensors(weights)[1]["digest"]
    assert digests[name] != digests[f"{name}-2"]
    assert run(*TRAINING, "--data", "b") == 2  # as before: a run on these data is there
    assert f"runs/{name}-2/states: holds the states of a run" in capsys.readouterr().err
    assert run(*TRAINING, "--data", "b", "--resume") == 0
    pictures(here / "c", 5)
    assert run(*TRAINING, "--data", "c", "--resume") == 2
    assert "other images" in capsys.readouterr().err


def test_a_free_folder_is_empty_or_of_the_same_inputs(here):
    (here / "x.png").touch()
    mine, first = named_inputs("x.png"), here / "r"
    assert free(first, mine, by="reconstruct") == first
    first.mkdir()
    assert free(first, mine, by="reconstruct") == first
    first.rmdir()
    for content, same in (
        ({"command": ["measurand", "reconstruct"], "inputs": mine}, True),
        ({"command": ["measurand", "reconstruct"], "inputs": ["/else"]}, False),
        ({"command": ["measurand", "reconstruct"], "file": "x.png"}, True),
        ({"command": ["measurand", "reconstruct"], "file": "y.png"}, False),
        ({"command": ["measurand", "simulate", "x.png"]}, False),
        (["measurand"], False),
        ("{", False),
    ):
        first.mkdir()
        (first / "run.json").write_text(content if content == "{" else json.dumps(content))
        assert free(first, mine, by="reconstruct") == (first if same else here / "r-2"), content
        shutil.rmtree(first)
    first.write_text("a file")
    assert free(first, mine, by="reconstruct") == here / "r-2"


def test_a_default_folder_is_reserved_while_a_run_lasts(here):
    with (
        reserved(None, "x", ["/a"], by="reconstruct") as one,
        reserved(None, "x", ["/b"], by="reconstruct") as two,
        reserved("named", "x", ["/b"], by="reconstruct") as three,
    ):
        assert [str(path) for path in (one, two, three)] == ["runs/x", "runs/x-2", "named"]
    with lease(here / "runs" / ".x.lease") as ours:
        assert ours
    assert list((here / "runs").iterdir()) == []


def test_a_scan_of_many_may_take_so_long(here, capsys):
    (here / "in").mkdir()
    picture(here / "in" / "a.png", 16, 16, 3)
    end = [*TV[:-1], 10**7, "--quiet", "--out", "r", "--timeout"]
    assert run("reconstruct", "in", *end, "0.2s") == 1
    assert "failed: a: it took longer than 0.2 s (--timeout)" in capsys.readouterr().err
    assert files(here / "r") == ["job.json"]
    assert run("reconstruct", "in", *end, "soon") == 2
    assert "--timeout: got 'soon', wanted a duration like 90s" in capsys.readouterr().err
    assert run("reconstruct", "in/a.png", *end, "1s") == 2
    assert "--timeout is for many scans" in capsys.readouterr().err
