"""train.py with FSDP2 on CPU processes: PyTorch can do it with gloo, accelerate turns it off there.

Run by torchrun in place of train.py; everything but the switch is the product's.
"""

import os
import sys
from pathlib import Path

from accelerate import DistributedType
from accelerate.state import AcceleratorState

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "training"))
plain = AcceleratorState.__init__


def sharded(self, *args, fsdp_plugin=None, **more):
    plain(self, *args, fsdp_plugin=fsdp_plugin, **more)
    # Its state is one for all instances, but each of them begins with the plain type again.
    self.fsdp_plugin = fsdp_plugin or getattr(self, "fsdp_plugin", None)
    if self.fsdp_plugin is not None:
        self.distributed_type = DistributedType.FSDP


AcceleratorState.__init__ = sharded

import distributed  # noqa: E402
import train  # noqa: E402

whole_model = distributed.whole_model


def watched(trainer):
    """Say, in a file, what the parameters were: the test must not pass without any sharding."""
    kinds = {type(parameter).__name__ for parameter in trainer.model.parameters()}
    Path(os.environ["KINDS_FILE"]).write_text(" ".join(sorted(kinds)))
    return whole_model(trainer)


distributed.whole_model = watched
code = train.main()
distributed.leave()
sys.exit(code)
