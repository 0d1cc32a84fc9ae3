"""Scapy's shell with the layers of this project, to see and craft messages."""

from __future__ import annotations

from scapy.main import interact

from tools.scapy_dmm import fields, messages, options, suboptions

LAYERS = {
    name: value
    for module in (fields, suboptions, options, messages)
    for name, value in vars(module).items()
    if not name.startswith("_")
}

if __name__ == "__main__":
    interact(mydict=LAYERS, mybanner="with the layers of tools/scapy_dmm")
