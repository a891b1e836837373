def handler(event:, context:)
  "x" * event["n"]
end
