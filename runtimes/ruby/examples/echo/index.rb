# Answers with its event.
def handler(event:, context:)
  event
end
