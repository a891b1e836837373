module Pkg
  def self.handler(event)
    "mod"
  end
end

def handler(event)
  Pkg.handler(event)
end
