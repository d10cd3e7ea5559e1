"""The files for clusters are sound, what they start is valid, and torchrun runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cxrssl.__main__ import main
from tests.nodes import ROOT, TINY, free_port

FILES = sorted((ROOT / "examples" / "cluster").iterdir())
LAUNCHERS = ("srun", "torchrun")
SLURM = {"SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_CPUS_PER_TASK": "9"}


def strategy_of(path):
    return "ddp" if "ddp" in path.name else "fully_sharded"


def launched(path, folder, *flags, **environment):
    """Return the words after the launcher, which a stand-in writes down."""
    for name in LAUNCHERS:
        stand_in = folder / name
        stand_in.write_text(f'#!/bin/bash\nprintf "%s\\n" {name} "$@" > {folder}/words\n')
        stand_in.chmod(0o755)
    path_variable = f"{folder}{os.pathsep}{os.environ['PATH']}"
    variables = SLURM | {"HEAD": "node0:29500", "PATH": path_variable} | environment
    subprocess.run(["bash", path, *flags], cwd=ROOT, env=os.environ | variables, check=True)
    return (folder / "words").read_text().splitlines()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_a_file_starts_is_a_valid_command(path, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    subprocess.run(["bash", "-n", path], check=True)
    words = launched(path, tmp_path, "--data.root", "/data/some radiographs")
    arguments = words[words.index("fit") :]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--print_config"])
    assert end.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert (config["trainer"]["num_nodes"], config["trainer"]["devices"]) == (2, "4")
    assert config["trainer"]["strategy"] == strategy_of(path)
    assert config["ckpt_path"] == "last"
    assert config["data"]["init_args"]["root"] == "/data/some radiographs"


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".sbatch"], ids=lambda p: p.name)
def test_jobs_are_queued_again_by_a_signal_to_the_processes(path, tmp_path):
    text = path.read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)", text, re.MULTILINE))
    assert "requeue" in options
    assert options["signal"].startswith("SIGUSR1@")  # B: would signal the shell of the job alone
    assert options["ntasks-per-node"] == re.sub(r"\D", "", options["gpus-per-node"])
    words = launched(path, tmp_path)
    assert words[0] == "srun"
    assert "--kill-on-bad-exit=1" in words
    assert f"--cpus-per-task={SLURM['SLURM_CPUS_PER_TASK']}" in words


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fully_sharded"])
def test_torchrun_trains_two_processes_and_goes_on(strategy, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(TINY))
    scripts = Path(sys.executable).parent
    variables = {
        "NODES": "1",
        "GPUS": "2",
        "HEAD": f"localhost:{free_port()}",
        "CONFIG": str(config),
        "RUN": str(tmp_path / "runs"),
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    path = ROOT / "examples" / "cluster" / f"torchrun_{strategy}.sh"
    for version, steps in enumerate((4, 6)):
        flags = ["--data.batch_size=4", f"--trainer.max_steps={steps}"]
        done = subprocess.run(
            ["bash", path, *flags],
            cwd=ROOT,
            env=os.environ | variables,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        run = tmp_path / "runs" / f"version_{version}"
        assert (run / "checkpoints" / "encoder.safetensors").is_file()
        assert ("Takes up" in done.stdout + done.stderr) == (version == 1)
    assert len(list((tmp_path / "runs").glob("version_*"))) == 2
