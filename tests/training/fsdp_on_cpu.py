"""Run train.py with FSDP2 on CPU processes, which accelerate otherwise turns off.

torchrun starts this file in place of train.py. Only the switch differs from the real code.
"""

import os
import sys
from pathlib import Path

from accelerate import DistributedType
from accelerate.state import AcceleratorState

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "training"))
original_init = AcceleratorState.__init__


def init_with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
    """Set the FSDP type again: the instances share their state, but each resets the type."""
    original_init(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    self.fsdp_plugin = fsdp_plugin or getattr(self, "fsdp_plugin", None)
    if self.fsdp_plugin is not None:
        self.distributed_type = DistributedType.FSDP


AcceleratorState.__init__ = init_with_fsdp

import distributed  # noqa: E402
import train  # noqa: E402

gather_model = distributed.gather_model


def gather_and_record(trainer):
    """Write the parameters' types to a file, so that the test fails if nothing was sharded."""
    types = {type(parameter).__name__ for parameter in trainer.model.parameters()}
    Path(os.environ["TYPES_FILE"]).write_text(" ".join(sorted(types)))
    return gather_model(trainer)


distributed.gather_model = gather_and_record
code = train.main()
distributed.end_process_group()
sys.exit(code)
