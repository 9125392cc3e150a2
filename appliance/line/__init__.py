"""What tells hosts on the line of verdicts, one file a protocol; each is off until umbra.toml has its section.

All of them live in one process beside the screener (`python -m appliance.line.server STATION`) and read the committed log, each
from its own cursor: a host that is down, slow or talks nonsense keeps its own feed waiting and nothing else.
"""
