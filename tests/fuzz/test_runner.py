"""What ``make fuzz`` runs."""

import subprocess
import sys


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_run_says_its_seed_and_what_it_tried():
    ran = run("decode", "--seed", "7", "--seconds", "0.1")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("seed 7 ")
    assert "decode: " in ran.stdout


def test_help_names_what_runs():
    told = run("--help").stdout
    assert "decode " in told
    assert "test_" not in told
    refused = run("nosuch")
    assert refused.returncode == 2
    assert "nosuch" in refused.stderr
