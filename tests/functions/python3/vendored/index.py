"""Packages that came in the zip."""
import at_root
import in_vendor


def handler(event, context):
    return [at_root.NAME, in_vendor.NAME]
