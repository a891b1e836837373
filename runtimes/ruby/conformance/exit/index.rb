def handler(event:, context:)
  exit 3 if event["x"]
  "alive"
end
