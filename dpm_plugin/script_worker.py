"""The main module of processes that a script started by ``python -m dpm_plugin`` starts by spawn or forkserver."""

from dpm_plugin.script import run_definitions

if __name__ == "__mp_main__":
    run_definitions(globals())
