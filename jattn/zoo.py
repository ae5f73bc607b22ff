"""The register of mechanisms under its short name: `from jattn.zoo import make`."""

from jattn.mechanisms.costs import Cost as Cost
from jattn.mechanisms.costs import table as table
from jattn.mechanisms.zoo import ALIASES as ALIASES
from jattn.mechanisms.zoo import MECHANISMS as MECHANISMS
from jattn.mechanisms.zoo import info as info
from jattn.mechanisms.zoo import make as make
from jattn.mechanisms.zoo import names as names
from jattn.mechanisms.zoo import options as options
from jattn.mechanisms.zoo import register as register
