"""moto's server on 127.0.0.1, argv[1] is the port, with one mistake of its Lake Formation mended.

It keeps permissions in a set and changes them there, which changes their hash, so that it fails with 500 when a resource
is granted twice and revoked. Principal and resource do not change: they make the hash here.
"""

import json
import sys

from moto.lakeformation.models import Permission
from moto.server import main

Permission.__hash__ = lambda self: hash((json.dumps(self.principal), json.dumps(self.resource)))
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
