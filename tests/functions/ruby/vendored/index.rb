# Files that came in the zip.
require "at_root"
require "in_vendor"

def handler(event:, context:)
  [AT_ROOT, IN_VENDOR]
end
