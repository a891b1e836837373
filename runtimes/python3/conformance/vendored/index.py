import in_vendor
import json

import at_root


def handler(event, context):
    return [at_root.NAME, in_vendor.NAME, json.dumps({})]
