def explode
  raise StandardError, "boom"
end

def handler(event:, context:)
  explode
end
