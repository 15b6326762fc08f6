"""What the plugin costs those who do not ask for it."""

import subprocess
import sys
from importlib.metadata import entry_points


def test_pytest_knows_the_plugin_and_it_imports_nothing_of_celeriac():
    (plugin,) = [entry for entry in entry_points(group="pytest11") if entry.name == "celeriac"]
    program = (
        f"import sys, {plugin.value}; print([name for name in sys.modules if name.startswith('celeriac')])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
